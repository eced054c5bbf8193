"""What the rest of the house may ask of a large vision-language model, whatever its family.

Knows torch tensors and the shared records; nothing of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from PIL import Image

from explorer.records import Grid

WORD_MARKS = ("\u2581", "\u0120")
"""How tokenizers mark a piece that begins a word: the space of SentencePiece, and of byte-level ones."""


class Prepared(NamedTuple):
    """A picture as the model takes it in.

    pixel_values: [1, channels, height, width], normalised; grid: where its patches lie in the picture.
    """

    pixel_values: torch.Tensor
    grid: Grid


class Cancel(Protocol):
    """Anything that says whether to stop, such as a threading.Event."""

    def is_set(self) -> bool:
        """True once the work should stop."""
        ...


class LVLM(Protocol):
    """One opened model. Blocks of its vision tower count from 0. Not thread-safe: callers take turns."""

    model_id: str
    """Name and hash of the weights, "name@hash": two models with one id give one activation."""

    preprocessing: str
    """How a picture becomes pixel values, in words."""

    block_count: int
    read_block: int
    """The last block that can matter to the text: the projector reads its output."""

    patch_slice: slice
    """Which of the tower's tokens are patches, row by row."""

    default_prompt: str

    text_size: int
    """How many weights the language model has: what a pass through it costs."""

    def width(self, block: int) -> int:
        """Width of the block's output. Raises ModelError for a block that does not exist or cannot matter."""
        ...

    def preprocess(self, image: Image.Image) -> Prepared:
        """Pixel values and grid of an upright RGB picture."""
        ...

    def tower(self, pixel_values: torch.Tensor, block: int) -> torch.Tensor:
        """Output of `block`, [batch, tokens, width], of pixel values [batch, ...]; later ones do not run."""
        ...

    def features(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        """What the language model is fed, [..., N, D], if `block` puts out `hidden` [..., tokens, width]."""
        ...

    def generate(
        self,
        features: torch.Tensor,
        prompt: str,
        max_new_tokens: int = 64,
        cancel: Cancel | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The greedy answer to image features [N, D]; `on_text` hears it grow; cut short if cancelled."""
        ...

    def generate_many(self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64) -> list[str]:
        """The greedy answers to one prompt about several pictures, features [B, N, D], in one batch."""
        ...

    def stream(
        self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64, cancel: Cancel | None = None
    ) -> Iterator[str]:
        """The answer while it grows; the last text is the answer. Closing the iterator cancels."""
        ...

    def answer_plain(self, image: Image.Image, prompt: str, max_new_tokens: int = 64) -> str:
        """The answer of the untouched model, through its own image path: the yardstick for no-op edits."""
        ...

    def words(self) -> list[str]:
        """The word that each entry of the vocabulary begins, V; "" for one that begins none (see
        `word_of`)."""
        ...

    def next_words(self, features: torch.Tensor, prompt: str, answer: str) -> torch.Tensor:
        """How likely each entry of the vocabulary comes next, at each place of a given answer.

        Log-probabilities [B, A + 1, V], float32, for image features [B, N, D] and an answer of A tokens:
        before its first token, before its second, ..., and after its last. Raises ModelError as `generate`
        does.
        """
        ...

    def unembed(self, vectors: torch.Tensor) -> torch.Tensor:
        """What vectors [n, D] of the language model's last layer add to the logits [n, V], float32.

        They are weighted as the final norm does, but not divided by a length: it is linear, for differences.
        """
        ...


def word_of(piece: str, marked: bool) -> str:
    """The word that a tokenizer's piece begins: at least two letters and nothing else, else "".

    marked: whether this tokenizer marks pieces that begin a word (with "\u2581" or "\u0120"); then one
    without the mark goes on with a word. Without such marks a piece that begins with "##" does, and the
    others begin one. A piece may be the beginning of a longer word: that cannot be seen from it.
    """
    if marked:
        word = piece[1:] if piece[:1] in WORD_MARKS else ""
    else:
        word = piece
    return word if len(word) > 1 and word.isalpha() else ""
