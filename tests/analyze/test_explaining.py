"""An explanation that grows, on a session whose words are linear in the picture; and analyses in context."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from explorer.analyze.attribution import attribute
from explorer.analyze.context import InContext
from explorer.analyze.explaining import Explained, best_of, explain
from explorer.analyze.meaning import asked_at
from explorer.analyze.pulls import trial_values
from explorer.analyze.repair import Repair
from explorer.records import Edit
from tests.analyze.linear_session import LinearSession


@pytest.fixture
def session() -> LinearSession:
    return LinearSession(always=(3,))


def explained(session: LinearSession, word: str, **how: object) -> list[Explained]:
    answer = session.answer(session.view)
    asked = asked_at(session, answer, answer.index(word))  # type: ignore[arg-type]
    return list(explain(session, session.view, "Describe.", answer, asked, **how))  # type: ignore[arg-type]


def test_it_begins_with_the_guess_and_ends_with_every_trial(session: LinearSession) -> None:
    states = explained(session, "cake")
    first, measured, last = states[0], states[1], states[-1]
    assert all(one.measured is None for one in first.suspects) and not first.repairs
    estimates = [one.estimate for one in first.suspects]
    assert estimates == sorted(estimates, reverse=True)
    assert all(one.measured is not None for one in measured.suspects)
    assert last.complete and last.done == last.total and not any(one.complete for one in states[:-1])
    assert all(one.tried for one in last.suspects)
    assert [one.done for one in states] == sorted(one.done for one in states)


def test_the_measured_effects_are_those_of_attribution(session: LinearSession) -> None:
    last = explained(session, "cake")[-1]
    answer = session.answer(session.view)
    known = attribute(
        session,
        session.view,
        "cake",
        answer=answer,
        value=last.value,
        instead=last.asked.instead,
        by="selective",
    )
    effects = {one.neuron: one.measured for one in known.ranked}
    assert [one.measured for one in last.suspects] == pytest.approx(
        [effects[o.neuron] for o in last.suspects]
    )
    assert {one.neuron for one in last.suspects if one.always_on} <= {3}


def test_every_repair_takes_the_word_out_and_removals_are_nearest_to_0(session: LinearSession) -> None:
    last = explained(session, "cake")[-1]
    assert last.repairs, "an object of a linear session can be turned off"
    for one in last.repairs:
        assert "cake" not in session.answer(session.view, None, one.edits).lower()
    sets = [frozenset(edit.neuron for edit in one.edits) for one in last.repairs]
    assert len(sets) == len(set(sets))
    for one in last.suspects:
        gone = [
            value
            for value in trial_values(session.view)
            if "cake" not in session.answer(session.view, None, [Edit(one.neuron, value, "set", "active")])
        ]
        nearest = min(gone, key=abs, default=None)
        assert (one.removal and one.removal.edits[0].value) == nearest


def test_left_out_neurons_are_not_listed(session: LinearSession) -> None:
    listed = [one.neuron for one in explained(session, "cake")[0].suspects]
    fewer = explained(session, "cake", leave_out=listed[:2])
    assert all(one.neuron not in listed[:2] for state in fewer for one in state.suspects)


def test_cancelled_it_stops_and_is_not_complete(session: LinearSession) -> None:
    cancel, seen = threading.Event(), []
    answer = session.answer(session.view)
    asked = asked_at(session, answer, answer.index("cake"))  # type: ignore[arg-type]
    for state in explain(session, session.view, "Describe.", answer, asked, cancel=cancel):  # type: ignore[arg-type]
        seen.append(state)
        if state.done:
            cancel.set()
    assert seen[-1].done < seen[-1].total and not seen[-1].complete


def test_the_best_repair_changes_least(session: LinearSession) -> None:
    def trial(neuron: int, value: float, lost: tuple[str, ...] = (), gone: bool = True) -> Repair:
        return Repair((Edit(neuron, value, "set", "active"),), "", gone, lost, ())

    tried = [trial(1, -30), trial(2, 0, ("dog",)), trial(1, -10), trial(4, 0, gone=False)]
    assert [(one.edits[0].neuron, one.edits[0].value) for one in best_of(tried)] == [(1, -10), (2, 0)]


class Steerable(LinearSession):
    """Takes what `InContext` passes on."""

    def answers(self, asked, prompt=None, *, contrast=None, replace=False, **more):  # type: ignore[no-untyped-def]
        return super().answers(asked, prompt, **more)

    def log_probs(self, asked, prompt, answer, *, batch=32, contrast=None, replace=False):  # type: ignore[no-untyped-def]
        return super().log_probs(asked, prompt, answer, batch=batch)


def test_in_context_edits_come_after_those_of_the_context() -> None:
    session = Steerable()
    view, first = session.view, Edit(int(session.view.codes.neurons[0]), -5.0, "set", "active")
    inside = InContext(session, (first,))  # type: ignore[arg-type]
    more = Edit(int(view.codes.neurons[1]), 2.0, "add")
    assert inside.answer(view) == session.answer(view, None, [first])
    assert inside.answers([(view, [more])]) == session.answers([(view, [first, more])])
    both = inside.log_probs([(view, [more])], "Describe.", "A table.")
    assert torch.equal(both, session.log_probs([(view, [first, more])], "Describe.", "A table."))
    assert np.isfinite(both.numpy()).all()
