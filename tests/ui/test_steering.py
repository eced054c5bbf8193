"""The actions on bench and answers, on a fake session: what each shows, and what it refuses."""

from __future__ import annotations

import json

import gradio as gr
import pytest
from PIL import Image

from explorer.cases import rows, settings
from explorer.cases.rows import Row
from explorer.cases.settings import Settings
from explorer.errors import StoreError
from explorer.records import Found
from explorer.ui.exemplars import Strips
from explorer.ui.visit import Focus, Said, Told, Turn, Visit
from explorer.ui.workspace import compare
from explorer.ui.workspace.gauges import GAUGES, Alone, Gauging, bars, panel, percent
from explorer.ui.workspace.presets import SHIPPED, offered
from explorer.ui.workspace.steering import Steering
from tests.ui.fake_session import FakeSession, make_view

SAID = Said("Describe the image.", "a cake and a fork")
PLAIN = settings.dump(Settings())


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def steering(session: FakeSession) -> Steering:
    return Steering(session, Strips(session))  # type: ignore[arg-type]


@pytest.fixture
def visit() -> Visit:
    return Visit(make_view(Image.new("RGB", (80, 40))), "One", "data:x", ("Is there a fork?",), "one")


def moved(value: float | None, **more: object) -> str:
    return rows.dump([Row(3, "fork and knife", 2.0, value, **more)])  # type: ignore[arg-type]


def last(steps: object) -> tuple:
    return list(steps)[-1]  # type: ignore[call-overload]


# Bench


def test_put_adds_a_row_untouched_or_at_a_value(steering: Steering, visit: Visit) -> None:
    (row,) = json.loads(steering.put(visit, Focus(), "[]", event(neuron=3)))
    assert row["name"] == "fork and knife" and row["value"] is None
    (row,) = json.loads(steering.put(visit, Focus(), "[]", event(neuron=3, alpha=-12.5)))
    assert row["value"] == -12.5
    for wrong in ({"neuron": 10}, {"neuron": "3"}, {"neuron": 3, "alpha": "much"}, {}):
        with pytest.raises(gr.Error, match=r"does not exist|not a number"):
            steering.put(visit, Focus(), "[]", event(**wrong))


def test_a_row_from_a_search_begins_where_the_concept_is_seen(steering: Steering, visit: Visit) -> None:
    sought = Focus("concept", concept="fork and knife", neuron=3)
    (best,) = json.loads(steering.put_best(visit, sought, "[]"))
    assert (best["neuron"], best["region"], best["concept"]) == (3, "seen", "fork_and_knife")
    assert json.loads(steering.put(visit, sought, "[]", event(neuron=5)))[0]["region"] == "seen"
    (plain,) = json.loads(steering.put(visit, Focus(), "[]", event(neuron=3)))
    assert (plain["region"], plain["concept"]) == ("active", "fork_and_knife"), "offered, not chosen"
    assert json.loads(steering.put(visit, Focus(), "[]", event(neuron=5)))[0]["concept"] == ""
    for place in (None, Focus()):
        with pytest.raises(gr.Error, match="Search for a concept"):
            steering.put_best(visit, place, "[]")


def test_a_concept_seen_nowhere_says_so_on_the_row(
    steering: Steering, visit: Visit, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "find", lambda concept, k=3: [Found(3, "cake", 1.0, 0.9)])
    (row,) = json.loads(steering.put_best(visit, Focus("concept", concept="cake"), "[]"))
    assert (row["region"], row["concept"], row["absent"]) == ("active", "cake", True)


def test_the_bench_settles_on_another_picture(steering: Steering, visit: Visit) -> None:
    bench = rows.dump([Row(3, "x", 9.0, -30.0, region="seen", concept="cake")])
    (row,) = json.loads(steering.settle(visit, bench))
    assert (row["value"], row["rest"], row["absent"]) == (-30, 2.0, True)
    assert steering.settle(visit, json.dumps([row])) == gr.skip(), "what fits is left to the browser"


