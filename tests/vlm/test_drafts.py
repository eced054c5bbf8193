"""What is proposed after the beginning of an answer."""

from __future__ import annotations

import random

import pytest

from explorer.vlm.drafts import LONGEST, propose


def said(text: str) -> list[int]:
    """Words as numbers, the same everywhere."""
    return [sum(ord(letter) << 8 * place for place, letter in enumerate(word)) for word in text.split()]


OLD = "a table with a cake and a fork and knife ."


@pytest.mark.parametrize(
    ("tokens", "earlier", "proposed"),
    [
        ("", [OLD], OLD),
        ("a table", [OLD], "with a cake and a fork and knife ."),
        ("a table", ["a dog .", OLD], "with a cake and a fork and knife ."),
        ("a table", ["a table of wood .", OLD], "of wood ."),
        ("a table with a ball", [OLD], "and a fork and knife ."),  # a word substituted
        ("a table with a red", [OLD], "and a fork and knife ."),  # a word put in: a wrong guess, and then
        ("a table with a red cake", [OLD], "and a fork and knife ."),
        ("a table with a fork", [OLD], "and knife ."),  # some words left out
        ("a table with a cup and a", [OLD], "fork and knife ."),
        ("a chair and", [OLD], "a fork and knife ."),  # "and" stands at places 5 and 8: the nearer one
        ("a chair with", ["a chair .", "the dog with it", OLD], "it"),  # of equal ones the newest
        ("a table with a cake and a fork and knife .", [OLD], ""),
        ("cup", ["dog"], ""),
        ("", [], ""),
        ("red and red and", [], ""),  # nothing to go by
        ("on and on and on and", [], "on and"),  # its own words, three of them
        ("x y z p x y z", [""], "p x y z"),
    ],
)
def test_what_follows(tokens: str, earlier: list[str], proposed: str) -> None:
    assert propose(said(tokens), [said(answer) for answer in earlier], 50) == said(proposed)


def test_a_loop_goes_on_to_the_end_of_the_room() -> None:
    assert propose([1, 2, 3] * 6, [], 20) == ([1, 2, 3] * 7)[:20]
    assert len([1, 2, 3] * 3) < LONGEST + 3, "no run of the longest length yet"
    assert propose([1, 2, 3] * 3, [], 20) == [1, 2, 3]


@pytest.mark.parametrize("room", [-1, 0, 1, 3])
def test_never_more_than_there_is_room_for(room: int) -> None:
    for tokens in ("", "a table", "a table with a ball", "a table with a fork"):
        assert len(propose(said(tokens), [said(OLD)], room)) == max(0, min(room, 3))


def passes(answer: list[int], earlier: list[list[int]]) -> int:
    """How many passes a model that wants to say `answer` takes."""
    tokens, count = [], 0
    while len(tokens) < len(answer):
        draft, count = propose(tokens, earlier, len(answer) - len(tokens) - 1), count + 1
        for place in range(len(draft) + 1):
            tokens.append(answer[len(tokens)])
            if place < len(draft) and draft[place] != tokens[-1]:
                break
    return count


def test_few_passes_for_small_changes_and_never_more_than_without() -> None:
    rng = random.Random(4)
    for _ in range(300):
        old = [rng.randrange(40) for _ in range(rng.randrange(1, 30))]
        assert passes(old, [old]) == 1
        place, new = rng.randrange(len(old)), list(old)
        new[place] = 99
        assert passes(new, [old]) <= 2, "one token substituted"
        assert passes(new, [old[:place], old]) <= 3
        assert passes(old[:place] + old[place + 1 :] or [1], [old]) <= 8
        other = [rng.randrange(5) for _ in range(rng.randrange(1, 30))]
        assert passes(other, [old, new]) <= len(other)
