"""What an answer may go on with, guessed from earlier answers to the same question.

A guess costs little and is verified by the model, so it may be wrong. Knows numbers of tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 8
"""The longest run of tokens by which two answers are aligned."""


def propose(tokens: Sequence[int], earlier: Sequence[Sequence[int]], room: int) -> list[int]:
    """At most `room` tokens that may follow `tokens`.

    earlier: answers to the same question, newest first. The rest of the first that begins with all of
    `tokens`; else what follows the longest run of them that ends with the last one in an earlier answer
    (of equal ones the nearest to the same place, then the newest); else, as if one token had been
    substituted, what stands behind the same place of the answer that agreed longest.
    """
    if room < 1 or not earlier:
        return []
    here = len(tokens)
    for answer in earlier:
        if list(answer[:here]) == list(tokens) and len(answer) > here:
            return list(answer[here : here + room])
    if not tokens:
        return []
    best = (0, 0, 0, 0)  # length of the run, minus the distance, minus the answer's age, where it ends
    for age, answer in enumerate(earlier):
        for end in range(1, len(answer)):
            run = _run(tokens, answer, end)
            if run:
                best = max(best, (run, -abs(end - here), -age, end))
    if best[0]:
        run, _, age, end = best
        return list(earlier[-age][end : end + room])
    closest = max(earlier, key=lambda answer: _agreed(tokens, answer))
    return list(closest[here : here + room])


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
