"""What a click on a word of an answer asks about: the word or the run of words, and what it is held against.

Several words may be one thing: "fork and knife", "dining table". Known concepts are taken whole; so are
"a fork and knife", where the second word has no article of its own, and an opening "A dining table with". A
thing in a list is held against the answer without it, "Yes." against "No.", anything else against nothing.
Guesses at grammar, for English.

Knows answers and words; nothing of neurons.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from explorer.analyze.places import LINKS, place_in, runs_of
from explorer.analyze.targets import target_in, without
from explorer.errors import EditError
from explorer.session import Session
from explorer.vlm import AnswerWord

ARTICLES = frozenset({"a", "an", "the", "some"})
_LONGEST_OPENING = 3
_OTHER = {"yes": "no", "no": "yes"}


@dataclass(frozen=True)
class Asked:
    """What is asked about.

    text: the word or run of words, as the answer has it; occurrence: which of its mentions, from 0; start,
    end: its characters; instead: the answer that it is held against, None for its own log-probability;
    wished: the answer with it cut out, for judging others by; whole: the answer is nothing else.
    """

    text: str
    occurrence: int
    start: int
    end: int
    instead: str | None
    wished: str
    whole: bool


def asked_at(session: Session, answer: str, at: int, concepts: Iterable[str] = ()) -> Asked:
    """What a click on the character `at` of an answer means.

    concepts: known things, of which those of several words count as one. A link ("a", "and") stands for the
    word that it leads to. Raises EditError where there is no word.
    """
    words = session.lvlm.answer_words(answer)
    place = next((i for i, word in enumerate(words) if word.start <= at < word.end), None)
    if place is None:
        said = ", ".join(repr(word.text) for word in words[:12]) or "no words at all"
        raise EditError(f"there is no word at character {at} of {answer!r}; it has {said}")
    first, last = _run(session, answer, words, place, concepts)
    start, end = words[first].start, words[last].end
    text = answer[start:end]
    mentions = [run.start for run in runs_of(session.lvlm, answer, text)]
    occurrence = mentions.index(start)
    if (first, last) == (0, len(words) - 1):
        other = _OTHER.get(text.lower())
        instead = None if other is None else answer[:start] + _alike(other, text) + answer[end:]
        return Asked(text, occurrence, start, end, instead, instead or "", True)
    wished = _cut(answer, words, first, last)
    instead = None
    if _in_list(answer, words, first, last):
        known = place_in(session.lvlm, answer, text, occurrence)
        instead = _parting(session, answer, text, occurrence, without(known))
    return Asked(text, occurrence, start, end, instead, instead or wished, False)


def _run(
    session: Session, answer: str, words: Sequence[AnswerWord], place: int, concepts: Iterable[str]
) -> tuple[int, int]:
    """The first and last word of what a click on a word means."""
    clicked = words[place]
    for concept in sorted(concepts, key=len, reverse=True):
        text = concept.replace("_", " ")
        if " " not in text:
            continue
        for form in (text, f"{text}s"):
            for run in runs_of(session.lvlm, answer, form):
                if run.start <= clicked.start and clicked.end <= run.end:
                    inside = [i for i, word in enumerate(words) if run.start <= word.start < run.end]
                    return inside[0], inside[-1]
    opening = _opening(words)
    if opening and place <= opening:
        return 1, opening
    if clicked.text.lower() in LINKS:
        pair = _pair(answer, words, place)
        if pair is not None:
            return pair
        later = (i for i in range(place, len(words)) if words[i].text.lower() not in LINKS)
        place = next(later, place)
    for middle in (place - 1, place + 1):
        pair = _pair(answer, words, middle)
        if pair is not None:
            return pair
    return place, place


def _opening(words: Sequence[AnswerWord]) -> int:
    """The last word of an opening such as "A dining table with"; 0 where the answer opens otherwise."""
    for i, word in enumerate(words[: _LONGEST_OPENING + 2]):
        if i > 1 and word.text.lower() == "with" and words[0].text.lower() in ARTICLES:
            return i - 1
        if i and word.text.lower() in LINKS:
            return 0
    return 0


def _pair(answer: str, words: Sequence[AnswerWord], middle: int) -> tuple[int, int] | None:
    """The two words around an "and" that are one thing: "a fork and knife", where the phrase ends."""
    if not 2 <= middle < len(words) - 1 or words[middle].text.lower() != "and":
        return None
    before, after = words[middle - 1], words[middle + 1]
    one = not {before.text.lower(), after.text.lower()} & LINKS
    led = words[middle - 2].text.lower() in ARTICLES
    ends = not _joined(answer, words, middle + 2) or words[middle + 2].text.lower() in LINKS
    apart = not (_joined(answer, words, middle) and _joined(answer, words, middle + 1))
    return (middle - 1, middle + 1) if one and led and ends and not apart else None


def _joined(answer: str, words: Sequence[AnswerWord], i: int) -> bool:
    """Whether word i follows the one before with nothing but space between."""
    return 0 < i < len(words) and not answer[words[i - 1].end : words[i].start].strip()


def _in_list(answer: str, words: Sequence[AnswerWord], first: int, last: int) -> bool:
    """Whether the run is the thing at the end of its phrase, and something is said before the phrase."""
    if _joined(answer, words, last + 1) and words[last + 1].text.lower() not in LINKS:
        return False
    begin = first
    if _joined(answer, words, begin) and words[begin - 1].text.lower() not in LINKS:
        begin -= 1
    return any(word.text.lower() not in LINKS for word in words[:begin])


def _cut(answer: str, words: Sequence[AnswerWord], first: int, last: int) -> str:
    """The answer with nothing but the run left out."""
    return " ".join((answer[: words[first].start] + answer[words[last].end :]).split())


def _parting(session: Session, answer: str, text: str, occurrence: int, other: str) -> str | None:
    """The other answer, if the two part before one of them ends."""
    try:
        target_in(session, answer, text, occurrence, other)
    except EditError:
        return None
    return other


def _alike(word: str, like: str) -> str:
    """The word, with a capital where the other has one."""
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
