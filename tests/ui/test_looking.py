"""Looking at a picture's neurons, on a fake session: what each action shows, and what it refuses."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from explorer.records import Cell
from explorer.ui.visit import Entry, Focus, Heading, Listing, Visit
from explorer.ui.workspace.looking import UNCHANGED, Looking
from tests.ui.fake_session import FakeSession, make_view


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture
def looking() -> Looking:
    return Looking(FakeSession())  # type: ignore[arg-type]


@pytest.fixture
def visit() -> Visit:
    return Visit(make_view(Image.new("RGB", (80, 40))), "One", "data:x")


def test_a_patch_gives_its_neurons_and_the_way_back(looking: Looking, visit: Visit) -> None:
    focus, stage, cards, bench = looking.pick_patches(visit, Focus(), event(cells=[[1, 2]]))
    assert (focus.source, focus.patches, focus.neuron) == ("patches", (Cell(1, 2),), 3)
    assert 'data-marked="[[1,2]]"' in stage and "Patch 2, 3" in cards and 'data-do="back"' in cards
    assert 'data-do="pool"' not in cards, "one patch needs no pooling"
    assert bench["marked"] == [[1, 2]]
    focus, stage, cards, bench = looking.whole_picture(visit, focus)
    assert focus == Focus() and bench["marked"] is None
    assert 'data-marked=""' in stage and "Whole picture" in cards


def test_several_patches_are_pooled_together(looking: Looking, visit: Visit) -> None:
    sent = [[1, 2], [0, 0], [1, 2], [3, 3]]
    focus, stage, cards, bench = looking.pick_patches(visit, Focus(), event(cells=sent))
    assert focus.patches == ((0, 0), (1, 2), (3, 3)), "each once, row by row"
    assert "3 patches" in cards and "on average over them" in cards and "Clear" in stage
    assert ">1.00<" in cards, "neuron 3: (1 + 2 + 0) / 3"
    assert bench["marked"] == [[0, 0], [1, 2], [3, 3]]
    focus, _, cards, _ = looking.choose_pool(visit, focus, event(pool="max"))
    assert focus.patches == ((0, 0), (1, 2), (3, 3)) and focus.pool == "max"
    assert "at their strongest one" in cards and ">2.00<" in cards


def test_brushing_keeps_the_chosen_neuron_if_it_fires_there(looking: Looking, visit: Visit) -> None:
    kept = looking.pick_patches(visit, Focus(neuron=5), event(cells=[[1, 2]])).focus
    assert kept.neuron == 5
    other = looking.pick_patches(visit, Focus(neuron=5), event(cells=[[0, 0]])).focus
    assert other.neuron == 3
    silent = looking.pick_patches(visit, Focus(neuron=5), event(cells=[[3, 3]]))
    assert silent.focus.neuron is None and "No neuron fires here" in silent.cards
    cleared = looking.pick_patches(visit, kept, event(cells=[])).focus
    assert cleared == Focus(neuron=5), "the heat stays"


@pytest.mark.parametrize(
    "cells",
    [
        [[4, 0]],
        [[-1, 0]],
        [[0.5, 0]],
        [["1", 0]],
        [[None, None]],
        [[float("nan"), 0]],
        [[1]],
        [[1, 2, 3]],
        ["12"],
        "all",
        {"row": 1},
        [[0, 0]] * 17,
    ],
)
def test_patches_outside_the_grid_are_refused(looking: Looking, visit: Visit, cells: object) -> None:
    with pytest.raises(gr.Error, match="patch"):
        looking.pick_patches(visit, Focus(), event(cells=cells))


def test_pooling_the_whole_picture(looking: Looking, visit: Visit) -> None:
    focus, _, cards, _ = looking.choose_pool(visit, Focus(), event(pool="max"))
    assert focus == Focus(pool="max") and "strongest patch" in cards
    assert looking.whole_picture(visit, focus).focus.pool == "max", "the way of pooling stays"
    assert looking.choose_pool(visit, None, event(pool="mean")).focus == Focus()
    for pool in ("weighted", None, 3):
        with pytest.raises(gr.Error, match="Pooling"):
            looking.choose_pool(visit, Focus(), event(pool=pool))


def test_picking_a_neuron_shows_its_heat_and_picking_it_again_takes_it_off(
    looking: Looking, visit: Visit
) -> None:
    focus, stage, cards, _ = looking.pick_neuron(visit, Focus(), event(neuron=3))
    assert focus.neuron == 3 and "[0,0,2.0,0]" in stage and "card chosen" in cards
    focus, stage, _, _ = looking.pick_neuron(visit, focus, event(neuron=3))
    assert focus.neuron is None and 'data-map=""' in stage
    assert looking.pick_neuron(visit, None, event(neuron=9)).focus == Focus(neuron=9)
    with pytest.raises(gr.Error, match="does not exist"):
        looking.pick_neuron(visit, Focus(), event(neuron=10))


def test_people_s_own_names_beat_labels(visit: Visit) -> None:
    looking = Looking(FakeSession(own={3: "my <fork>"}))  # type: ignore[arg-type]
    shown = looking.pick_neuron(visit, Focus(), event(neuron=3))
    assert "my &lt;fork&gt; #3" in shown.stage and "my &lt;fork&gt;" in shown.cards
    assert "90 % show fork and knife" in shown.cards, "the label is still said"
    assert looking.strips.name(3) == "my <fork>" and looking.strips.label(3) == "fork_and_knife"


def test_find_lists_the_neurons_of_a_concept(looking: Looking, visit: Visit) -> None:
    focus, _, cards, _ = looking.find(visit, Focus(), " fork and  knife ")
    assert focus.neuron == 3 and "“fork and knife”" in cards
    assert 'data-do="put" data-with="{&quot;neuron&quot;: 3}"' in cards and 'data-do="best"' in cards
    nothing = looking.find(visit, Focus(), "<b>").cards
    assert "No neuron is known" in nothing and "such as fork and knife, cake" in nothing
    assert 'data-do="best"' not in nothing and 'data-do="back"' in nothing
    for words in ("", None, "x" * 200, 7):
        with pytest.raises(gr.Error):
            looking.find(visit, Focus(), words)


def test_find_falls_back_on_what_labels_words_and_notes_say(looking: Looking, visit: Visit) -> None:
    focus, _, cards, _ = looking.find(visit, None, "beach")
    assert focus.neuron == 6 and "words or notes say it" in cards
    assert 'data-do="best"' not in cards, "found by text only: no three of them stand for it together"


def test_find_without_a_store_says_what_to_run(visit: Visit) -> None:
    session = FakeSession(has_store=False)
    session.find = lambda concept, k=3: session.familiar(visit.view)  # type: ignore[assignment]
    with pytest.raises(gr.Error, match="python -m index build"):
        Looking(session).find(visit, Focus(), "fork")  # type: ignore[arg-type]


def test_a_list_given_by_another_part_comes_with_its_own_map(looking: Looking, visit: Visit) -> None:
    grid = np.zeros((4, 4), np.float32)
    grid[2, 1] = 0.125
    entries = (Entry(5, -2.0, "lowers it", -12.0), Entry(3, 1.0))
    listing = Listing(
        Heading("Why <fork>?", "By measured effect."),
        entries,
        above="<p>chart</p>",
        map=grid,
        map_name="Pull",
    )
    focus = Focus("given", listing=listing)
    shown = looking.show(visit, focus)
    assert "Why &lt;fork&gt;?" in shown.cards and "<p>chart</p>" in shown.cards
    assert "0.125" in shown.stage and "Pull" in shown.stage
    assert "{&quot;neuron&quot;: 5, &quot;alpha&quot;: -12.0}" in shown.cards and "at -12" in shown.cards
    assert 'class="effect down"><i style="left:0.0%;width:50.0%"' in shown.cards
    assert 'class="effect up"><i style="left:50.0%;width:25.0%"' in shown.cards
    assert "histogram" not in shown.cards, "an effect is no activation"
    assert "lowers it" in shown.cards
    chosen = looking.pick_neuron(visit, focus, event(neuron=3))
    assert "[0,0,2.0,0]" in chosen.stage and chosen.focus.source == "given"


def test_histograms_are_those_of_what_the_list_ranks_by(
    looking: Looking, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = FakeSession.histogram

    def histogram(self: FakeSession, neuron: int, which: str = "score") -> object:
        asked.append(which)
        return real(self, neuron, which)

    monkeypatch.setattr(FakeSession, "histogram", histogram)
    for focus in (
        Focus(),
        Focus(pool="max"),
        Focus("patches", patches=(Cell(1, 2),)),
        Focus("concept", concept="fork and knife"),
    ):
        looking.show(visit, focus)
    assert asked == ["score"] * 2 + ["active"] * 5


def test_a_reply_later_than_that_to_a_newer_click_changes_nothing(
    looking: Looking, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search takes so long that a neuron is picked and shown meanwhile."""
    real, picked = looking.session.find, []

    def find(concept: str, k: int = 3) -> object:
        picked.append(looking.pick_neuron(visit, Focus(), event(neuron=3)))
        return real(concept, k)

    monkeypatch.setattr(looking.session, "find", find)
    assert looking.find(visit, Focus(), "cake") == UNCHANGED
    assert picked[0].focus.neuron == 3 and visit.study.focus == picked[0].focus
    monkeypatch.undo()
    assert looking.find(visit, Focus(), "cake").focus.concept == "cake", "later clicks are shown as ever"


