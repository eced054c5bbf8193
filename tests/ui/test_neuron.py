"""A neuron's own page, on a small made-up store: each section, what people keep, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from explorer.errors import StoreError
from explorer.records import FAVOURITES, Box, Exemplar, Grid, Histogram, LabelEvidence, NeuronSummary, Word
from explorer.session.stored import Stored
from explorer.store import Store
from explorer.store.synthetic import synthetic_store
from explorer.ui.hub import Rules
from explorer.ui.neuron import numbers, sheet
from explorer.ui.neuron.keeping import Keeping
from explorer.ui.neuron.latency import measure, sizes
from explorer.ui.neuron.lens import picture
from explorer.ui.neuron.pages import Page, Pages
from explorer.ui.visit import Focus, Visit
from explorer.ui.workspace.looking import Looking
from tests.ui.fake_session import NEURONS, make_view

EVIL = "<script>alert('x')</script>"
ALIVE = 3
"""A neuron that fires in the made-up store and in the picture of `make_view`."""


class Session(Stored):
    """The made-up store; the model only frames pictures: the middle square is what it sees."""

    def __init__(self, store: Store | None) -> None:
        self.store = store
        self.sae = SimpleNamespace(n_neurons=NEURONS)
        self.lvlm = SimpleNamespace(model_id="made-up@0", preprocess=self._framed)

    def _framed(self, image: Image.Image, fixed: bool = False) -> SimpleNamespace:
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        return SimpleNamespace(grid=Grid(4, 4, *image.size, Box(left, top, left + edge, top + edge)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_store(tmp_path_factory.mktemp("made-up") / "store", NEURONS, images=400)


@pytest.fixture
def session(written_store: Store) -> Session:
    return Session(written_store)


@pytest.fixture
def visit() -> Visit:
    return Visit(make_view(), "A picture", "data:,")


def pages_of(session: Session, **rules: Any) -> Pages:
    return Pages(Looking(session), Rules(**rules))  # type: ignore[arg-type]


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


def request(**query: str) -> Any:
    return SimpleNamespace(query_params=query)


def test_a_page_shows_every_section(session: Session, visit: Visit) -> None:
    page = pages_of(session).open(visit, event(neuron=ALIVE))
    assert page.neuron == ALIVE
    summary = session.summary(ALIVE)
    assert f"#{ALIVE}" in page.head or f"neuron {ALIVE}" in page.head
    assert f"{100 * summary.fires:.0f}" in page.head
    strong, weaker = session.exemplars(ALIVE), session.interval_exemplars(ALIVE)
    assert page.sheet.count('data-kind="strong"') == len(strong) > 4
    assert page.sheet.count('data-kind="weaker"') == len(weaker) > 0
    for title in ("Strongest", "Weaker", "Labels", "Words it raises", "Fires together", "Similar"):
        assert title in page.sheet
    for partner in session.partners(ALIVE):
        assert f'data-do="page" data-with="{{&quot;neuron&quot;: {partner.neuron}}}"' in page.sheet
    assert page.sheet.count('class="other"') == len(session.partners(ALIVE)) + len(session.similar(ALIVE, 8))
    for word in session.words(ALIVE):
        assert f"<span>{word.word}</span>" in page.sheet
    assert "Scores" in page.numbers and "Activations" in page.numbers and "label entropy" in page.numbers
    assert page.numbers.count('class="mark yours') == 2 and page.numbers.count('class="mark peak') == 2


def test_numbers_say_what_they_mean() -> None:
    summary = NeuronSummary(4, 0.5, 0.25, 1.234, 12.34, "dog", 0.75, lift=5.5, entropy=0.0)
    shown = numbers.statistics(numbers.groups(summary, 0.5))
    for value in ("50 %", "25 %", "1.23", "12.3", "75 %", "5.5 ×", "Two pictures at random give 0.50"):
        assert value in shown, value
    facts = [fact for group in numbers.groups(summary, None) for fact in group.facts]
    assert all(fact.meaning.endswith(".") and len(fact.meaning) < 120 for fact in facts)
    assert {fact.name: fact.value for fact in facts}["detector"] == numbers.UNKNOWN
    unnamed = numbers.statistics(numbers.groups(replace(summary, label=""), None))
    assert "75 %" not in unnamed, "a precision of no label says nothing"


def test_the_visitors_picture_is_told_and_placed(session: Session, visit: Visit) -> None:
    pages = pages_of(session)
    here = pages.draw(ALIVE, visit).here
    assert "row 2, column 3" in here and ">2<" in here and "A picture" in here
    assert ">0.19<" in here, "the score is the mean over 16 patches of 1 and 2"
    silent, figures = pages.look_again(visit, 4)
    assert "silent" in silent and "mark yours" not in figures
    nobody, figures = pages.look_again(None, 4)
    assert "No picture is open" in nobody and "mark peak" in figures
    assert "value" not in pages.look_again(visit, None)[0], "nothing is drawn while no neuron is open"


def test_shares_below_and_axes() -> None:
    histogram = Histogram(np.array([1.0, 2.0, 4.0, 8.0]), np.array([10, 0, 30]))
    assert numbers.share_below(histogram, 1.5) == pytest.approx(5 / 40)
    assert numbers.share_below(histogram, 100) == 1.0 and numbers.share_below(histogram, 0.1) == 0.0
    marks = [numbers.Mark(8.0, "peak", "peak"), numbers.Mark(0.0, "yours", "yours")]
    drawn = numbers.chart(histogram, "Scores", "pictures", "How many.", marks)
    assert 'left:100.0%"><b>peak 8' in drawn and "yours" not in drawn, "what is silent has no place"
    assert "4 to 8: 30 pictures" in drawn
    assert numbers.chart(Histogram(histogram.edges, np.zeros(3, int)), "Scores", "pictures", "", []) == ""


def test_a_dead_neuron_has_a_page(session: Session, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = NeuronSummary(7, 0.0, 0.0, 0.0, 0.0, neuron_class="dead")
    empty = Histogram(np.array([1.0, 2.0]), np.array([0]))
    for name in ("exemplars", "interval_exemplars", "labels", "words", "partners"):
        monkeypatch.setattr(session, name, lambda neuron: [])
    monkeypatch.setattr(session, "similar", lambda neuron, k: [])
    monkeypatch.setattr(session, "summary", lambda neuron: summary)
    monkeypatch.setattr(session, "histogram", lambda neuron, which="score": empty)
    page = pages_of(session).draw(7, visit)
    assert (
        "never fired" in page.sheet and "no indexed picture" in page.head and "None are known" in page.sheet
    )
    assert "chart" not in page.numbers and 'data-do="put"' in page.head, "it can be steered with all the same"


def test_links_open_pages_and_bad_ones_the_gallery(
    session: Session, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, title: told.append(message))
    pages = pages_of(session)
    page = pages.linked(visit, request(neuron=str(ALIVE)))
    assert page[0] == ALIVE and page[-1].selected == "gallery"
    untouched = pages.linked(visit, request(theme="dark"))
    assert len(untouched) == len(page) and all(part == gr.skip() for part in untouched)
    for bad in ("abc", "-1", str(NEURONS), "1e9", EVIL, "", "٣" * 400):
        opened = pages.linked(visit, request(neuron=bad))
        assert opened[0] is None and opened[1] == "" and opened[-1].selected == "gallery"
        assert f"0 to {NEURONS - 1}" in told[-1] and "<" not in told[-1]


def test_bad_numbers_are_refused(session: Session, visit: Visit) -> None:
    pages = pages_of(session)
    for bad in (NEURONS, -1, 1.5, "3", None, True, float("nan"), [1]):
        with pytest.raises(gr.Error, match=f"0 to {NEURONS - 1}"):
            pages.open(visit, event(neuron=bad))
        with pytest.raises(gr.Error, match=f"0 to {NEURONS - 1}"):
            pages.attempt(visit, Focus(), event(neuron=bad))
    with pytest.raises(gr.Error, match="No picture is open"):
        pages.attempt(None, None, event(neuron=ALIVE))
    for data in ({"kind": "strong", "rank": 999}, {"kind": "other", "rank": 0}, {"kind": "weaker"}):
        with pytest.raises(gr.Error):
            pages.enlarge(ALIVE, event(**data))
    with pytest.raises(gr.Error, match="No neuron is open"):
        pages.enlarge(None, event(kind="strong", rank=0))


def test_try_on_my_picture_shows_the_heat_whatever_was_chosen(session: Session, visit: Visit) -> None:
    looking = SimpleNamespace(session=session, strips=None, show=lambda visit, focus: focus)
    pages = Pages(looking, Rules())  # type: ignore[arg-type]
    for former in (None, Focus(), Focus(neuron=ALIVE)):
        assert pages.attempt(visit, former, event(neuron=ALIVE)).neuron == ALIVE


def test_an_exemplar_is_enlarged_with_its_facts(session: Session) -> None:
    pages = pages_of(session)
    strong = json.loads(pages.enlarge(ALIVE, event(kind="strong", rank=1)))
    assert strong["title"].startswith("Exemplar 2 of") and strong["photo"].startswith("data:image/")
    assert strong["heat"].startswith("data:image/png") and "Score" in strong["facts"][0]
    assert strong["origin"] == session.exemplars(ALIVE)[1].image_id
    weaker = json.loads(pages.enlarge(ALIVE, event(kind="weaker", rank=0)))
    assert weaker["kind"] == "weaker" and weaker["title"].startswith("Scores")


def test_scenes_are_drawn_anew_and_files_read_again(session: Session, tmp_path: Path) -> None:
    def size(origin: str) -> tuple[int, int] | None:
        exemplar = Exemplar(1, 0, 1.0, "id", origin, b"small", np.zeros((4, 4), np.float32))
        found = picture(session, exemplar)  # type: ignore[arg-type]
        if found == b"small":
            return None
        path = tmp_path / "found.jpg"
        path.write_bytes(found)
        return Image.open(path).size

    Image.new("RGB", (900, 700), "teal").save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert size("scene:ordinary:5") == (560, 560)
    assert size(str(tmp_path / "whole.png")) == (560, 560), "the middle square, as the patches cover it"
    gone = (str(tmp_path / "gone.png"), str(tmp_path / "broken.png"), str(tmp_path), "scene:none:5", "x.png")
    assert [size(origin) for origin in gone] == [None] * len(gone)


def test_names_notes_and_lists_are_kept_and_escaped(session: Session, visit: Visit) -> None:
    keeping, pages = Keeping(session, Rules()), pages_of(session)  # type: ignore[arg-type]
    sent = event(neuron=ALIVE, name=f" {EVIL}  cake ", note=f"one\r\n{EVIL}\n", changed="")
    head, mine = keeping.save(ALIVE, sent)
    note = session.note(ALIVE)
    assert note and (note.name, note.note) == (f"{EVIL} cake", f"one\n{EVIL}")
    keeping.enlist(ALIVE, event(list=f"{EVIL}list"))
    head, mine = keeping.star(ALIVE, event(on=True))
    assert session.lists_of(ALIVE) == (f"{EVIL}list", FAVOURITES)
    assert 'aria-pressed="true"' in head and 'data-saved=""' in mine
    for html in (head, mine, *pages.draw(ALIVE, visit)[1:], *pages.draw(0, visit)[1:]):
        assert "<script" not in str(html)
    assert "&lt;script&gt;" in head and "&lt;script&gt;" in mine
    exported = json.loads(json.loads(keeping.export()["file"])["text"])
    assert exported["notes"][0]["note"] == f"one\n{EVIL}"
    assert {one["name"] for one in exported["lists"]} == {f"{EVIL}list", FAVOURITES}
    head, mine = keeping.star(ALIVE, event(on=False))
    head, mine = keeping.unlist(ALIVE, event(list=f"{EVIL}list"))
    assert session.lists() == [] and "in no list" in mine
    keeping.save(ALIVE, event(neuron=ALIVE, name="", note="  ", changed="x"))
    assert session.note(ALIVE) is None


def test_of_two_who_write_at_once_the_later_wins_and_is_told(session: Session) -> None:
    keeping = Keeping(session, Rules())  # type: ignore[arg-type]
    session.set_note(ALIVE, "mine", "first")
    seen = session.note(ALIVE)
    assert seen
    session.set_note(ALIVE, "theirs", "second <i>")
    mine = keeping.save(ALIVE, event(neuron=ALIVE, name="mine", note="third", changed=seen.changed))[1]
    assert "replaced" in mine and "theirs" in mine and "second &lt;i&gt;" in mine and "third" in mine
    fresh = session.note(ALIVE)
    assert fresh and fresh.note == "third"
    mine = keeping.save(ALIVE, event(neuron=ALIVE, name="mine", note="fourth", changed=fresh.changed))[1]
    assert "Saved." in mine and "theirs" not in mine
    saved = re.search(r'data-saved="(\d+)"', str(mine))
    assert saved, "the browser drops its draft when it sees this sign"


def test_what_cannot_be_kept_is_refused(session: Session) -> None:
    keeping = Keeping(session, Rules())  # type: ignore[arg-type]
    good = {"neuron": ALIVE, "name": "a", "note": "b", "changed": ""}
    for bad in ({"name": "n" * 201}, {"note": "n" * 20_001}, {"note": 5}, {"name": {}}, {"neuron": "3"}):
        with pytest.raises(gr.Error):
            keeping.save(ALIVE, event(**{**good, **bad}))
    with pytest.raises(gr.Error, match="is open now"):
        keeping.save(ALIVE + 1, event(**good))
    for name in ("", "   ", None, 7, "l" * 81):
        with pytest.raises(gr.Error):
            keeping.enlist(ALIVE, event(list=name))
    with pytest.raises(gr.Error, match="No neuron is open"):
        keeping.star(None, event(on=True))
    assert session.note(ALIVE) is None and session.lists() == []


def test_read_only_hides_the_editors_and_refuses(session: Session, visit: Visit) -> None:
    session.set_note(ALIVE, "seen", "by many")
    session.add_to_list("kitchen", ALIVE)
    page = pages_of(session, read_only=True).draw(ALIVE, visit)
    for hidden in ('data-form="save"', 'data-form="enlist"', 'data-do="unlist"', 'data-do="star"'):
        assert hidden not in page.keeping + page.head, hidden
    assert "by many" in page.keeping and "kitchen" in page.keeping and "read-only" in page.keeping
    keeping = Keeping(session, Rules(read_only=True))  # type: ignore[arg-type]
    sent = event(neuron=ALIVE, name="x", note="y", changed="", on=True, list="z")
    for act in (keeping.save, keeping.star, keeping.enlist, keeping.unlist):
        with pytest.raises(gr.Error, match="read-only"):
            act(ALIVE, sent)
    note = session.note(ALIVE)
    assert note and note.name == "seen" and session.lists_of(ALIVE) == ("kitchen",)


def test_without_a_store_the_page_says_what_to_run(visit: Visit) -> None:
    page = pages_of(Session(None)).draw(ALIVE, visit)
    assert "python -m index build" in page.sheet and "row 2, column 3" in page.here
    assert (page.keeping, page.numbers) == ("", "") and 'data-do="put"' in page.head
    keeping = Keeping(Session(None), Rules())  # type: ignore[arg-type]
    for refused in (lambda: keeping.star(ALIVE, event(on=True)), keeping.export):
        with pytest.raises(gr.Error, match="no store"):
            refused()
    with pytest.raises(gr.Error, match="no store") as found:
        pages_of(Session(None)).enlarge(ALIVE, event(kind="strong", rank=0))
    assert isinstance(found.value.__cause__, StoreError)


def test_what_a_store_says_is_escaped() -> None:
    patches = np.ones((2, 2), np.float32)
    small = Path("assets/sprites/noto/cake.png").read_bytes()
    exemplar = Exemplar(1, 0, 1.0, EVIL, EVIL, small, patches, (EVIL,))
    near = sheet.Near(2, EVIL, "", EVIL)
    drawn = (
        sheet.exemplars([exemplar], 1.0)
        + sheet.labels([LabelEvidence(EVIL, EVIL, 0.5, 1.0, None, 3), LabelEvidence("b", "c", 0, 0, 0, 0)])
        + sheet.words([Word(EVIL, 1.0), Word("less", -0.5)])
        + sheet.others(EVIL, EVIL, EVIL, [near])
    )
    assert "<script" not in drawn and drawn.count("&lt;script&gt;") > 8 and "−0.5" in drawn


def test_going_back_clears_the_page(session: Session) -> None:
    assert pages_of(session).leave() == Page(None, "", "", "", "", "")


def test_the_time_and_size_of_pages_are_measured(session: Session) -> None:
    timings = measure(session, rounds=3)  # type: ignore[arg-type]
    assert len(timings) == 3 and all(len(timing.milliseconds) == 3 for timing in timings)
    assert all(5_000 < size < 500_000 for size in sizes(session, rounds=3))  # type: ignore[arg-type]
