"""What an attribution explains: why a word is said, or why it is said instead of something else.

Once a model has written "a cake and a", it hardly has a choice but to name some thing, and the word's own
log-probability says little about why it went on at all. Where the answer that should have been given is
known, the place where the two part says more: the log-odds of the answer's token against the other's there
(as logit differences in interpretability, e.g. Wang et al., arXiv 2211.00593, section 3).

Knows a session and words; nothing of neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.analyze.places import BATCH, LINKS, Edited, Place, place_in, token_log_probs, word_sums
from explorer.errors import EditError
from explorer.session import Session, View
from explorer.vlm import AnswerWord


class Reading(NamedTuple):
    """score [B]: of the target, in nats; others [B, W]: log-probability of each of the other words."""

    score: Tensor
    others: Tensor


class Slope(NamedTuple):
    """The untouched score, and its gradient [T, d] by the patches."""

    score: float
    gradient: Tensor


@dataclass(frozen=True)
class Target:
    """A word at its place, or what sets an answer apart from another.

    place: the word; instead: the other answer, None for the word's own log-probability; at: the token, of
    both answers, where they part.
    """

    place: Place
    instead: str | None = None
    at: int = 0

    def read(self, session: Session, asked: Sequence[Edited], prompt: str, batch: int = BATCH) -> Reading:
        """The score for several (view, edits), with one pass for each."""
        if self.instead is None:
            tokens = token_log_probs(session, asked, prompt, self.place, batch)
            score = word_sums(tokens, [self.place.word])[:, 0]
            return Reading(score, word_sums(tokens, self.place.others))
        ours, other = (session.lvlm.answer_tokens(text) for text in (self.place.answer, self.instead))
        parts = []
        for start in range(0, len(asked), batch):
            likely = session.next_words(asked[start : start + batch], prompt, self.place.answer)
            tokens = likely[:, range(len(ours)), ours]
            odds = likely[:, self.at, ours[self.at]] - likely[:, self.at, other[self.at]]
            parts.append(Reading(odds, word_sums(tokens, self.place.others)))
        return Reading(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def slope(self, session: Session, view: View, prompt: str) -> Slope:
        """The score of the untouched picture and its gradient: one backward pass, two with `instead`."""
        if self.instead is None:
            found = session.word_gradients(view, prompt, self.place.answer, [self.place.word])
            return Slope(float(found.log_probs[0]), found.gradients[0])
        here = AnswerWord("", 0, 0, self.at, self.at + 1)
        ours, other = (
            session.word_gradients(view, prompt, answer, [here])
            for answer in (self.place.answer, self.instead)
        )
        return Slope(float(ours.log_probs[0] - other.log_probs[0]), ours.gradients[0] - other.gradients[0])


def target_in(
    session: Session, answer: str, word: str, occurrence: int = 0, instead: str | None = None
) -> Target:
    """The target of a word of an answer.

    Raises EditError for a word that the answer does not have, or another answer that does not part from it.
    """
    place = place_in(session.lvlm, answer, word, occurrence)
    if instead is None:
        return Target(place)
    at = parting(session, answer, instead)
    if at is None:
        raise EditError(
            f"{instead!r} does not part from the answer {answer!r}: one begins the other; give "
            "another answer, with its full stop"
        )
    return Target(place, instead, at)


def parting(session: Session, answer: str, instead: str) -> int | None:
    """The first token in which two answers differ; None where one begins the other."""
    both = zip(session.lvlm.answer_tokens(answer), session.lvlm.answer_tokens(instead), strict=False)
    return next((at for at, (one, two) in enumerate(both) if one != two), None)


def without(place: Place) -> str:
    """The answer with a word cut out, as one would cut a thing out of a list.

    With the word go the one before it that is no link (a colour, a number) and the links before that ("and
    a"); where it opens the list, the links after it instead. A guess at grammar, good for captions in
    English. Raises EditError when nothing would be left.
    """
    words, answer = place.words, place.answer
    begin = next(i for i, word in enumerate(words) if word.start == place.word.start)
    last = next(i for i, word in enumerate(words) if word.end == place.word.end)

    def joined(i: int) -> bool:
        """Whether nothing but space stands between word i - 1 and word i."""
        return i > 0 and not answer[words[i - 1].end : words[i].start].strip()

    if joined(begin) and words[begin - 1].text.lower() not in LINKS:
        begin -= 1
    while joined(begin) and words[begin - 1].text.lower() in LINKS - {"with"}:
        begin -= 1
    after = next((word for word in words[last + 1 :] if word.text.lower() != "and"), None)
    opens = begin == 0 or words[begin - 1].text.lower() == "with"
    if opens and after is not None:
        text = answer[: words[begin].start] + answer[after.start :]
    else:
        begin -= 1 if opens and begin else 0
        kept = answer[: words[begin - 1].end] if begin else ""
        rest = answer[words[last].end :]
        head, comma, tail = kept.rpartition(", ")
        if comma and after is None and " and " not in tail:
            kept = f"{head} and {tail}"
        text = kept + rest
    if not any(sign.isalnum() for sign in text):
        raise EditError(f"nothing is left of {answer!r} without {place.word.text!r}; say what it should be")
    return text[:1].upper() + text[1:] if answer[:1].isupper() else text