def test_an_unknown_concept_on_the_bench_is_refused(steering: Steering, visit: Visit) -> None:
    bench = rows.dump([Row(3, "x", 2.0, -15.0, region="seen", concept="unicorn")])
    with pytest.raises(gr.Error, match="cannot tell where 'unicorn'"):
        list(steering.steer(visit, Said("x", "y"), bench, PLAIN))


# Answers


def test_a_question_is_chosen_and_checked(steering: Steering, visit: Visit) -> None:
    assert steering.choose_question(visit, event(text=" Is  there a fork? ")) == "Is there a fork?"
    for wrong in (7, "x" * 600, ["a"]):
        with pytest.raises(gr.Error, match="question"):
            steering.choose_question(visit, event(text=wrong))
    assert steering.questions(visit, "Is there a fork?").count('aria-pressed="true"') == 1


def test_asking_streams_and_ends_with_words_that_can_be_asked_about(
    steering: Steering, visit: Visit, session: FakeSession
) -> None:
    how = settings.dump(Settings(cns=True, max_new_tokens=9))
    steps = list(steering.ask(visit, "  What is  it? ", how))
    assert "caret" in steps[0][0] and steps[0][2] is None and "<button" not in steps[1][0]
    assert steps[-1][2] == Said("What is it?", "a cake and a fork")
    assert steps[-1][0].count('data-do="why"') == 5 and "caret" not in steps[-1][0]
    assert session.asked == [("What is it?", (), False)]
    contrast, _, longest = session.options[0]
    assert contrast is None and longest == 9, "of the settings, only the length is the untouched model's"


def test_steering_marks_what_changed_and_says_what_was_told(
    steering: Steering, visit: Visit, session: FakeSession
) -> None:
    before, after, told = last(steering.steer(visit, SAID, moved(-30), PLAIN))
    assert "<del><button" in before and after.count('data-do="why"') == 2
    assert told == Told(SAID.prompt, moved(-30), PLAIN, "a cake")
    prompt, edits, replace = session.asked[-1]
    assert prompt == SAID.prompt and edits[0].value == -30 and not replace


def test_settings_reach_the_session(steering: Steering, visit: Visit, session: FakeSession) -> None:
    how = settings.dump(Settings(cns=True, step=300, method="vcd", temperature=0.5, seed=3, max_new_tokens=7))
    list(steering.steer(visit, SAID, "[]", how))
    contrast, decoding, longest = session.options[-1]
    assert (contrast.step, decoding.method, decoding.seed, longest) == (300, "vcd", 3, 7)  # type: ignore[attr-defined]


@pytest.mark.parametrize("bench", ["[]", moved(None), moved(-30, muted=True)])
def test_a_bench_that_changes_nothing_asks_nothing(
    steering: Steering, visit: Visit, session: FakeSession, bench: str
) -> None:
    ((before, after, told),) = steering.steer(visit, SAID, bench, PLAIN)
    assert session.asked == [] and "<del>" not in before and "slider" in after and told is None
    list(steering.steer(visit, SAID, bench, settings.dump(Settings(replace=True))))
    assert session.asked[-1][2] is True, "replacing is a change of its own"


@pytest.mark.parametrize(("bench", "how"), [("{", PLAIN), ("[]", "{"), ("[]", '{"cns": 3}'), (7, "[]")])
def test_damaged_bench_and_settings_are_refused(
    steering: Steering, visit: Visit, bench: str, how: str
) -> None:
    with pytest.raises(gr.Error):
        list(steering.steer(visit, SAID, bench, how))


def test_nothing_is_shown_of_an_answer_that_was_stopped(steering: Steering, visit: Visit) -> None:
    steps = steering.ask(visit, "x", PLAIN)
    next(steps)
    next(steps)
    steering.stop(visit)
    assert all(not isinstance(step[2], Said) for step in steps)
    steps = steering.steer(visit, SAID, moved(-30), PLAIN)
    next(steps)
    newer = steering.steer(visit, SAID, moved(-20), PLAIN)
    next(newer)
    assert all(not isinstance(step[2], Told) for step in steps), "overtaken by the newer one"
    assert last(newer)[2].bench == moved(-20)


