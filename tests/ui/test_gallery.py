"""Browsing all neurons: what filters, pages, searches and charts show, on a small made-up store."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from explorer.records import FAVOURITES, Activation
from explorer.store import Store
from explorer.store.synthetic import synthetic_store
from explorer.ui.exemplars import Strips
from explorer.ui.gallery import layout
from explorer.ui.gallery.browsing import Browsing, Shown
from explorer.ui.gallery.latency import Shelved, measured
from explorer.ui.gallery.query import PER_PAGE
from explorer.ui.gallery.tiles import size
from explorer.ui.visit import Focus, Visit
from tests.ui.fake_session import make_view

NEURONS = 160


class Session(Shelved):
    """The made-up store; pictures are like the neurons 7, 3 and 5, marked patches like 9."""

    def by_picture(self, view: object, k: int = 20) -> list[Activation]:
        return [Activation(neuron, 0.9) for neuron in (7, 3, 5)][:k]

    def by_patches(self, view: object, patches: np.ndarray, k: int = 20) -> list[Activation]:
        assert patches.sum() == 2 and patches[1, 2] and patches[0, 3]
        return [Activation(9, 0.8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_store(tmp_path_factory.mktemp("made-up") / "store", NEURONS, images=64)


@pytest.fixture
def session(written_store: Store) -> Session:
    return Session(written_store)


@pytest.fixture
def browsing(session: Session) -> Browsing:
    return Browsing(session, Strips(session))  # type: ignore[arg-type]


@pytest.fixture
def visit() -> Visit:
    return Visit(make_view(), "A picture", "data:,")


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


def query(shown: Shown) -> dict[str, Any]:
    return json.loads(shown.filters["value"])


def listed(shown: Shown) -> list[int]:
    return [int(number) for number in re.findall(r'data-neuron="(\d+)"', shown.tiles["value"])]


def counted(shown: Shown) -> int:
    words = re.search(r'aria-live="polite">([\d,]+)', shown.head)
    assert words
    return int(words[1].replace(",", ""))


def asked_for(html: str, words: str) -> dict[str, Any]:
    """What the button that says these words sends."""
    found = re.search(rf'<button[^>]*data-with="([^"]*)"[^>]*>{re.escape(words)}', html)
    assert found, f"no button says {words}"
    return json.loads(unescape(found[1]))


def test_the_first_page_shows_24_neurons_and_what_can_be_asked(browsing: Browsing, session: Session) -> None:
    shown = browsing.ready("")
    assert listed(shown) == list(range(PER_PAGE)) and counted(shown) == NEURONS
    assert "page 1 of 7" in shown.head and shown.tiles["visible"] and not shown.charts["visible"]
    assert shown.tiles["value"].count('class="thumb"') <= 5 * PER_PAGE, "no exemplar beyond the page"
    assert [facet["key"] for facet in shown.filters["facets"]] == [
        "fires",
        "peak",
        "precision",
        "monosemanticity",
    ]
    for facet in shown.filters["facets"]:
        assert len(facet["edges"]) == len(facet["counts"]) + 1 and facet["edges"] == sorted(facet["edges"])
    assert sum(shown.filters["facets"][0]["counts"]) == NEURONS
    assert sum(one["count"] for one in shown.filters["classes"]) == NEURONS
    assert shown.filters["labels"] == [list(pair) for pair in session.label_counts()]
    assert shown.filters["lists"] == []


def test_pages_are_turned_and_a_page_behind_the_last_becomes_the_last(browsing: Browsing) -> None:
    shown = browsing.alter("", event(page=1))
    assert listed(shown) == list(range(24, 48)) and query(shown) == {"page": 1}
    last = browsing.alter("", event(page=99))
    assert listed(last) == list(range(144, 160)) and query(last) == {"page": 6}
    assert re.search(r"<button[^>]*disabled[^>]*>Next", last.tiles["value"])
    assert asked_for(last.tiles["value"], "Previous") == {"page": 5}


def test_filters_narrow_and_their_chips_take_them_off(browsing: Browsing, session: Session) -> None:
    label, carriers = session.label_counts()[0]
    shown = browsing.filtered(json.dumps({"label": label, "fires": [0.001, None]}))
    fires = session.overview().fires
    there = [n for n in range(NEURONS) if session.overview().labels[n] == label and fires[n] >= 0.001]
    assert listed(shown) == there[:PER_PAGE] and counted(shown) == len(there)
    assert "value" not in shown.filters, "what is being typed in stays as it is"
    words = f"label {label.replace('_', ' ')}"
    without = browsing.alter(json.dumps({"label": label}), event(**asked_for(shown.head, words)))
    assert counted(without) == NEURONS and "label" not in query(without)
    assert carriers >= len(there)
    cleared = browsing.alter(
        json.dumps({"label": label, "fires": [0.001, None], "sort": "peak"}),
        event(**asked_for(shown.head, "Clear all filters")),
    )
    assert query(cleared) == {"sort": "peak"}


def test_a_changed_filter_starts_at_the_first_page_and_a_changed_view_does_not(browsing: Browsing) -> None:
    held = json.dumps({"page": 3})
    assert "page" not in query(browsing.alter(held, event(sort="fires", descending=True)))
    assert query(browsing.alter(held, event(view="map")))["page"] == 3


@pytest.mark.parametrize("name", ["fires", "peak", "precision", "monosemanticity", "entropy"])
def test_orders(browsing: Browsing, session: Session, name: str) -> None:
    shown = browsing.alter("", event(sort=name, descending=True))
    values = getattr(session.overview(), name)[listed(shown)]
    assert len(values) == PER_PAGE and (np.diff(values) <= 0).all()


def test_nothing_left_says_what_to_loosen(browsing: Browsing, session: Session) -> None:
    label, carriers = session.label_counts()[0]
    shown = browsing.filtered(json.dumps({"label": label, "peak": [9e5, None]}))
    assert counted(shown) == 0 and listed(shown) == []
    loosened = asked_for(shown.tiles["value"], "Without peak")
    freed = browsing.alter(json.dumps({"label": label, "peak": [9e5, None]}), event(**loosened))
    assert counted(freed) == carriers
    assert f"Without peak ≥ 9e+05: {carriers} neurons" in shown.tiles["value"]
    assert "Without label" not in shown.tiles["value"], "that would not help"


def test_text_finds_labels_and_peoples_own_names(browsing: Browsing, session: Session) -> None:
    session.set_note(11, "<b>brim & hat</b>")
    shown = browsing.filtered('{"text": "brim hat"}')
    assert listed(shown) == [11]
    assert (
        "&lt;b&gt;brim &amp; hat&lt;/b&gt;" in shown.tiles["value"] and "<b>brim" not in shown.tiles["value"]
    )


def test_the_star_keeps_favourites(browsing: Browsing, session: Session) -> None:
    shown = browsing.star("", event(neuron=4, on=True))
    assert session.lists_of(4) == (FAVOURITES,) and shown.filters["lists"] == [[FAVOURITES, 1]]
    assert shown.tiles["value"].count('aria-pressed="true"') == 1
    only = browsing.filtered(json.dumps({"listed": FAVOURITES}))
    assert listed(only) == [4]
    gone = browsing.star(json.dumps({"listed": FAVOURITES}), event(neuron=4, on=False))
    assert session.lists() == [] and listed(gone) == []


def test_on_a_read_only_page_there_is_no_star(session: Session) -> None:
    browsing = Browsing(session, Strips(session), read_only=True)  # type: ignore[arg-type]
    assert 'class="star"' not in browsing.ready("").tiles["value"]
    with pytest.raises(gr.Error, match="read-only"):
        browsing.star("", event(neuron=4, on=True))
    assert session.lists() == []


def test_search_by_picture_and_by_marked_patches(browsing: Browsing, visit: Visit) -> None:
    shown = browsing.alike('{"label": "x", "view": "cards"}', visit, Focus(), event(what="picture"))
    assert listed(shown) == [7, 3, 5] and query(shown)["sort"] == "given" and "label" not in query(shown)
    assert "like your picture" in shown.head
    again = browsing.filtered(shown.filters["value"])
    assert listed(again) == [7, 3, 5], "the list travels with the query"
    off = browsing.alter(shown.filters["value"], event(**asked_for(shown.head, "like your picture")))
    assert query(off) == {} and counted(off) == NEURONS
    marked = Focus("patches", patches=((1, 2), (0, 3)))  # type: ignore[arg-type]
    assert listed(browsing.alike("", visit, marked, event(what="patches"))) == [9]
    with pytest.raises(gr.Error, match="No patch is marked"):
        browsing.alike("", visit, Focus(), event(what="patches"))
    with pytest.raises(gr.Error, match="No picture is open"):
        browsing.alike("", None, None, event(what="picture"))


def test_similar_neurons_follow_the_one_they_are_like(browsing: Browsing, session: Session) -> None:
    shown = browsing.similar("", event(neuron=12))
    nearest = [one.neuron for one in session.similar(12, 3)]
    assert listed(shown)[:4] == [12, *nearest] and "similar to neuron 12" in shown.head


def test_a_random_neuron_is_alive(browsing: Browsing, session: Session) -> None:
    drawn = {browsing.random()["go"]["neuron"] for _ in range(5)}
    assert all(session.summary(neuron).fires > 0 for neuron in drawn)
    assert browsing.random()["go"]["once"] != browsing.random()["go"]["once"]


def points(figure: Any) -> dict[str, set[int]]:
    return {trace.name: set(map(int, trace.customdata)) for trace in figure.data}


def test_the_overview_shows_every_neuron_that_fired(browsing: Browsing, session: Session) -> None:
    session.set_note(3, "a <i>name</i>")
    shown = browsing.alter("", event(view="overview", colour="class"))
    assert shown.charts["visible"] and not shown.tiles["visible"] and shown.tiles["value"] == ""
    fired = set(np.flatnonzero(session.overview().fires > 0).tolist())
    assert set().union(*points(shown.chart).values()) == fired
    texts = {
        int(n): text
        for trace in shown.chart.data
        for n, text in zip(trace.customdata, trace.text, strict=True)
    }
    assert texts[3] == "a &lt;i&gt;name&lt;/i&gt;", "own names, and none of their markup"
    dead = NEURONS - len(fired)
    assert f"{dead} never fired" in shown.caption if dead else "never fired" not in shown.caption


@pytest.mark.parametrize("view", ["overview", "map"])
@pytest.mark.parametrize("colour", ["class", "label", "entropy"])
def test_what_the_filters_leave_out_is_grey(
    browsing: Browsing, session: Session, view: str, colour: str
) -> None:
    held = json.dumps({"fires": [0.05, None]})
    shown = browsing.alter(held, event(view=view, colour=colour))
    drawn = points(shown.chart)
    rest = drawn.pop("other neurons")
    bright = set(np.flatnonzero(session.overview().fires >= 0.05).tolist())
    placed = set(np.flatnonzero(np.isfinite(session.overview().x)).tolist())
    assert set().union(*drawn.values()) == (bright & placed if view == "map" else bright)
    assert not rest & bright and "grey" in shown.caption


def test_one_chart_for_all_is_kept_until_somebody_names_a_neuron(
    browsing: Browsing, session: Session
) -> None:
    first = browsing.alter("", event(view="map"))
    assert browsing.alter("", event(view="map")).chart is first.chart
    session.set_note(3, "renamed")
    assert browsing.alter("", event(view="map")).chart is not first.chart


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not readable"),
        ("[]", "names and values"),
        ('{"colour_of": 1}', "no filter"),
        ('{"fires": [0.5, 0.1]}', "lets nothing pass"),
        ('{"fires": [0.5]}', "lower and an upper"),
        ('{"fires": ["a", null]}', "not a number"),
        ('{"fires": 3}', "not a list"),
        ('{"classes": ["vivid"]}', "unknown"),
        ('{"page": -1}', "does not exist"),
        ('{"page": 1.5}', "does not exist"),
        ('{"given": [160]}', "does not exist"),
        ('{"given": [true]}', "does not exist"),
        (json.dumps({"given": [0] * 241}), "at most 240"),
        ('{"sort": "size"}', "unknown"),
        ('{"view": "table"}', "unknown"),
        ('{"descending": 1}', "true or false"),
        ('{"text": 5}', "not a text"),
        (json.dumps({"label": "x" * 81}), "at most 80"),
    ],
)
def test_what_a_raw_call_sends_is_refused(browsing: Browsing, value: str, words: str) -> None:
    with pytest.raises(gr.Error, match=f"(?i){words}"):
        browsing.filtered(value)


@pytest.mark.parametrize("neuron", [NEURONS, -1, "4", None, True])
def test_unknown_neurons_are_refused(browsing: Browsing, session: Session, neuron: object) -> None:
    with pytest.raises(gr.Error, match="does not exist"):
        browsing.star("", event(neuron=neuron, on=True))
    with pytest.raises(gr.Error, match="does not exist"):
        browsing.similar("", event(neuron=neuron))
    assert session.lists() == []


def test_markup_in_a_query_is_escaped(browsing: Browsing) -> None:
    shown = browsing.filtered(json.dumps({"text": "<script>", "label": "<img>", "listed": "<b>"}))
    assert "<script>" not in shown.head + shown.tiles["value"] and "<img>" not in shown.head
    assert "&lt;script&gt;" in shown.head and "<b>" not in shown.head + shown.tiles["value"]


@pytest.mark.parametrize(
    ("trouble", "command"),
    [
        (
            "this session has no store of exemplars; build one with: python -m index build --out a",
            "python -m index build --out a",
        ),
        (
            "the store <x> belongs to another SAE; index anew: python -m index build --sae b",
            "python -m index build --sae b",
        ),
    ],
)
def test_without_a_store_the_tab_says_what_to_run(trouble: str, command: str) -> None:
    words = layout.no_store(trouble)
    assert f"<code>{command}</code>" in words and "<x>" not in words


@pytest.mark.parametrize(("value", "shown"), [(12.34, "12.3"), (0.0423, "0.042"), (0.0, "0")])
def test_small_activations_keep_their_digits(value: float, shown: str) -> None:
    assert size(value) == shown


def test_latency_is_measured_through_the_same_handler(folder: Path) -> None:
    found = measured(2, NEURONS, folder)
    assert len(found) == 5
    for timing, sizes in found:
        assert len(timing.milliseconds) == len(sizes) == 2 and min(timing.milliseconds) > 0
        assert min(sizes) > 1000
