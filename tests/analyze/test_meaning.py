"""What a click on a word means: runs of words, links, and what a word is held against."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from explorer.analyze.meaning import asked_at
from explorer.errors import EditError
from explorer.vlm import AnswerWord

CAKE = "A dining table with a cake and a fork and knife."
ROOM = "A living room with a dog, a chair and two potted plants."


def session() -> SimpleNamespace:
    """Words are runs of letters, a token each; a token is its word."""

    def words(text: str) -> list[AnswerWord]:
        hits = enumerate(re.finditer("[a-zA-Z]+", text))
        return [AnswerWord(hit.group(), hit.start(), hit.end(), i, i + 1) for i, hit in hits]

    def tokens(text: str) -> list[str]:
        return re.findall(r"[a-zA-Z]+|[.,]", text)

    return SimpleNamespace(lvlm=SimpleNamespace(answer_words=words, answer_tokens=tokens))


@pytest.mark.parametrize(
    ("answer", "word", "text", "instead"),
    [
        (CAKE, "fork", "fork and knife", "A dining table with a cake."),
        (CAKE, "knife", "fork and knife", "A dining table with a cake."),
        (CAKE, "and", "fork and knife", "A dining table with a cake."),
        (CAKE, "cake", "cake", "A dining table with a fork and knife."),
        (CAKE, "with", "cake", "A dining table with a fork and knife."),
        (CAKE, "table", "dining table", None),
        (CAKE, "A", "dining table", None),
        (ROOM, "two", "two", None),
        (ROOM, "dog", "dog", "A living room with a chair and two potted plants."),
        ("Yes.", "Yes", "Yes", "No."),
        ("no", "no", "no", "yes"),
        ("Black.", "Black", "Black", None),
        ("A red and blue ball and a cat.", "cat", "cat", "A red and blue ball."),
    ],
)
def test_a_click_means_a_thing(answer: str, word: str, text: str, instead: str | None) -> None:
    asked = asked_at(session(), answer, answer.index(word))  # type: ignore[arg-type]
    assert (asked.text, asked.instead) == (text, instead)
    assert answer[asked.start : asked.end] == text
    assert asked.whole is (text == answer.strip("."))


def test_known_concepts_are_taken_whole() -> None:
    at = ROOM.index("potted")
    alone = asked_at(session(), ROOM, at)  # type: ignore[arg-type]
    known = asked_at(session(), ROOM, at, ["potted_plant", "dog"])  # type: ignore[arg-type]
    assert alone.text == "potted" and alone.instead is None
    assert known.text == "potted plants" and known.instead == "A living room with a dog and a chair."


def test_a_word_in_the_middle_is_judged_by_the_answer_without_it() -> None:
    asked = asked_at(session(), ROOM, ROOM.index("two"))  # type: ignore[arg-type]
    assert asked.wished == "A living room with a dog, a chair and potted plants."


def test_the_second_mention_is_told_from_the_first() -> None:
    answer = "A cat, a dog and a cat."
    asked = asked_at(session(), answer, answer.rindex("cat"))  # type: ignore[arg-type]
    assert asked.occurrence == 1 and asked.start == answer.rindex("cat")


@pytest.mark.parametrize(("answer", "at"), [("A cat.", 5), ("A cat.", 1), ("", 0)])
def test_no_word_is_refused(answer: str, at: int) -> None:
    with pytest.raises(EditError, match=f"no word at character {at}"):
        asked_at(session(), answer, at)  # type: ignore[arg-type]