def test_two_visitors_do_not_stop_one_another(steering: Steering, visit: Visit) -> None:
    other = Visit(visit.view, "Two", "data:x")
    one, two = steering.steer(visit, SAID, moved(-30), PLAIN), steering.steer(other, SAID, moved(5), PLAIN)
    next(one)
    next(two)
    steering.hurry(other, moved(6), PLAIN)
    assert last(one)[2].bench == moved(-30) and last(two)[2].bench == moved(5)


def test_handlers_without_a_picture_say_so(steering: Steering, session: FakeSession) -> None:
    gauging = Gauging(session)  # type: ignore[arg-type]
    for call in (
        lambda: steering.put(None, None, "[]", event(neuron=0)),
        lambda: steering.settle(None, "[]"),
        lambda: steering.choose_question(None, event(text="x")),
        lambda: list(steering.ask(None, "x", PLAIN)),
        lambda: list(steering.steer(None, None, "[]", PLAIN)),
        lambda: list(gauging.toggle(None, SAID, PLAIN, None)),
        lambda: compare.pin(None, None, None, ()),
        lambda: compare.restore(None, (), event(pin=0)),
    ):
        with pytest.raises(gr.Error, match="picture is open"):
            call()


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


# Gauges and the SAE alone


def test_gauges_of_a_steered_answer(session: FakeSession, visit: Visit) -> None:
    gauging = Gauging(session)  # type: ignore[arg-type]
    shown = gauging.show(visit, Told("x", moved(-30), PLAIN, "a cake"))
    for words in ("25 %", "150 %", "10 %", "100 %", "width:25.0%", "width:100.0%", "bar over"):
        assert words in shown
    assert gauging.show(visit, None) == gauging.show(None, None) == bars(None)
    assert bars(None).count("–") == len(GAUGES), "the same room without an answer"


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0 %"), (0.0004, "0 %"), (0.034, "3.4 %"), (-0.5, "−50 %"), (0.0996, "10 %"), (12.3, "1,230 %")],
)
def test_percent(value: float, words: str) -> None:
    assert percent(value) == words


def test_the_sae_alone_is_asked_once_per_question(session: FakeSession, visit: Visit) -> None:
    gauging = Gauging(session)  # type: ignore[arg-type]
    steps = list(gauging.toggle(visit, SAID, PLAIN, None))
    assert 'aria-busy="true"' in steps[0][0]
    shown, alone = steps[-1]
    assert session.asked == [(SAID.prompt, (), True)] and alone.text == "a cake" and alone.open
    assert (
        'aria-expanded="true"' in shown and "1 change" in shown and "<button" not in shown.split("</div>")[1]
    )
    closed, alone = last(gauging.toggle(visit, SAID, PLAIN, alone))
    assert 'aria-expanded="false"' in closed and "<p" not in closed
    assert last(gauging.toggle(visit, SAID, PLAIN, alone))[1].text == "a cake" and len(session.asked) == 1
    alone = Alone(True, alone.view, alone.said, alone.length, alone.text)
    other = Said("Is there a fork?", "yes")
    assert last(gauging.renew(visit, other, PLAIN, alone))[1].said == other and len(session.asked) == 2
    elsewhere = Visit(make_view(), "Two", "data:x")
    list(gauging.renew(elsewhere, SAID, PLAIN, alone))
    assert len(session.asked) == 3, "another picture, though the words are the same"


def test_the_sae_alone_waits_for_the_untouched_answer(session: FakeSession, visit: Visit) -> None:
    gauging = Gauging(session)  # type: ignore[arg-type]
    shown, alone = last(gauging.toggle(visit, None, PLAIN, None))
    assert "Once the model has answered" in shown and alone.said is None and session.asked == []
    for nothing in ((None, SAID, None), (visit, SAID, None), (visit, SAID, Alone())):
        list(gauging.renew(nothing[0], nothing[1], PLAIN, nothing[2]))
    assert session.asked == [], "a closed panel asks nothing"