def test_a_reply_that_comes_before_one_to_a_newer_click_is_shown(looking: Looking, visit: Visit) -> None:
    older, newer = visit.study.looks.ask(), visit.study.looks.ask()
    assert looking.show(visit, Focus(neuron=3), older).focus.neuron == 3
    assert looking.show(visit, Focus(neuron=4), newer).focus.neuron == 4
    assert looking.show(visit, Focus(neuron=3), older) == UNCHANGED


def test_nothing_of_a_former_picture_is_shown(looking: Looking, visit: Visit) -> None:
    visit.leave(Visit(visit.view, "Two", "data:y"))
    assert looking.pick_patches(visit, Focus(), event(cells=[[1, 2]])) == UNCHANGED
    assert visit.study.focus is None


def test_handlers_without_a_picture_say_so(looking: Looking) -> None:
    for call in (
        lambda: looking.pick_patches(None, Focus(), event(cells=[[0, 0]])),
        lambda: looking.pick_neuron(None, Focus(), event(neuron=0)),
        lambda: looking.whole_picture(None, None),
        lambda: looking.choose_pool(None, None, event(pool="max")),
        lambda: looking.find(None, None, "fork and knife"),
    ):
        with pytest.raises(gr.Error, match="picture is open"):
            call()


def test_events_without_data_are_refused(looking: Looking, visit: Visit) -> None:
    with pytest.raises(gr.Error):
        looking.pick_neuron(visit, Focus(), gr.EventData(None, None))
