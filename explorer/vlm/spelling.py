"""Which tokens spell which word of an answer.

An answer is text here, and its tokens are those that the tokenizer makes of the text. A model that wrote
the same text may have used others (it can say "d" "og" where the tokenizer says "dog"), and text that was
trimmed has lost its outer spaces: what is measured along an answer is measured along the tokenizer's
spelling.

Knows tokenizers and nothing of models. Where a language puts no spaces between words (Chinese, Japanese,
Thai), a run of letters counts as one word.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from explorer.errors import ModelError
from explorer.vlm.base import AnswerWord

WORD = re.compile(r"\d+(?:[.,:]\d+)+|\w+(?:[-'\u2010\u2011\u2019]\w+)*")
"""A number with its separators, or letters and digits with hyphens and apostrophes between them."""

BROKEN = "\ufffd"
"""What a tokenizer writes for a character whose bytes are not all there yet."""


class Span(NamedTuple):
    """Characters [start, end)."""

    start: int
    end: int


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """The tokens of an answer as it follows a prompt: without any that mark a beginning or an end."""
    return tokenizer(answer, add_special_tokens=False)["input_ids"]


def answer_words(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[AnswerWord]:
    """The words of an answer in their order, punctuation left out, with their places in `answer_tokens`.

    Hyphenated words, "dog's" and "3.5" are one word each. A word has every token that spells a character of
    it, so that two words share a token which spells a piece of both, and a comma that is one token with a
    letter comes along; a token of nothing but the space between words belongs to none. Raises ModelError if
    the tokenizer neither tells which characters its tokens spell nor gives the text back.
    """
    spans = token_spans(tokenizer, answer)
    words = []
    for start, end in word_spans(answer):
        here = [place for place, span in enumerate(spans) if span.start < end and start < span.end]
        if here:
            words.append(AnswerWord(answer[start:end], start, end, here[0], here[-1] + 1))
    return words


def word_spans(text: str) -> list[Span]:
    """Where the words of a text are. Accents and vowel signs of their own belong to their letter."""
    plain = "".join("x" if unicodedata.category(sign).startswith("M") else sign for sign in text)
    return [Span(*match.span()) for match in WORD.finditer(plain)]


def token_spans(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[Span]:
    """The characters that each of `answer_tokens` spells; several tokens may spell one character together.

    From the tokenizer's own offsets, or by decoding ever longer beginnings where it has none. Raises
    ModelError if these are not beginnings of the answer.
    """
    if tokenizer.is_fast:
        inputs = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
        return [Span(*offsets) for offsets in inputs["offset_mapping"]]
    return _decoded_spans(tokenizer, answer)


def _decoded_spans(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[Span]:
    """As `token_spans`, by decoding. Spaces do not count, since decoding may add and drop some."""
    tokens = answer_tokens(tokenizer, answer)
    places = [place for place, sign in enumerate(answer) if not sign.isspace()]
    spans, done = [], 0
    for count in range(1, len(tokens) + 1):
        text = "".join(tokenizer.decode(tokens[:count], clean_up_tokenization_spaces=False).split())
        whole, start = text.rstrip(BROKEN), done
        done = max(done, len(whole))
        end = done + (whole != text)
        if end > len(places) or any(a != answer[b] for a, b in zip(whole, places, strict=False)):
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} does not tell which characters of {answer!r} its "
                f"tokens spell, and reads its first {count} as {text!r}; use a fast tokenizer"
            )
        spans.append(Span(places[start], places[end - 1] + 1) if start < end else Span(0, 0))
    return spans