def test_equal_words_say_so() -> None:
    same = Alone(True, None, SAID, 64, SAID.text, 0.1)
    assert "the same words" in panel(same) and "<ins>" not in panel(same)


# Pins


def pinned(visit: Visit, *values: float) -> compare.Pins:
    pins: compare.Pins = ()
    for value in values:
        pins, _ = compare.pin(visit, SAID, Told(SAID.prompt, moved(value), PLAIN, f"a {value} cake"), pins)
    return pins


def test_pins_say_what_made_them(visit: Visit) -> None:
    how = settings.dump(Settings(cns=True))
    pins, shown = compare.pin(visit, SAID, Told(SAID.prompt, moved(-30), how, "a <b> cake"), ())
    assert pins[0].done[0] == "fork and knife #3 set to −30 where it fires" and "CNS" in pins[0].done[1]
    assert "One · Describe the image." in shown and "&lt;" in shown and "<b>" not in shown
    assert compare.pin(visit, SAID, Told(SAID.prompt, moved(-30), how, "a <b> cake"), pins)[0] == pins
    with pytest.raises(gr.Error, match="no steered answer"):
        compare.pin(visit, SAID, None, pins)


def test_pins_come_off_and_go_back_on_the_bench(visit: Visit) -> None:
    pins = pinned(visit, -30, 5)
    assert compare.restore(visit, pins, event(pin=1)) == (moved(5), PLAIN)
    left, shown = compare.unpin(pins, event(pin=0))
    assert [json.loads(one.bench)[0]["value"] for one in left] == [5] and shown.count("<li class") == 1
    assert compare.unpin(left, event(pin=0)) == ((), "") == compare.unpin_all()
    for wrong in (2, -1, "0", None, 0.5):
        with pytest.raises(gr.Error, match="pinned answer"):
            compare.restore(visit, pins, event(pin=wrong))
    with pytest.raises(gr.Error, match="answer is pinned"):
        compare.unpin((), event(pin=0))


def test_there_is_an_end_to_pins(visit: Visit) -> None:
    pins = pinned(visit, *range(compare.MOST_PINS))
    with pytest.raises(gr.Error, match="12 answers are pinned"):
        compare.pin(visit, SAID, Told(SAID.prompt, moved(99), PLAIN, "x"), pins)


# Presets


@pytest.mark.parametrize("stored", [True, False])
def test_shipped_presets_are_settings_that_work_on_the_session(stored: bool) -> None:
    shipped = offered(stored)
    assert len({preset["name"] for preset in shipped}) == len(SHIPPED)
    for preset in shipped:
        asked = settings.parse(preset["settings"])
        assert preset["bench"] in (None, "[]")
        assert stored or not (asked.cns and asked.suppress_always_on), "nobody knows who is always on"
    paper = settings.parse(shipped[1]["settings"])
    assert (paper.cns, paper.step, paper.strength) == (True, 500, 1.0)


def test_a_session_without_a_store_steers(visit: Visit) -> None:
    bare = FakeSession(has_store=False)
    steering = Steering(bare, Strips(bare))  # type: ignore[arg-type]
    (row,) = json.loads(steering.put(visit, Focus(), "[]", event(neuron=3)))
    assert (row["name"], row["concept"]) == ("neuron 3", "")
    assert last(steering.steer(visit, SAID, moved(-30), PLAIN))[2].text == "a cake"


def test_a_contrast_that_needs_a_store_says_so(
    steering: Steering, visit: Visit, session: FakeSession
) -> None:
    def refuse(*args: object, **how: object) -> None:
        raise StoreError("this session has none; build one")

    session.stream = refuse  # type: ignore[assignment,method-assign]
    with pytest.raises(gr.Error, match="build one"):
        list(steering.steer(visit, SAID, "[]", settings.dump(Settings(cns=True))))
