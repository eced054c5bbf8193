"""Where a word stands in an answer, or would stand, and how likely the model is to say it there.

An analysis asks about one word, or a run of words ("fork and knife"), at one place of an answer that is
read along as given: the log-probability of the word is that of its tokens, one after the other, after
picture, prompt and all of the answer before them. A word that the answer lacks has a place as well: the
one where the untouched model is readiest to say it.

Knows a session and words; nothing of neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Edit
from explorer.session import Session, View
from explorer.vlm import AnswerWord
from explorer.vlm.base import LVLM

LINKS = frozenset({"a", "an", "the", "and", "or", "with", "some"})
"""Words that say nothing of the picture by themselves: they come and go with the word that they lead to."""

BATCH = 32

Edited = tuple[View, Sequence[Edit]]
"""A picture and what is done to its neurons, as the session takes it."""


class Progress(Protocol):
    """Hears how far a long analysis has come."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of about `total` passes of one picture through the model."""
        ...


@dataclass(frozen=True)
class Place:
    """A word at its place in an answer.

    word: the word, or the run of words as one, with its characters and tokens in `answer`; answer: what is
    read along; said: whether the answer had the word already, or it was put there; words: all words of
    `answer`.
    """

    word: AnswerWord
    answer: str
    said: bool
    words: tuple[AnswerWord, ...]

    @property
    def others(self) -> list[AnswerWord]:
        """The words beside this one, without `LINKS`."""
        here = self.word
        return [
            word
            for word in self.words
            if not (word.start < here.end and here.start < word.end) and word.text.lower() not in LINKS
        ]


def runs_of(lvlm: LVLM, answer: str, text: str) -> list[AnswerWord]:
    """Where a word or a run of words stands in an answer, whatever its case, each as one word.

    Raises EditError for a text without words.
    """
    wanted = [word.text.lower() for word in lvlm.answer_words(text)]
    if not wanted:
        raise EditError(f"{text!r} holds no word; give a word of the answer, such as 'dog'")
    words = lvlm.answer_words(answer)
    said = [word.text.lower() for word in words]
    found = []
    for i in range(len(words) - len(wanted) + 1):
        if said[i : i + len(wanted)] == wanted:
            first, last = words[i], words[i + len(wanted) - 1]
            run = AnswerWord(answer[first.start : last.end], first.start, last.end, first.first, last.last)
            found.append(run)
    return found


def place_in(lvlm: LVLM, answer: str, text: str, occurrence: int = 0) -> Place:
    """The place of a word, or a run of words, that an answer has.

    occurrence: 0 for the first time that it is said. Raises EditError, with the answer's words, for one that
    it does not have (so often).
    """
    found = runs_of(lvlm, answer, text)
    words = tuple(lvlm.answer_words(answer))
    if not 0 <= occurrence < len(found):
        times = f" {occurrence + 1} times (it does {len(found)})" if found else ""
        said = ", ".join(repr(word.text) for word in words) or "no words at all"
        raise EditError(f"the answer {answer!r} does not say {text!r}{times}; it has {said}")
    return Place(found[occurrence], answer, True, words)


def best_place(
    session: Session, view: View, text: str, prompt: str | None, answer: str, batch: int = BATCH
) -> Place:
    """The place of a word in an answer; of one that it lacks, where the untouched model says it most readily.

    Tried are the places before each word and before the final full stop; what follows there is cut off. At
    the beginning the word takes the capital of the one that it goes before. One pass per place tried.
    """
    if runs_of(session.lvlm, answer, text):
        return place_in(session.lvlm, answer, text)
    words = session.lvlm.answer_words(answer)
    body = answer.rstrip().rstrip(".!?").rstrip()
    heads = [answer[: word.start] for word in words] + [f"{body} " if body else ""]
    places = []
    for head in dict.fromkeys(heads):
        capital = not head.strip() and (not words or words[0].text[:1].isupper())
        said = head + (text[:1].upper() + text[1:] if capital else text)
        run = runs_of(session.lvlm, said, text)[-1]
        places.append(Place(run, said, False, tuple(session.lvlm.answer_words(said))))
    chances = [float(log_probs(session, [(view, ())], prompt, place, batch)[0]) for place in places]
    return places[max(range(len(places)), key=chances.__getitem__)]


def token_log_probs(
    session: Session, asked: Sequence[Edited], prompt: str | None, place: Place, batch: int = BATCH
) -> Tensor:
    """Log-probability [B, A] of each token of the place's answer, for several (view, edits)."""
    if not asked:
        return torch.zeros(0, len(session.lvlm.answer_tokens(place.answer)))
    asking = session.lvlm.default_prompt if prompt is None else prompt
    return session.log_probs(asked, asking, place.answer, batch=batch)


def log_probs(
    session: Session, asked: Sequence[Edited], prompt: str | None, place: Place, batch: int = BATCH
) -> Tensor:
    """Log-probability [B] of the word at its place, in nats, for several (view, edits)."""
    return word_sums(token_log_probs(session, asked, prompt, place, batch), [place.word])[:, 0]


def word_sums(tokens: Tensor, words: Sequence[AnswerWord]) -> Tensor:
    """Log-probability [B, W] of words, from those of the tokens [B, A]."""
    sums = [tokens[:, word.first : word.last].sum(1) for word in words]
    return torch.stack(sums, dim=1) if sums else tokens.new_zeros(len(tokens), 0)
