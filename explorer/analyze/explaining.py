"""Why this word? One answer that grows: a guess after one backward pass, then measured effects, then repairs.

Puts together attribution and trials (`repair`) so that each result can be shown as soon as it is there, and
tells for every neuron of the list at which of the tried values it takes the word out by itself.

Knows a session; nothing of drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from explorer.analyze.attribution import Attribution, attribute
from explorer.analyze.meaning import Asked
from explorer.analyze.places import log_probs
from explorer.analyze.pulls import AGAINST, ALONE, VALUES, trial_values, unit
from explorer.analyze.repair import Repair, trials_of, trying
from explorer.records import Cancel, Edit
from explorer.session import Session, View

LISTED = 12
SHARE = 8
"""Answers at a time: few enough that nobody else waits long for the model."""

Edits = tuple[Edit, ...]

_AT_ONCE = 4
_FROM_EACH = 5
_TOGETHER = 3


@dataclass(frozen=True, eq=False)
class Suspect:
    """A neuron behind the word. All in nats.

    estimate: first-order drop of the score at 0; measured, others: the drop of the score and of the answer's
    other words at `Explained.value`, None while unknown; removal: the trial nearest to 0 in which this neuron
    alone, where it fires, takes the word out; tried: whether all trials for that are made.
    """

    neuron: int
    estimate: float
    always_on: bool = False
    measured: float | None = None
    others: float | None = None
    removal: Repair | None = None
    tried: bool = False


@dataclass(frozen=True, eq=False)
class Explained:
    """What is known so far.

    log_prob: of the word; score: what is explained, the word's log-probability or the log-odds against
    `asked.instead` where the two part; value: what neurons are set to when measured; suspects: best first;
    map: [rows, cols] float32, what all neurons contribute by patch; repairs: those that take the word out,
    each set of neurons once, best first; done, total: trials; complete: nothing more will come.
    """

    asked: Asked
    log_prob: float
    score: float
    value: float
    suspects: tuple[Suspect, ...]
    map: np.ndarray = field(repr=False)
    repairs: tuple[Repair, ...] = ()
    done: int = 0
    total: int = 0
    complete: bool = False


def explain(
    session: Session,
    view: View,
    prompt: str,
    answer: str,
    asked: Asked,
    *,
    leave_out: Sequence[int] = (),
    max_new_tokens: int = 64,
    cancel: Cancel | None = None,
) -> Iterator[Explained]:
    """Explain a word, or a run of words, of an answer.

    answer: read along as given; leave_out: neurons that are not listed. First the guess, with one or two
    backward passes; then the effects of the best guesses; then trials until all are made or it is cancelled.
    Raises EditError where nothing fires.
    """
    common = {"occurrence": asked.occurrence, "leave_out": leave_out, "batch": SHARE, "cancel": cancel}
    against, alone, values = AGAINST * unit(view), ALONE * unit(view), trial_values(view)
    value = alone if asked.instead is None else against
    text = asked.text
    first = attribute(session, view, text, prompt, answer, 1, value, instead=asked.instead, **common)
    said = float(log_probs(session, [(view, ())], prompt, first.place)[0])
    left_out = set(leave_out)
    known = frozenset(() if session.store is None else session.always_on())
    guessed = [g for g in first.guesses if g.neuron not in left_out][:LISTED]
    suspects = tuple(Suspect(g.neuron, g.estimate, g.neuron in known) for g in guessed)
    now = Explained(asked, said, first.score, value, suspects, first.map)
    yield now
    more = {**common, "by": "selective"}
    found = [
        attribute(
            session, view, text, prompt, answer, value=value, instead=asked.instead, joint=_TOGETHER, **more
        )
    ]
    now = replace(now, suspects=_measured(found[0]))
    yield now
    trials = _Trials(session, view, prompt, max_new_tokens, cancel)
    nearest = [alone_at(one.neuron, value) for one in now.suspects[:_AT_ONCE] for value in values[:2]]
    yield from trials.run(now, nearest, len(now.suspects) * len(values))
    if asked.instead is not None and not _stopped(cancel):
        found.append(attribute(session, view, text, prompt, answer, value=alone, **more))
    own = [alone_at(one.neuron, value) for one in now.suspects for value in values]
    yield from trials.run(now, [*trials_of(found, values, _FROM_EACH), *own])


@dataclass(eq=False)
class _Trials:
    """Edits tried for a word; each once, however often it is asked for."""

    session: Session
    view: View
    prompt: str
    max_new_tokens: int
    cancel: Cancel | None
    tried: list[Repair] = field(default_factory=list)

    def run(self, now: Explained, wanted: Sequence[Edits], total: int | None = None) -> Iterator[Explained]:
        """What is known after each batch. total: trials expected in all, None when these are the last."""
        done = {_key(one.edits) for one in self.tried}
        fresh = {_key(edits): edits for edits in wanted if _key(edits) not in done}
        last = len(self.tried) + len(fresh)
        asked, rest = now.asked, (self.max_new_tokens, SHARE, self.cancel)
        if not _stopped(self.cancel) and total is None and not fresh:
            yield self._known(now, last, True)
        parts = trying(
            self.session, self.view, asked.text, self.prompt, asked.wished, list(fresh.values()), *rest
        )
        for part in parts:
            self.tried += part
            yield self._known(now, total or last, total is None and len(self.tried) == last)

    def _known(self, now: Explained, total: int, complete: bool) -> Explained:
        suspects = tuple(_with_removal(one, self.tried) for one in now.suspects)
        repairs = best_of(self.tried)
        return replace(
            now, suspects=suspects, repairs=repairs, done=len(self.tried), total=total, complete=complete
        )


def alone_at(neuron: int, value: float) -> Edits:
    """A neuron set to a value where it fires."""
    return (Edit(neuron, value, "set", "active"),)


def best_of(tried: Sequence[Repair]) -> tuple[Repair, ...]:
    """The trials that take the word out, best first, each set of neurons once: by what else they change, how
    many neurons they need, how far these are turned, and in how many places."""

    def cost(one: Repair) -> tuple:
        return (*one.cost, max(abs(edit.value) for edit in one.edits), one.edits[0].patches is None)

    best: dict[frozenset[int], Repair] = {}
    for one in sorted((one for one in tried if one.gone), key=cost):
        best.setdefault(frozenset(edit.neuron for edit in one.edits), one)
    return tuple(best.values())


def _measured(found: Attribution) -> tuple[Suspect, ...]:
    """The measured neurons, best first."""
    return tuple(
        Suspect(one.neuron, one.estimate, one.always_on, one.measured, one.others)
        for one in found.ranked[:LISTED]
    )


def _with_removal(one: Suspect, tried: Sequence[Repair]) -> Suspect:
    """The suspect with what its own trials gave."""
    mine = {
        trial.edits[0].value: trial
        for trial in tried
        if len(trial.edits) == 1
        and trial.edits[0].neuron == one.neuron
        and trial.edits[0].patches is not None
    }
    gone = [trial for value, trial in sorted(mine.items(), key=lambda pair: abs(pair[0])) if trial.gone]
    return replace(one, removal=gone[0] if gone else None, tried=len(mine) == len(VALUES))


def _key(edits: Sequence[Edit]) -> tuple:
    """What tells trials apart."""
    return tuple((edit.neuron, edit.value, edit.patches is None) for edit in edits)


def _stopped(cancel: Cancel | None) -> bool:
    return cancel is not None and cancel.is_set()
