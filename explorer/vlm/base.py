"""What the rest of the house may ask of a large vision-language model, whatever its family.

Knows torch tensors and the shared records; nothing of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from PIL import Image

from explorer.errors import ModelError
from explorer.records import Grid

if TYPE_CHECKING:
    from explorer.vlm.memory import Memory

WORD_MARKS = ("\u2581", "\u0120")
"""How tokenizers mark a piece that begins a word: the space of SentencePiece, and of byte-level ones."""


class Scale(NamedTuple):
    """The picture once more, or one tile of it, as further tokens of the tower see it: larger.

    grid: where its patches lie in the picture; places [rows * cols] int64: which tokens they are, row by row.
    """

    grid: Grid
    places: torch.Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the model takes it in; or, as `like`, what pictures of one form have in common.

    pixel_values: [1, ...], normalised, in the family's own shape; grid: where its patches lie in the picture.
    places [rows * cols] int64: which of the tower's tokens the patches are, row by row; None: the last ones.
    scales: where the tower sees the picture more than once, the other times: edits act there as well.
    inputs: what else the model or its prompt depends on besides pixel values, by name, [1, ...] each.
    tokens: how many the tower puts out for such a picture; 0: one for each patch, and perhaps a CLS token.
    """

    pixel_values: torch.Tensor
    grid: Grid
    places: torch.Tensor | None = None
    scales: tuple[Scale, ...] = ()
    inputs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 0

    def patches(self, hidden: torch.Tensor) -> torch.Tensor:
        """The patches [..., rows * cols, d], row by row, of the tower's output [..., tokens, d]."""
        if self.places is None:
            return hidden[..., hidden.shape[-2] - self.grid.rows * self.grid.cols :, :]
        return hidden[..., self.places.to(hidden.device), :]

    def put(self, hidden: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """The tower's output [..., tokens, d] with these patches in the place of its own."""
        new = hidden.clone()
        if self.places is None:
            new[..., hidden.shape[-2] - patches.shape[-2] :, :] = patches
        else:
            new[..., self.places.to(hidden.device), :] = patches
        return new

    def form(self) -> Prepared:
        """The same without the picture: what pictures that share a batch have in common."""
        return replace(self, pixel_values=self.pixel_values[:0])

    def alike(self, other: Prepared) -> bool:
        """Whether both can go through the tower in one batch, as pictures of one form."""
        same = self.pixel_values.shape[1:] == other.pixel_values.shape[1:]
        same = same and (self.grid.rows, self.grid.cols) == (other.grid.rows, other.grid.cols)
        same = same and self.inputs.keys() == other.inputs.keys()
        return same and all(torch.equal(self.inputs[name], other.inputs[name]) for name in self.inputs)


@dataclass(frozen=True)
class AttentionEdit:
    """How the language model's attention scores, before the softmax, are changed while it reads and answers.

    layers: the first layer, and the one after the last; rows: which queries: "answer" (the last token of
    the prompt and all of the answer, those that predict a word) or "text" (all after the picture);
    image_gain, image_factor: scores a of the picture's columns become (a + gain |a|) * factor;
    system_factor: those of the columns before the picture are multiplied by it.
    Raises ModelError for no layers, other rows, or values that are not finite.
    """

    layers: tuple[int, int]
    rows: Literal["answer", "text"] = "answer"
    image_gain: float = 0.0
    image_factor: float = 1.0
    system_factor: float = 1.0

    def __post_init__(self) -> None:
        first, end = self.layers
        if not 0 <= first < end:
            raise ModelError(f"layers {first} to {end} are none; give the first and the one after the last")
        if self.rows not in ("answer", "text"):
            raise ModelError(f"unknown rows {self.rows!r}; use 'answer' or 'text'")
        numbers = (self.image_gain, self.image_factor, self.system_factor)
        if not all(math.isfinite(number) for number in numbers):
            raise ModelError(f"gain and factors must be finite numbers, not {numbers}")


class Asked(NamedTuple):
    """What the language model reads before it answers.

    prompt: the person's words; features: image features [N, D], None for a prompt without a picture;
    preface: an instruction in front of it all; attention: how its attention is changed meanwhile; like: the
    form of the picture (`Prepared`), for families whose prompt depends on it.
    """

    prompt: str
    features: torch.Tensor | None
    preface: str = ""
    attention: AttentionEdit | None = None
    like: Prepared | None = None


Choose = Callable[[Sequence[torch.Tensor], int], int]
"""Picks a token: from the logits [V] float32 of every branch of a generation, and the token's place in the
answer (0 for the first). The same arguments must give the same token, or drafts could not be verified."""


class Step(NamedTuple):
    """A generation after one more pass through the language model.

    tokens: the answer so far, with the token that ends it; text: the same for people; passes: forward
    passes so far, of all branches; done: nothing will follow.
    """

    tokens: tuple[int, ...]
    text: str
    passes: int
    done: bool


class Hears(Protocol):
    """What a model's own `generate` tells of its tokens while it goes on: a streamer of transformers."""

    def put(self, value: torch.Tensor) -> None:
        """Hears of tokens: first all of the prompt's, then one after the other."""
        ...

    def end(self) -> None:
        """Hears that there will be no more."""
        ...


class AnswerWord(NamedTuple):
    """A word of an answer: its text, its characters [start, end), and its tokens [first, last)."""

    text: str
    start: int
    end: int
    first: int
    last: int


class WordGradients(NamedTuple):
    """log_probs [W]: of each word (the sum over its tokens), given picture, prompt and the words before it;
    gradients [W, tokens, width]: of these by the output of the block. float32 on the CPU."""

    log_probs: torch.Tensor
    gradients: torch.Tensor


class LVLM(Protocol):
    """One opened model. Blocks of its vision tower count from 0. Not thread-safe: callers take turns.

    `like` is how the picture was prepared (or its `form`), wherever a family's tower or prompt depends on
    that; families whose pictures all have one form do without.
    """

    model_id: str
    """Name and hash of the weights, "name@hash": two models with one id give one activation."""

    family: str
    """What transformers calls models of its kind: "llava", "qwen2_5_vl"."""

    preprocessing: str
    """How a picture becomes pixel values of the fixed form, in words."""

    block_count: int
    read_block: int
    """The last block that can matter to the text: the projector reads its output."""

    has_cls: bool
    """Whether the tower's first token is a CLS token."""

    has_places: bool
    """Whether attention to the picture can be laid over its patches (see `word_attention`)."""

    default_prompt: str

    text_layers: int
    """How many layers the language model has."""

    text_size: int
    """How many weights the language model has: what a pass through it costs."""

    def width(self, block: int) -> int:
        """Width of the block's output. Raises ModelError for a block that does not exist or cannot matter."""
        ...

    def preprocess(self, image: Image.Image, fixed: bool = False) -> Prepared:
        """Pixel values and grid of an upright RGB picture.

        fixed: in the one form that all pictures of an index share, whatever their size and shape; without
        it, as the model reads pictures by itself. For most families that is the same.
        """
        ...

    def canvas(self, patches: int) -> Prepared:
        """The form of a picture of about so many patches, the smallest that the family can do."""
        ...

    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """Output of `block`, [batch, tokens, width], of pixel values [batch, ...]; later ones do not run."""
        ...

    def features(self, hidden: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """What the language side is given, [..., N, D], if `block` puts out `hidden` [..., tokens, width]."""
        ...

    def alone(self, vectors: torch.Tensor, block: int) -> torch.Tensor:
        """What a picture of nothing but one patch vector each [n, width] becomes: [n, D] of the text's width.

        Raises ModelError where that depends on the prompt.
        """
        ...

    def tied(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise of the shape of pixel values, made alike where these hold one pixel more than once."""
        ...

    def decode(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int = 64,
        choose: Choose | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Step]:
        """Answer step by step: each `next` is one pass through the language model for every branch.

        asked: the branches of the generation, all of them followed by the same answer; the first is the
        question itself, the others are what it is contrasted with. choose: how to pick each token from
        their logits; None: the likeliest of the first. memory: what earlier generations about the same
        picture left; it makes this one quicker and never changes the answer. Ends after a step that is
        done. Closing it ends the generation, and nothing of it is kept.
        Raises ModelError, before the first step, for a prompt that does not fit.
        """
        ...

    def generate(
        self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64, like: Prepared | None = None
    ) -> str:
        """The greedy answer to image features [N, D], at once: the last text of `decode`."""
        ...

    def generate_many(
        self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64, like: Prepared | None = None
    ) -> list[str]:
        """The greedy answers to one prompt about several pictures, features [B, N, D], in one batch."""
        ...

    def answer_plain(self, image: Image.Image, prompt: str, max_new_tokens: int = 64) -> str:
        """The answer of the untouched model, through its own image path: the yardstick for no-op edits."""
        ...

    def words(self) -> list[str]:
        """The word that each entry of the vocabulary begins, V; "" for one that begins none (see
        `word_of`)."""
        ...

    def next_words(
        self, features: torch.Tensor, prompt: str, answer: str, like: Prepared | None = None
    ) -> torch.Tensor:
        """How likely each entry of the vocabulary comes next, at each place of a given answer.

        Log-probabilities [B, A + 1, V], float32, for image features [B, N, D] and an answer of A tokens:
        before its first token, before its second, ..., and after its last. Raises ModelError as `generate`
        does.
        """
        ...

    def answer_tokens(self, answer: str) -> list[int]:
        """The tokens of an answer, as `next_words` reads it."""
        ...

    def answer_words(self, answer: str) -> list[AnswerWord]:
        """The words of an answer, punctuation left out, and which of `answer_tokens` each is made of."""
        ...

    def word_gradients(
        self,
        hidden: torch.Tensor,
        block: int,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        like: Prepared | None = None,
    ) -> WordGradients:
        """How each word's log-probability changes with the output of `block`, hidden [tokens, width].

        One forward pass, and one backward pass for each word. Raises ModelError as `generate` does.
        """
        ...

    def word_attention(
        self,
        features: torch.Tensor,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        layers: tuple[int, int] | None = None,
        like: Prepared | None = None,
    ) -> torch.Tensor:
        """How much each word looked at each patch of the picture while it was chosen: [W, rows * cols].

        features [N, D]; float32, on the CPU. Attention from the tokens that predict the word's, averaged over
        these, the heads and the layers [first, end) (None: all); what it gives to the text is left out, so
        rows sum to less than 1. Where one feature stands for several patches each gets its share.
        Raises ModelError for a language model that does not read the patches in their places.
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
