"""What an answer may go on with, guessed from earlier answers to the same question and from itself.

A guess costs little and is verified by the model, so it may be wrong. Knows numbers of tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 8
"""The longest run of tokens by which two answers are aligned; one so long that recurs is taken for a loop."""

RECURRING = 3
"""The shortest run of tokens for which an answer is thought to repeat itself."""


class _Place(NamedTuple):
    """A place in an answer from which to go on; the largest is the best.

    run: how many of the last tokens stand before it; near: minus its distance from the present place;
    young: minus the age of the answer; end: the place.
    """

    run: int
    near: int
    young: int
    end: int


def propose(tokens: Sequence[int], earlier: Sequence[Sequence[int]], room: int) -> list[int]:
    """At most `room` tokens that may follow `tokens`.

    earlier: answers to the same question, newest first. The rest of the first that begins with all of
    `tokens`; else what follows the longest run of them that ends with the last one, in an earlier answer
    or (three tokens at least) in the present one; of equal runs the nearest to the same place, then that of
    the newest answer; else, as if one token had been substituted, what stands behind the same place of the
    answer that agreed longest.
    """
    if room < 1:
        return []
    here = len(tokens)
    for answer in earlier:
        if len(answer) > here and list(answer[:here]) == list(tokens):
            return list(answer[here : here + room])
    if not tokens:
        return []
    places = [
        _Place(run, -abs(end - here), -age, end)
        for age, answer in enumerate((*earlier, tokens))
        for end in range(1, len(answer))
        if answer[end - 1] == tokens[-1]
        and (run := _run(tokens, answer, end)) >= (1 if age < len(earlier) else RECURRING)
    ]
    if places:
        return _following((*earlier, tokens), max(places), room, own=len(earlier))
    closest = max(earlier, key=lambda answer: _agreed(tokens, answer), default=())
    return list(closest[here : here + room])


def _following(answers: Sequence[Sequence[int]], place: _Place, room: int, own: int) -> list[int]:
    """What follows a place; an answer that goes round in circles is thought to do so for ever."""
    rest = list(answers[-place.young][place.end :])
    if -place.young == own and place.run == LONGEST:
        rest *= -(-room // len(rest))
    return rest[:room]


def _run(tokens: Sequence[int], answer: Sequence[int], end: int) -> int:
    """How many of the last tokens stand before place `end` of an answer, up to LONGEST."""
    run = 0
    while run < min(LONGEST, len(tokens), end) and tokens[-1 - run] == answer[end - 1 - run]:
        run += 1
    return run


def _agreed(tokens: Sequence[int], answer: Sequence[int]) -> int:
    """How many tokens two answers begin with alike."""
    pairs = enumerate(zip(tokens, answer, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(tokens), len(answer)))
