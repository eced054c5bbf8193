"""Moves of sliders, each timed on both sides in turn: the hook of today, and a session's opened view.

A random move starts where a visitor does: the picture is opened and its untouched caption is there,
nothing else. A drag is one neuron through a series of values on one view, which remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from explorer.errors import ExplorerError
from explorer.evals.hooked import Hooked, Ready, Timed, slide
from explorer.evals.known import known_concepts
from explorer.records import Activation, Edit
from explorer.session import Session, View
from explorer.vlm.memory import Memory
from explorer.world import mentions

SILENT = -15.0
"""What the neurons of a concept are set to where it is seen, to silence it."""

TOP = 20


class Move(NamedTuple):
    """One move on both sides.

    region: where its edits act, "everywhere", "active" (where each neuron fires) or "seen" (where a concept
    is seen); words: of the caption before that it changes; before: that caption's tokens.
    """

    region: str
    words: int
    before: tuple[int, ...]
    baseline: Timed
    ours: Timed


def random_moves(
    session: Session,
    hooked: Hooked,
    image: Image.Image,
    count: int,
    span: tuple[float, float],
    rng: np.random.Generator,
    nudges: int = 0,
) -> list[Move]:
    """Random edits of one picture, each on a fresh memory that holds the untouched caption only.

    nudges: how many more only scale one of the strongest neurons by a thousandth, where it fires.
    Raises ExplorerError for a picture in which no neuron fires.
    """
    opened, ready, moves = session.look(image), hooked.ready(image), []
    strongest = [found.neuron for found in strongest_of(opened, max(nudges, 1))]
    for number in range(count + nudges):
        view = replace(opened, memory=Memory())
        before = slide(session, view, (), hooked.max_new_tokens)
        if number < count:
            edits = random_edits(session, view, hooked, before.tokens, span, rng)
        else:
            neuron = strongest[(number - count) % len(strongest)]
            edits = [Edit(neuron, 1.001, "scale", "active")]
        moves.append(timed(session, view, hooked, ready, edits, before.tokens, bool(number % 2)))
    return moves


def drag(
    session: Session, hooked: Hooked, image: Image.Image, count: int, span: tuple[float, float]
) -> list[Move]:
    """The picture's strongest neuron, everywhere, through `count` values from 0 down to the least, and up.

    Raises ExplorerError for a picture in which no neuron fires.
    """
    view, ready = session.look(image), hooked.ready(image)
    neuron = strongest_of(view, 1, "mean")[0].neuron
    down = np.linspace(0.0, span[0], count // 2 + 1)[1:]
    up = np.linspace(0.0, span[1], count - count // 2 + 1)[1:]
    before = slide(session, view, (), hooked.max_new_tokens).tokens
    moves = []
    for number, value in enumerate([*down, *up]):
        edits = [Edit(neuron, float(value))]
        moves.append(timed(session, view, hooked, ready, edits, before, bool(number % 2)))
        before = moves[-1].ours.tokens
    return moves


def timed(
    session: Session,
    view: View,
    hooked: Hooked,
    ready: Ready,
    edits: Sequence[Edit],
    before: tuple[int, ...],
    ours_first: bool,
) -> Move:
    """One move on both sides, one after the other."""
    ours = slide(session, view, edits, hooked.max_new_tokens) if ours_first else None
    baseline = hooked.answer(ready, edits)
    ours = ours or slide(session, view, edits, hooked.max_new_tokens)
    words = changed_words(hooked.text(before), hooked.text(ours.tokens))
    return Move(region_of(edits[0]), words, before, baseline, ours)


def region_of(edit: Edit) -> str:
    """Where an edit acts, in a word."""
    if edit.patches is None:
        return "everywhere"
    return edit.patches if isinstance(edit.patches, str) else "seen"


def random_edits(
    session: Session,
    view: View,
    hooked: Hooked,
    caption: Sequence[int],
    span: tuple[float, float],
    rng: np.random.Generator,
) -> list[Edit]:
    """What a person might do: one of the strongest neurons moved anywhere, or, where a store knows
    neurons for what the caption names, three of those set low where it is seen."""
    known = known_concepts(session)
    named = [concept for concept in mentions(hooked.text(caption)) if concept in known]
    if named and rng.random() < 0.5:
        concept = named[int(rng.integers(len(named)))]
        seen = session.where(view, concept)
        place = seen if seen.any() else "active"
        return [Edit(found.neuron, SILENT, "set", place) for found in session.find(concept, 3)]
    strongest = strongest_of(view, TOP)
    neuron = strongest[int(rng.integers(len(strongest)))].neuron
    place = (None, "active")[int(rng.integers(2))]
    return [Edit(neuron, float(rng.uniform(*span)), "set", place)]


def strongest_of(view: View, count: int, pool: Literal["mean", "max"] = "max") -> list[Activation]:
    """The strongest neurons of a picture, `count` or fewer. Raises ExplorerError where none fires."""
    found = view.top(count, pool)
    if not found:
        raise ExplorerError(
            "no neuron of the SAE fires on the picture, so there is none to move; is it an SAE of this model "
            "and block?"
        )
    return found


def changed_words(before: str, after: str) -> int:
    """How many words differ: of each stretch that was replaced, the longer side counts."""
    one, other = before.split(), after.split()
    parts = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return sum(max(e1 - b1, e2 - b2) for kind, b1, e1, b2, e2 in parts if kind != "equal")


def summary(moves: Sequence[Move]) -> dict:
    """Medians of some moves. Times in milliseconds; ratios are ours over the baseline's.

    agree: moves where both sides gave the same tokens; ratio: of the medians; ratio_p90: nine of ten moves
    have a smaller one; first_change: until the first changed token was there, of the moves that have one;
    passes: through the language model.
    """
    firsts = [
        (move.ours.first_change(move.before), move.baseline.first_change(move.before)) for move in moves
    ]
    firsts = [pair for pair in firsts if None not in pair]
    ours, baseline = _median([m.ours.seconds for m in moves]), _median([m.baseline.seconds for m in moves])
    each = [move.ours.seconds / move.baseline.seconds for move in moves]
    report = {
        "moves": len(moves),
        "agree": sum(move.ours.tokens == move.baseline.tokens for move in moves),
        "ours_ms": 1e3 * ours,
        "baseline_ms": 1e3 * baseline,
        "ratio": ours / baseline,
        "ratio_p90": float(np.quantile(each, 0.9)),
        "ours_passes": _median([move.ours.passes for move in moves]),
        "baseline_passes": _median([move.baseline.passes for move in moves]),
    }
    if firsts:
        ours, baseline = (_median(column) for column in zip(*firsts, strict=True))
        report |= {
            "first_change_ours_ms": 1e3 * ours,
            "first_change_baseline_ms": 1e3 * baseline,
            "first_change_ratio": ours / baseline,
        }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in report.items()}


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
