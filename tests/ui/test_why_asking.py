"""Clicks on words: the list, the repairs, what a browser may not send, and how analyses end one another."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import gradio as gr
import pytest

from explorer.cases import rows, settings
from explorer.ui.visit import Focus, Said, Told, Visit
from explorer.ui.why.asking import Asking
from explorer.ui.workspace.looking import UNCHANGED, Looking, Shown
from explorer.ui.workspace.steering import Steering
from tests.analyze.linear_session import LinearSession


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


class Steerable(LinearSession):
    """Takes the options of a steered picture, which a linear one has none of."""

    def answers(self, asked, prompt=None, *, contrast=None, replace=False, **more):  # type: ignore[no-untyped-def]
        return super().answers(asked, prompt, **more)

    def log_probs(self, asked, prompt, answer, *, batch=32, contrast=None, replace=False):  # type: ignore[no-untyped-def]
        return super().log_probs(asked, prompt, answer, batch=batch)

    def next_words(self, asked, prompt, answer, *, contrast=None, replace=False):  # type: ignore[no-untyped-def]
        return super().next_words(asked, prompt, answer)

    def steered(self, view, edits=(), contrast=None, replace=False):  # type: ignore[no-untyped-def]
        return view

    def where(self, view, concept):  # type: ignore[no-untyped-def]
        raise AssertionError("no row asks for it")


@pytest.fixture
def session() -> Steerable:
    return Steerable()


@pytest.fixture
def asking(session: Steerable) -> Asking:
    looking = Looking(session)  # type: ignore[arg-type]
    return Asking(session, looking, Steering(session, looking.strips))  # type: ignore[arg-type]


@pytest.fixture
def visit(session: Steerable) -> Visit:
    return Visit(session.view, "A picture", "data:,")


@pytest.fixture
def said(session: Steerable) -> Said:
    return Said("Describe.", session.answer(session.view))


def mends(cards: str) -> list[list]:
    found = re.findall(r'data-do="mend" data-with="([^"]+)"', cards)
    return [json.loads(unescape(one))["edits"] for one in found]


def test_a_click_gives_neurons_then_repairs(asking: Asking, visit: Visit, said: Said) -> None:
    shown = list(asking.why_said(visit, said, "", event(at=said.text.index("cake"))))
    first, last = shown[0], shown[-1]
    assert first.focus.source == "given" and first.focus.neuron is None
    assert "Why “cake”?" in first.cards and "first guess" in first.cards and not mends(first.cards)
    assert "Support for “cake”" in first.stage, "the picture shows where they act"
    assert "nats" in last.cards and mends(last.cards) and 'data-do="halt"' not in last.cards
    assert "all" in last.cards and last.focus.listing.entries[0].alpha in (0.0, -10.0, -30.0, None)


def test_a_repair_goes_onto_the_bench_with_its_values(
    asking: Asking, visit: Visit, said: Said, session: Steerable
) -> None:
    last = list(asking.why_said(visit, said, "", event(at=said.text.index("cake"))))[-1]
    edits = mends(last.cards)[0]
    bench = asking.mend(visit, "", event(edits=edits))
    on_it = rows.parse(bench, visit.view)
    assert [[row.neuron, row.value, row.region] for row in on_it] == edits
    made = rows.edits(on_it, visit.view.grid, session.where)
    assert "cake" not in session.answer(visit.view, None, made).lower()


def test_a_repair_moves_what_is_on_the_bench_and_keeps_the_rest(asking: Asking, visit: Visit) -> None:
    before = rows.dump([rows.Row(1, "one", 0.5, 4.0, "add"), rows.Row(2, "two", 0.5, 3.0)])
    after = rows.parse(
        asking.mend(visit, before, event(edits=[[1, -10, "all"], [5, 0, "active"]])), visit.view
    )
    told = [(row.neuron, row.value, row.mode, row.region) for row in after]
    assert told == [(1, -10.0, "set", "all"), (2, 3.0, "set", "active"), (5, 0.0, "set", "active")]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (None, "1 to 24 edits"),
        ([], "1 to 24 edits"),
        ([[1, 0, "all"]] * 25, "1 to 24 edits"),
        ([[1, 0]], "a neuron, a value and a region"),
        ([[99, 0, "all"]], "neuron 99 does not exist"),
        ([[1, "x", "all"]], "is not a number"),
        ([[1, 0, "marked"]], "region 'marked' is unknown"),
    ],
)
def test_a_strange_repair_is_refused(asking: Asking, visit: Visit, edits: object, message: str) -> None:
    with pytest.raises(gr.Error, match=f"(?i){message}"):
        asking.mend(visit, "", event(edits=edits))


@pytest.mark.parametrize("at", [None, -1, 1.5, "3", 10_000, True])
def test_a_strange_place_is_refused(asking: Asking, visit: Visit, said: Said, at: object) -> None:
    with pytest.raises(gr.Error, match="The place in the answer"):
        list(asking.why_said(visit, said, "", event(at=at)))


def test_there_must_be_a_complete_answer(asking: Asking, visit: Visit) -> None:
    with pytest.raises(gr.Error, match="not complete yet"):
        list(asking.why_said(visit, None, "", event(at=0)))
    with pytest.raises(gr.Error, match="not complete yet"):
        list(asking.why_told(visit, None, event(at=0)))
    with pytest.raises(gr.Error, match="No picture is open"):
        list(asking.why_said(None, None, "", event(at=0)))


def test_a_steered_word_is_explained_with_its_bench(asking: Asking, visit: Visit, session: Steerable) -> None:
    held = int(visit.view.codes.neurons[0])
    bench = rows.dump([rows.Row(held, "held", 1.0, 0.0)])
    text = session.answer(
        visit.view, None, rows.edits(rows.parse(bench, visit.view), visit.view.grid, session.where)
    )
    told = Told("Describe.", bench, settings.dump(settings.Settings()), text)
    word = session.lvlm.answer_words(text)[-1]
    shown = list(asking.why_told(visit, told, event(at=word.start)))
    assert f"Why “{word.text}”?" in shown[0].cards and "with the bench" in shown[0].cards
    assert all(one.neuron != held for one in shown[-1].focus.listing.entries)


def test_stop_keeps_what_was_found(asking: Asking, visit: Visit, said: Said) -> None:
    growing = asking.why_said(visit, said, "", event(at=said.text.index("cake")))
    shown = [next(growing), next(growing)]
    asking.halt(visit)
    shown += list(growing)
    assert "topped" in shown[-1].cards and 'data-do="halt"' not in shown[-1].cards
    assert not mends(shown[-1].cards), "it was stopped before anything was tried"


def test_a_newer_analysis_ends_the_older_without_a_word(asking: Asking, visit: Visit, said: Said) -> None:
    older = asking.why_said(visit, said, "", event(at=said.text.index("cake")))
    next(older)
    newer = asking.why_said(visit, said, "", event(at=said.text.index("table")))
    shown = next(newer)
    late = list(older)
    assert not any(isinstance(one.cards, str) for one in late), "the older one draws nothing any more"
    assert "Why “table”?" in shown.cards
    newer.close()


def test_cards_that_show_something_else_end_it(asking: Asking, visit: Visit, said: Said) -> None:
    growing = asking.why_said(visit, said, "", event(at=said.text.index("cake")))
    next(growing)
    asking.looking.show(visit, Focus())
    assert not any(isinstance(one.cards, str) for one in growing)


def test_a_neuron_that_was_chosen_meanwhile_stays_chosen(asking: Asking, visit: Visit, said: Said) -> None:
    growing = asking.why_said(visit, said, "", event(at=said.text.index("cake")))
    focus = next(growing).focus
    neuron = focus.listing.entries[0].neuron
    asking.looking.pick_neuron(visit, focus, event(neuron=neuron))
    later = next(growing)
    assert later.focus.neuron == neuron and not isinstance(later.stage, str)
    growing.close()


def test_a_click_while_a_list_is_drawn_is_not_lost(
    asking: Asking, visit: Visit, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is answered meanwhile nor one that is answered afterwards."""
    growing = asking.why_said(visit, said, "", event(at=said.text.index("cake")))
    focus, real = next(growing).focus, asking.looking.show
    first, second = (entry.neuron for entry in focus.listing.entries[:2])
    clicked = visit.study.looks.ask()

    def show(*args: object) -> Shown:
        monkeypatch.undo()
        asking.looking.pick_neuron(visit, focus, event(neuron=first))
        return real(*args)

    monkeypatch.setattr(asking.looking, "show", show)
    later = next(growing)
    assert later.focus.neuron == first and isinstance(later.cards, str)
    assert real(visit, later.focus, clicked) == UNCHANGED, "that was before the click on the first"
    clicked = visit.study.looks.ask()
    next(growing)
    assert real(visit, replace(focus, neuron=second), clicked).focus.neuron == second
    growing.close()


def test_a_list_that_comes_after_a_newer_click_is_not_shown(
    asking: Asking, visit: Visit, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = asking.looking.show

    def show(*args: object) -> Shown:
        monkeypatch.undo()
        asking.looking.whole_picture(visit, Focus())
        return real(*args)

    monkeypatch.setattr(asking.looking, "show", show)
    shown = list(asking.why_said(visit, said, "", event(at=said.text.index("cake"))))
    assert all(one == UNCHANGED for one in shown) and visit.study.focus == Focus()


def test_another_picture_ends_it(asking: Asking, visit: Visit, said: Said) -> None:
    growing = asking.why_said(visit, said, "", event(at=said.text.index("cake")))
    next(growing)
    visit.study.leave()
    assert not any(isinstance(one.cards, str) for one in growing)


def test_a_card_moves_its_neuron_that_is_on_the_bench_already(asking: Asking, visit: Visit) -> None:
    before = rows.dump([rows.Row(5, "five", 0.5, 4.0), rows.Row(2, "two", 0.5, 3.0)])
    put = asking.steering.put(visit, None, before, event(neuron=5, alpha=-10))
    assert [(row.neuron, row.value) for row in rows.parse(put, visit.view)] == [(5, -10.0), (2, 3.0)]
