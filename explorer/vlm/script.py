"""What the language model reads when an answer is laid down beforehand: a prompt, a picture, the answer.

Knows rows and places and nothing of tokenizers or families.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from explorer.errors import ModelError
from explorer.vlm.base import AnswerWord
from explorer.vlm.text import TextSide


class Script(NamedTuple):
    """A prompt and its answer, ready to be read.

    rows [B, P + A, R]; image: the columns of the picture in it; places [N]: those of its features; last: the
    place of the prompt's last token, P - 1, which predicts the answer's first; said [A]: the answer's tokens;
    positions [axes, P + A]: see `TextSide.run`.
    """

    rows: torch.Tensor
    image: slice
    places: torch.Tensor
    last: int
    said: torch.Tensor
    positions: torch.Tensor | None = None

    def read(self, side: TextSide) -> torch.Tensor:
        """Hidden states [B, P + A, D] of all of it, in one pass."""
        return side.run(self.rows, self.positions, None, self.last + 1)


def check_words(words: Sequence[AnswerWord], said: int) -> None:
    """Raises ModelError for a word that is not made of tokens of an answer of `said` tokens."""
    for word in words:
        if not 0 <= word.first < word.last <= said:
            raise ModelError(
                f"the word {word.text!r} has tokens {word.first} to {word.last}, but the answer has {said}; "
                "give words that answer_words found in this very answer"
            )
