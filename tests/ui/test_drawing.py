"""The pure drawing functions: colours, marked words, cards, the stage, notices."""

from __future__ import annotations

import io
import re
from html import unescape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ExplorerError
from explorer.records import Activation, Cell, NeuronSummary
from explorer.ui import panels
from explorer.ui.cards import STRIP, Gallery, Heading, card, cards, percent, strip
from explorer.ui.examples import load_examples
from explorer.ui.heat import RAMP, data_uri, heat_rgba, png
from explorer.ui.stage import photo_uri, stage
from explorer.ui.words import mark, tokens
from explorer.world import CASES, draw
from tests.ui.fake_session import FakeSession, make_exemplar, make_view

PLAIN = re.compile(r"<[^>]+>")


def plain(html: str) -> str:
    return unescape(PLAIN.sub("", html))


def test_heat_runs_from_the_first_colour_to_the_last_and_grows_lighter() -> None:
    colors = heat_rgba(np.linspace(0, 7, 16, dtype=np.float32).reshape(4, 4))
    assert tuple(colors[0, 0, :3]) == RAMP[0]
    assert tuple(colors[3, 3, :3]) == RAMP[-1]
    lightness = colors[..., :3].reshape(-1, 3).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    assert (np.diff(colors[..., 3].reshape(-1).astype(int)) >= 0).all()


@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.full((2, 3), -1.0)])
def test_heat_of_a_silent_or_broken_map_is_the_low_end(values: np.ndarray) -> None:
    assert (heat_rgba(values)[..., :3] == RAMP[0]).all()


def test_png_holds_the_pixels() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    image = Image.open(io.BytesIO(png(rgba)))
    assert image.mode == "RGBA"
    assert (np.asarray(image) == rgba).all()


def test_data_uri_tells_the_type() -> None:
    assert data_uri(png(heat_rgba(np.zeros((1, 1))))).startswith("data:image/png;base64,")
    assert data_uri(b"RIFF0000WEBP").startswith("data:image/webp")
    assert data_uri(b"\xff\xd8\xff").startswith("data:image/jpeg")


def test_marked_words_of_a_removed_phrase() -> None:
    marked = mark("A table with a cake and a fork.", "A table with a cake.")
    assert marked.before == "A table with a cake <del>and a fork</del>."
    assert marked.after == "A table with a cake."
    assert marked.changes == 1


def test_marked_words_of_an_exchange() -> None:
    marked = mark("a red car", "a blue car")
    assert (marked.before, marked.after) == ("a <del>red</del> car", "a <ins>blue</ins> car")


def test_a_growing_answer_has_lost_nothing_yet() -> None:
    marked = mark("a cake and a fork and a dog", "a cake", finished=False)
    assert (marked.before, marked.after, marked.changes) == ("a cake and a fork and a dog", "a cake", 0)


def test_marks_escape_html() -> None:
    marked = mark("<b>one</b>", "<script>alert(1)</script>")
    assert "<script" not in marked.after
    assert "<b>" not in marked.before


@given(st.text(), st.text(), st.booleans())
def test_marked_texts_keep_their_words(before: str, after: str, finished: bool) -> None:
    marked = mark(before, after, finished)
    assert plain(marked.before) == "".join(tokens(before))
    assert plain(marked.after) == "".join(tokens(after))
    assert mark(before, before).changes == 0


def test_stage_places_the_covered_part_and_the_mark() -> None:
    view = make_view()
    html = stage("data:x", 'a "b"', view.grid, view.map(3), "fork <3>", Cell(1, 2))
    assert "left:0.000%;top:0.000%;width:100.000%;height:100.000%;--rows:4;--cols:4" in html
    assert 'style="--row:1;--col:2"' in html
    assert "[0.0,0.0,2.0,0.0]" in html
    assert "a &quot;b&quot;" in html and "fork &lt;3&gt;" in html
    assert ">2.00<" in html


def test_stage_without_a_neuron_has_no_map_and_no_mark() -> None:
    html = stage("data:x", "t", make_view().grid, None, "", None)
    assert 'data-map=""' in html and 'class="mark" hidden' in html


def test_stage_says_when_a_neuron_is_silent() -> None:
    view = make_view()
    assert "silent in this picture" in stage("data:x", "t", view.grid, view.map(9), "nine", None)


def test_photo_is_scaled_down() -> None:
    assert len(photo_uri(Image.new("RGB", (4000, 3000)))) < 60_000


def test_card_names_its_buttons_and_escapes() -> None:
    summary = NeuronSummary(7, 0.0004, 0.0, 1.0, 2.0, "<dog>", 0.875)
    html = card(Activation(7, 1.234), summary, "", 0.5, chosen=True)
    assert 'data-pick="7"' in html and 'data-put="7"' in html
    assert 'aria-label="Put neuron 7, &lt;dog&gt;, on the bench"' in html
    assert "fires in &lt; 0.1 % of pictures" in html or "fires in < 0.1 % of pictures" in html
    assert "width:50.0%" in html and 'aria-pressed="true"' in html and "<dog>" not in html


def test_strip_shows_each_exemplar_with_its_heat() -> None:
    html = strip([make_exemplar(3, rank) for rank in range(16)])
    assert html.count('class="thumb"') == 16
    assert html.count('class="heat"') == 16
    assert "exemplar 1: dog, cake" in html
    assert "Never fired" in strip([])


def test_cards_of_a_session_with_and_without_a_store() -> None:
    heading = Heading("Whole picture", "Strongest.", "mean")
    top = make_view().top(20)
    full = cards(heading, top, 3, Gallery(FakeSession()), "nothing")  # type: ignore[arg-type]
    assert full.count('class="thumb"') == 16 + STRIP
    assert "fork and knife" in full and 'data-pool="mean" aria-pressed="true"' in full
    bare = cards(heading, top, 3, Gallery(FakeSession(has_store=False)), "nothing")  # type: ignore[arg-type]
    assert "thumb" not in bare and "neuron 3" in bare
    assert "nothing" in cards(Heading("x", "y"), [], None, Gallery(FakeSession()), "nothing")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "words"), [(0, "0 %"), (0.0002, "< 0.1 %"), (0.034, "3.4 %"), (0.5, "50 %"), (1, "100 %")]
)
def test_percent(share: float, words: str) -> None:
    assert percent(share) == words


def test_notices() -> None:
    view = make_view()
    assert panels.notices(FakeSession(), view) == ""  # type: ignore[arg-type]
    assert "only knows drawn scenes" in panels.notices(FakeSession(known=False), view)  # type: ignore[arg-type]
    bare = panels.notices(FakeSession(has_store=False), view)  # type: ignore[arg-type]
    assert "<code>python -m index build</code>" in bare


def test_examples_cover_every_case_and_ordinary_scenes() -> None:
    examples = load_examples()
    shown = {draw(seed, "counterfactual").case for seed in range(len(CASES))}
    titles = {example.title.lower() for example in examples.values()}
    assert shown <= titles, "an example for every case that breaks a prior"
    assert len(examples) >= len(CASES) + 3
    html = panels.Shelf(examples.values()).html("phantom-fork")
    assert html.count("data-example=") == len(examples)
    assert html.count('aria-pressed="true"') == 1 and "Phantom fork" in html


def test_damaged_examples_are_an_error_in_plain_words(tmp_path) -> None:
    (tmp_path / "x.json").write_text('[{"key": "a"}]')
    with pytest.raises(ExplorerError, match="cannot read the examples"):
        load_examples(tmp_path / "x.json")
