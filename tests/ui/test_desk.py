"""The actions of the workspace on a fake session: what each shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from explorer.records import Found
from explorer.ui import bench
from explorer.ui.desk import Desk
from explorer.ui.examples import Example
from explorer.ui.visit import Focus, Said, Turn, Visit
from tests.ui.fake_session import FakeSession

EXAMPLES = {
    key: Example(key, key.title(), "A story.", ("Is there a fork?",), ("fork",), Image.new("RGB", (80, 40)))
    for key in ("one", "two")
}


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def desk(session: FakeSession) -> Desk:
    return Desk(session, EXAMPLES)  # type: ignore[arg-type]


@pytest.fixture
def visit(desk: Desk) -> Visit:
    return desk.start().visit


def moved(value: float | None) -> str:
    return bench.dump([bench.Row(3, "fork and knife", 2.0, value)])


def test_start_opens_the_first_example(desk: Desk) -> None:
    opened = desk.start()
    assert opened.visit.example == "one" and opened.prompt == "Describe the image."
    assert 'data-map=""' in opened.stage and 'data-pick="3"' in opened.cards
    assert 'data-ask="Is there a fork?"' in opened.questions and opened.notices == ""
    assert opened.said is None and "caret" in opened.baseline and "value" not in opened.bench


def test_the_bench_stays_when_the_picture_changes(desk: Desk, visit: Visit) -> None:
    opened = desk.open_example(visit, event(key="two"))
    assert opened.visit.example == "two"
    assert json.loads(desk.settle(opened.visit, moved(-30)))[0]["value"] == -30


@pytest.mark.parametrize("key", ["three", None, 5, ["one"]])
def test_unknown_examples_are_refused(desk: Desk, visit: Visit, key: object) -> None:
    with pytest.raises(gr.Error, match="no example"):
        desk.open_example(visit, event(key=key))


def test_upload_reads_a_picture_and_refuses_what_is_none(desk: Desk, visit: Visit, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    assert desk.open_upload(visit, str(tmp_path / "a.png")).visit.view.image.size == (30, 20)
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(gr.Error, match="not a picture"):
        desk.open_upload(visit, str(tmp_path / "b.png"))
    with pytest.raises(gr.Error, match="picture arrived"):
        desk.open_upload(visit, None)


def test_a_patch_gives_its_neurons_and_the_way_back(desk: Desk, visit: Visit) -> None:
    focus, stage, cards, marked = desk.pick_patch(visit, event(row=1, col=2))
    assert (focus.source, focus.patch, focus.neuron) == ("patch", (1, 2), 3)
    assert "--row:1;--col:2" in stage and "Patch 2, 3" in cards and "data-back" in cards
    assert marked["marked"] == [1, 2]
    focus, stage, cards, marked = desk.whole_picture(visit, event(pool="max"))
    assert focus == Focus(pool="max") and marked["marked"] is None and "strongest patch" in cards


@pytest.mark.parametrize("place", [(4, 0), (-1, 0), (0.5, 0), ("1", 0), (None, None), (float("nan"), 0)])
def test_patches_outside_the_grid_are_refused(desk: Desk, visit: Visit, place: tuple) -> None:
    with pytest.raises(gr.Error, match="patch"):
        desk.pick_patch(visit, event(row=place[0], col=place[1]))


def test_picking_a_neuron_shows_its_heat_and_picking_it_again_takes_it_off(desk: Desk, visit: Visit) -> None:
    focus, stage, cards = desk.pick_neuron(visit, Focus(), event(neuron=3))
    assert focus.neuron == 3 and "[0.0,0.0,2.0,0.0]" in stage and "card chosen" in cards
    focus, stage, _ = desk.pick_neuron(visit, focus, event(neuron=3))
    assert focus.neuron is None and 'data-map=""' in stage


def test_find_lists_the_neurons_of_a_concept(desk: Desk, visit: Visit) -> None:
    focus, _, cards = desk.find(visit, Focus(), " fork and  knife ")
    assert focus.neuron == 3 and "“fork and knife”" in cards and 'data-put="3"' in cards
    assert "No neuron is known" in desk.find(visit, Focus(), "<b>")[2]
    for words in ("", None, "x" * 200, 7):
        with pytest.raises(gr.Error):
            desk.find(visit, Focus(), words)


def test_find_falls_back_on_what_labels_words_and_notes_say(desk: Desk, visit: Visit) -> None:
    focus, _, cards = desk.find(visit, Focus(), "beach")
    assert focus.neuron == 6 and 'data-put="6"' in cards and "words or notes say it" in cards
    assert "data-best" not in cards, "found by text only: no three of them stand for it together"


def test_find_without_a_store_says_what_to_run(visit: Visit) -> None:
    session = FakeSession(has_store=False)
    session.find = lambda concept, k=3: session.familiar(visit.view)  # type: ignore[assignment]
    with pytest.raises(gr.Error, match="python -m index build"):
        Desk(session, EXAMPLES).find(visit, Focus(), "fork")  # type: ignore[arg-type]


def test_put_adds_a_row(desk: Desk, visit: Visit) -> None:
    rows = json.loads(desk.put(visit, Focus(), "[]", event(neuron=3)))
    assert rows[0]["name"] == "fork and knife" and rows[0]["value"] is None
    with pytest.raises(gr.Error, match="does not exist"):
        desk.put(visit, Focus(), "[]", event(neuron=10))


def test_a_row_from_a_search_begins_where_the_concept_is_seen(desk: Desk, visit: Visit) -> None:
    focus, _, cards = desk.find(visit, Focus(), "fork and knife")
    assert "data-best" in cards and "data-best" not in desk.find(visit, Focus(), "unicorn")[2]
    (best,) = json.loads(desk.put_best(visit, focus, "[]"))
    assert (best["neuron"], best["region"], best["concept"]) == (3, "seen", "fork_and_knife")
    assert json.loads(desk.put(visit, focus, "[]", event(neuron=5)))[0]["region"] == "seen"
    (plain,) = json.loads(desk.put(visit, Focus(), "[]", event(neuron=3)))
    assert (plain["region"], plain["concept"]) == ("active", "fork_and_knife"), "offered, not chosen"
    assert json.loads(desk.put(visit, Focus(), "[]", event(neuron=5)))[0]["concept"] == ""
    for place in (None, Focus()):
        with pytest.raises(gr.Error, match="Search for a concept"):
            desk.put_best(visit, place, "[]")


def test_a_concept_seen_nowhere_leaves_the_usual_region(
    desk: Desk, visit: Visit, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "find", lambda concept, k=3: [Found(3, "cake", 1.0, 0.9)])
    (row,) = json.loads(desk.put_best(visit, Focus("concept", concept="cake"), "[]"))
    assert (row["region"], row["concept"]) == ("active", "cake")


def test_an_unknown_concept_on_the_bench_is_refused(desk: Desk, visit: Visit) -> None:
    rows = bench.dump([bench.Row(3, "x", 2.0, -15.0, region="seen", concept="unicorn")])
    with pytest.raises(gr.Error, match="cannot tell where 'unicorn'"):
        list(desk.steer(visit, Said("x", "y"), rows, False))


def test_asking_streams_and_ends_with_what_was_said(desk: Desk, visit: Visit, session: FakeSession) -> None:
    steps = list(desk.ask(visit, "  What is  it? "))
    assert "caret" in steps[0][0] and steps[0][2] is None
    assert steps[-1][2] == Said("What is it?", "a cake and a fork")
    assert "a cake and a fork" in steps[-1][0] and "caret" not in steps[-1][0]
    assert session.asked == [("What is it?", (), False)]


def test_steering_marks_what_changed(desk: Desk, visit: Visit, session: FakeSession) -> None:
    said = Said("Describe the image.", "a cake and a fork")
    before, after = list(desk.steer(visit, said, moved(-30), False))[-1]
    assert "<del>and a fork</del>" in before and "a cake" in after
    prompt, edits, replace = session.asked[-1]
    assert prompt == said.prompt and edits[0].value == -30 and not replace


def test_an_untouched_bench_asks_nothing(desk: Desk, visit: Visit, session: FakeSession) -> None:
    said = Said("Describe the image.", "a cake and a fork")
    ((before, after),) = desk.steer(visit, said, moved(None), False)
    assert session.asked == [] and "<del>" not in before and "slider" in after
    list(desk.steer(visit, said, moved(None), True))
    assert session.asked[-1][2] is True, "replacing is a change of its own"


def test_nothing_is_shown_of_an_answer_that_was_stopped(desk: Desk, visit: Visit) -> None:
    steps = desk.ask(visit, "x")
    next(steps)
    next(steps)
    desk.stop(visit)
    assert all(step[2] is not None and not isinstance(step[2], Said) for step in steps)


def test_handlers_without_a_picture_say_so(desk: Desk) -> None:
    for call in (
        lambda: desk.pick_patch(None, event(row=0, col=0)),
        lambda: desk.pick_neuron(None, Focus(), event(neuron=0)),
        lambda: desk.put(None, None, "[]", event(neuron=0)),
        lambda: list(desk.ask(None, "x")),
        lambda: list(desk.steer(None, None, "[]", False)),
    ):
        with pytest.raises(gr.Error, match="picture is open"):
            call()


def test_events_without_data_are_refused(desk: Desk, visit: Visit) -> None:
    with pytest.raises(gr.Error):
        desk.put(visit, Focus(), "[]", gr.EventData(None, None))


def test_a_newer_answer_stops_the_older_and_haste_only_a_slow_one_to_an_older_wish() -> None:
    turn = Turn()
    first = turn.begin("-10")
    second = turn.begin("-20")
    assert first.is_set() and not second.is_set()
    turn.hurry("-30", patience=60)
    assert not second.is_set(), "it has not taken long yet"
    turn.hurry("-20", patience=-1)
    assert not second.is_set(), "it is what is wished for, so nothing newer will come"
    turn.hurry("-30", patience=-1)
    assert second.is_set()
