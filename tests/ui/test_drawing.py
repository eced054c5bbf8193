"""The pure drawing functions: colours, marked words, cards, the stage, notices."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.cases.examples import load_examples
from explorer.errors import ExplorerError
from explorer.records import Box, Cell, Exemplar, Grid, Histogram, NeuronSummary
from explorer.store.classes import CLASSES
from explorer.ui.exemplars import STRIP, Strips, strip, thumbnail
from explorer.ui.heat import COLOURS, LEAST_ALPHA, MOST_ALPHA, RAMP, data_uri, heat_rgba, lay_over, png
from explorer.ui.marks import badge, histogram_svg, name_of, number, percent
from explorer.ui.visit import Entry, Heading, Listing
from explorer.ui.workspace import panels
from explorer.ui.workspace.cards import Beside, Known, card, cards
from explorer.ui.workspace.stage import IDLE_FINE, frame, photo_uri, stage
from explorer.vlm.base import Scale
from explorer.world import CASES, draw
from tests.ui.fake_session import FakeSession, make_exemplar, make_view


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


def test_heat_is_laid_over_a_picture_smoothly_and_leaves_the_picture_alone() -> None:
    picture = Image.new("RGB", (40, 20), "white")
    heated = np.asarray(lay_over(picture, np.array([[0.0, 0.0, 3.0, 3.0]]))).astype(int)
    assert (np.asarray(picture) == 255).all()
    assert (heated[:, :8] == heated[0, 0]).all() and (heated[:, -8:] == heated[0, -1]).all()
    loud, quiet = heated[0, -1], heated[0, 0]
    assert abs(loud - (COLOURS[255, :3] * MOST_ALPHA + 255 * (1 - MOST_ALPHA))).max() < 3
    assert abs(quiet - (COLOURS[0, :3] * LEAST_ALPHA + 255 * (1 - LEAST_ALPHA))).max() < 3
    assert len(np.unique(heated[0, :, 1])) > 6, "no hard edge between the patches"


def test_png_holds_the_pixels() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    image = Image.open(io.BytesIO(png(rgba)))
    assert image.mode == "RGBA"
    assert (np.asarray(image) == rgba).all()


def test_data_uri_tells_the_type() -> None:
    assert data_uri(png(heat_rgba(np.zeros((1, 1))))).startswith("data:image/png;base64,")
    assert data_uri(b"RIFF0000WEBP").startswith("data:image/webp")
    assert data_uri(b"\xff\xd8\xff").startswith("data:image/jpeg")


def test_stage_places_the_covered_part_and_the_marks() -> None:
    view = make_view()
    html = stage('a "b"', view.grid, view.map(3), "fork <3>", [Cell(1, 2), Cell(1, 3)])
    assert "left:0.000%;top:0.000%;width:100.000%;height:100.000%;--rows:4;--cols:4" in html
    assert 'data-marked="[[1,2],[1,3]]"' in html and "2 patches" in html and "Clear" in html
    assert "[0,0,2.0,0]" in html
    assert "a &quot;b&quot;" in html and "fork &lt;3&gt;" in html
    assert 'data-low="0" data-high="2"' in html and ">2.00<" in html
    assert "dark margins" not in html


def test_stage_tells_of_margins_that_the_model_does_not_see() -> None:
    grid = Grid(4, 4, 80, 40, Box(20, 0, 60, 40))
    html = stage("t", grid, None, "")
    assert "left:25.000%;top:0.000%;width:50.000%" in html
    assert "The dark margins go unseen.</span>" in html, "also told where nothing hovers"
    padded = stage("t", Grid(4, 4, 80, 40, Box(0, -20, 80, 60)), None, "")
    almost = stage("t", Grid(4, 4, 80, 40, Box(0.2, 0, 79.9, 40)), None, "")
    assert "margins" not in padded + almost


def test_a_fine_grid_asks_to_look_closer_and_gets_a_larger_photo() -> None:
    fine, coarse = (Grid(n, n, 2100, 2100, Box(0, 0, 2100, 2100)) for n in (128, 24))
    assert IDLE_FINE in stage("t", fine, None, "") and IDLE_FINE not in stage("t", coarse, None, "")
    image = Image.new("L", (2100, 2100)).convert("RGB")

    def side(grid: Grid | None) -> int:
        data = base64.b64decode(photo_uri(image, grid).partition(",")[2])
        return Image.open(io.BytesIO(data)).width

    assert side(fine) == 2048 and side(coarse) == side(None) == 896


def test_the_numbers_under_the_pointer_are_those_of_the_map() -> None:
    dice = np.random.default_rng(0)
    size = dice.standard_normal((9, 7)) * 10.0 ** dice.uniform(-6, 4, (9, 7))
    values = (size * (dice.random((9, 7)) < 0.6)).astype(np.float32)
    html = stage("t", Grid(9, 7, 70, 90, Box(0, 0, 70, 90)), values, "n")
    numbers = json.loads(html.partition('data-map="')[2].partition('"')[0])
    np.testing.assert_allclose(numbers, values, rtol=6e-4)


def test_stage_without_a_neuron_has_no_map_and_no_mark() -> None:
    html = stage("t", make_view().grid, None, "")
    assert 'data-map=""' in html and 'data-marked=""' in html and "Clear" not in html


def test_stage_says_when_a_neuron_is_silent() -> None:
    view = make_view()
    assert "silent in this picture" in stage("t", view.grid, view.map(9), "nine")


def test_a_map_with_values_below_zero_has_its_scale_from_the_lowest() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 0], values[3, 3] = -0.002, 0.006
    html = stage("t", make_view().grid, values, "effect")
    assert 'data-low="-0.002" data-high="0.006"' in html and "-0.002" in html.split("data-map")[1]
    assert '<b style="left:25.0%" title="0"></b>' in html, "where 0 lies on the scale"
    assert "<b style" not in stage("t", make_view().grid, np.abs(values), "effect")


def test_frame_gives_the_photo_once_and_escapes_its_name() -> None:
    assert frame("data:x", '"a"', make_view().grid) == {
        "photo": "data:x",
        "caption": "&quot;a&quot;",
        "ratio": 2.0,
    }


def test_photo_is_scaled_down() -> None:
    assert len(photo_uri(Image.new("RGB", (4000, 3000)))) < 60_000


def test_card_names_its_buttons_and_escapes() -> None:
    summary = NeuronSummary(7, 0.0004, 0.0, 1.0, 2.0, "<dog>", 0.875, neuron_class="rare")
    html = card(Entry(7, 1.234, "a <note>"), Known("<dog>", summary, "", ""), chosen=True)
    for event in ("pick", "put", "page"):
        assert f'data-do="{event}" data-with="{{&quot;neuron&quot;: 7}}"' in html
    assert 'aria-label="Put neuron 7, &lt;dog&gt;, on the bench"' in html
    assert "in &lt; 0.1 % of pictures" in html and "88 % show it" in html and "badge rare" in html
    assert "a &lt;note&gt;" in html and 'aria-pressed="true"' in html and ">1.23<" in html
    assert "<dog>" not in html and "<note>" not in html


def test_a_strip_shows_each_exemplar_as_a_small_picture_with_its_heat() -> None:
    exemplars = [make_exemplar(3, rank) for rank in range(16)]
    html = strip(exemplars)
    assert html.count('class="thumb"') == 16 and "exemplar 1: dog, cake" in html
    assert "Never fired" in strip([])
    data = base64.b64decode(re.search(r"base64,([^\"]+)", html).group(1))  # type: ignore[union-attr]
    small = Image.open(io.BytesIO(data))
    assert small.size == (72, 72) and small.format == "JPEG" and len(data) < 4000
    red, green, blue = small.convert("RGB").getpixel((72 * 3 // 8, 72 // 8))  # type: ignore[misc]
    assert red > 180 and green > 150 and blue < 120, "its one active patch glows"
    dark = small.convert("RGB").getpixel((64, 64))
    assert sum(dark) < red + green + blue  # type: ignore[arg-type]


def test_thumbnails_of_wide_pictures_show_the_middle() -> None:
    wide = Image.new("RGB", (90, 30), "black")
    wide.paste("white", (30, 0, 60, 30))
    stream = io.BytesIO()
    wide.save(stream, "PNG")
    quiet = np.full((2, 6), 0.0, np.float32)
    exemplar = Exemplar(1, 0, 1.0, "i", "o", stream.getvalue(), quiet)
    html = thumbnail(exemplar, 1.0, side=20)
    data = base64.b64decode(re.search(r"base64,([^\"]+)", html).group(1))  # type: ignore[union-attr]
    square = np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float32)
    assert square.shape == (20, 20) and np.ptp(square) < 40 and square.mean() > 120


def test_cards_of_a_session_with_and_without_a_store() -> None:
    listing = Listing(
        Heading("Whole picture", "Strongest.", "mean"), tuple(Entry(*x) for x in make_view().top())
    )
    full = cards(listing, Beside(3), Strips(FakeSession()))  # type: ignore[arg-type]
    assert full.count('class="thumb"') == 16 + STRIP
    assert "fork and knife" in full and "badge always_on" in full and full.count("<svg") == 2
    assert 'data-with="{&quot;pool&quot;: &quot;mean&quot;}"' in full and 'data-do="back"' not in full
    bare = cards(listing, Beside(3, True), Strips(FakeSession(has_store=False)))  # type: ignore[arg-type]
    assert "thumb" not in bare and "neuron 3" in bare and "<svg" not in bare and 'data-do="back"' in bare
    nothing = Listing(Heading("x", "y"), (), "nothing <here>")
    assert "nothing &lt;here&gt;" in cards(nothing, Beside(), Strips(FakeSession()))  # type: ignore[arg-type]


def test_names() -> None:
    summary = NeuronSummary(7, 0.1, 0.0, 1.0, 2.0, "fork_and_knife")
    assert name_of(7, summary) == "fork and knife" and name_of(7, summary, "mine") == "mine"
    assert name_of(7, None) == "neuron 7" and name_of(7, NeuronSummary(7, 0.1, 0.0, 1.0, 2.0)) == "neuron 7"


def test_badges_explain_the_classes_of_the_store() -> None:
    for neuron_class in CLASSES:
        assert f'class="badge {neuron_class}" title="' in badge(neuron_class)
    assert badge("") == "" and badge("<b>") == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (9.351, "9.35"),
        (-12, "-12.00"),
        (0.0123, "0.012"),
        (1e-7, "1e-07"),
        (float("nan"), "unknown"),
    ],
)
def test_numbers(value: float, words: str) -> None:
    assert number(value) == words


def _bars(svg: str) -> list[float]:
    return [float(x) for x in re.findall(r"v-([0-9.]+)h", svg)]


def test_a_histogram_shows_its_filled_bins_and_where_the_value_lies() -> None:
    edges = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
    svg = histogram_svg(Histogram(edges, np.array([0, 4, 16, 1, 0])), 1.5, "a <b>", width=90, height=23)
    tall = _bars(svg)
    assert len(tall) == 3 and tall[1] == 20 and tall[0] == pytest.approx(10) and tall[2] == pytest.approx(5)
    assert float(re.search(r'class="at" d="M([0-9.]+)', svg).group(1)) == pytest.approx(45)  # type: ignore[union-attr]
    assert 'aria-label="a &lt;b&gt;"' in svg and "<b>" not in svg
    beyond = histogram_svg(Histogram(edges, np.array([0, 4, 16, 1, 0])), 1000.0, width=80)
    assert len(_bars(beyond)) == 3 and 'class="at" d="M79.0' in beyond


def test_a_histogram_of_nothing_is_nothing_and_odd_values_have_no_marker() -> None:
    edges = np.array([1.0, 2.0, 4.0])
    assert histogram_svg(Histogram(edges, np.zeros(2, np.int64)), 1.0) == ""
    for value in (None, 0.0, -3.0, float("nan"), float("inf")):
        assert 'class="at"' not in histogram_svg(Histogram(edges, np.array([1, 2])), value)


@pytest.mark.parametrize(
    ("share", "words"), [(0, "0 %"), (0.0002, "< 0.1 %"), (0.034, "3.4 %"), (0.5, "50 %"), (1, "100 %")]
)
def test_percent(share: float, words: str) -> None:
    assert percent(share) == words


def test_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view()
    assert panels.notices(FakeSession(), view) == ""  # type: ignore[arg-type]
    said = panels.notices(FakeSession(known=False), view)  # type: ignore[arg-type]
    assert "unlike those of the index" in said and "drawn" not in said, "other models know more"
    monkeypatch.setattr(panels, "is_embedded", lambda model_id: model_id == "fake@0")
    assert "only knows drawn scenes" in panels.notices(FakeSession(known=False), view)  # type: ignore[arg-type]
    assert panels.notices(FakeSession(has_store=False), view) == ""  # type: ignore[arg-type]


def test_examples_cover_every_case_and_ordinary_scenes() -> None:
    examples = load_examples()
    shown = {draw(seed, "counterfactual").case for seed in range(len(CASES))}
    titles = {example.title.lower() for example in examples.values()}
    assert shown <= titles, "an example for every case that breaks a prior"
    assert len(examples) >= len(CASES) + 3
    html = panels.Shelf(examples.values()).html("phantom-fork")
    assert panels.FOREIGN not in html
    other = panels.Shelf(examples.values(), known=False).html("phantom-fork")
    assert panels.FOREIGN in other and examples["phantom-fork"].story not in other
    assert html.count('data-do="example"') == len(examples)
    assert html.count('aria-pressed="true"') == 1 and "Phantom fork" in html


def test_damaged_examples_are_an_error_in_plain_words(tmp_path) -> None:
    (tmp_path / "x.json").write_text('[{"key": "a"}]')
    with pytest.raises(ExplorerError, match="cannot read the examples"):
        load_examples(tmp_path / "x.json")


def test_what_is_particular_in_how_a_picture_is_seen_is_told() -> None:
    session, view = FakeSession(), make_view()
    assert panels.how_seen(session, view) == ""  # type: ignore[arg-type]
    scale = Scale(view.grid, torch.arange(16))
    tiled = replace(view, prepared=replace(view.prepared, scales=(scale, scale)))
    assert "reads it in 2 larger tiles: " in panels.how_seen(session, tiled)  # type: ignore[arg-type]
    session.lvlm.has_places = False
    told = panels.how_seen(session, view)  # type: ignore[arg-type]
    assert told.startswith("A Q-Former sums")
    shelf = panels.Shelf(load_examples().values())
    assert told in shelf.html("", "A <b>case</b>.", told) and "A <b>case</b>. A Q-Former" in shelf.html(
        "", "A <b>case</b>.", told
    )
