"""One opened model of transformers, whatever its family: what all families do alike.

`Adapter` runs the vision tower up to a block, goes on from a changed output of that block to what the
language side is given (both in `seeing`), and answers from there, so that the tower does not run again for
each edit. A family is a subclass, in `families`, that overrides the few methods under "What families
override", here and in `seeing`. Nothing here knows of neurons.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from PIL import Image
from torch.nn.functional import linear
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from explorer.errors import ModelError
from explorer.vlm.attention import word_attention
from explorer.vlm.base import (
    WORD_MARKS,
    AnswerWord,
    Asked,
    Choose,
    Hears,
    Prepared,
    Step,
    WordGradients,
    word_of,
)
from explorer.vlm.decode import Branch, Decoder
from explorer.vlm.gradients import token_log_probs, word_gradients
from explorer.vlm.memory import Memory
from explorer.vlm.prompts import in_form
from explorer.vlm.script import Script
from explorer.vlm.seeing import Seeing
from explorer.vlm.spelling import answer_tokens, answer_words
from explorer.vlm.text import TextSide, along

DEFAULT_PROMPT = "Describe the image."


class Question(NamedTuple):
    """A prompt and an instruction in front of it, "" for none; picture: whether there is one."""

    prompt: str
    preface: str = ""
    picture: bool = True


class Adapter(Seeing):
    """An opened model; see `explorer.vlm.base.LVLM` for what each member means.

    Raises ModelError for a model that works in a way that is not supported.
    """

    default_prompt = DEFAULT_PROMPT
    has_places = True

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, model_id: str) -> None:
        super().__init__(model, processor, model_id)
        self._side = self._text_side()
        self.text_layers, self.text_size = self._side.layers, self._side.size
        self._text = partial(_text, processor.tokenizer)
        self._decoder = Decoder(self._side, self._settings(), self._text)
        self._encoded = lru_cache(maxsize=32)(self._encode)

    # What families override

    def _text_side(self) -> TextSide:
        """The language side."""
        return TextSide(self.model)

    def _settings(self) -> GenerationConfig:
        """The settings of the model's own `generate`."""
        return self.model.generation_config

    def _form(self, like: Prepared | None) -> Hashable:
        """What a prompt must know of the picture besides the number of its tokens."""
        return None

    def _image_tokens(self, features: torch.Tensor) -> int:
        """How many tokens of the prompt stand for features [..., N, R]."""
        return features.shape[-2]

    def _prompt_text(self, question: Question, image_tokens: int, form: Hashable) -> str:
        """The text that the tokenizer gets: the prompt in the model's form, its image token repeated."""
        text, mark = in_form(self.processor, *question), self.processor.image_token
        return text.replace(mark, mark * image_tokens)

    def _rows(
        self, question: Question, ids: torch.Tensor, features: torch.Tensor | None, like: Prepared | None
    ) -> torch.Tensor:
        """What the language side reads: [B, L, R] of prompt [L] and features [B, N, R]; gradients reach them.

        Without features [1, L, R].
        """
        known = ids.masked_fill(ids == self.model.config.image_token_id, 0)
        rows = self._side.embed(known)[None]
        if features is None:
            return rows
        places = self._places(ids)
        return rows.expand(len(features), -1, -1).index_copy(1, places, features.to(rows))

    def _positions(self, ids: torch.Tensor, like: Prepared | None) -> torch.Tensor | None:
        """Where the rows of a prompt [L] stand: [axes, L]; None: counted one by one from 0."""
        return None

    def _over_patches(self, looks: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """Attention to the picture's tokens [W, N] laid over the patches: [W, rows * cols]."""
        if like is not None and looks.shape[1] != like.grid.rows * like.grid.cols:
            raise ModelError(
                f"{self.model_id} reads {looks.shape[1]} image features, the picture has "
                f"{like.grid.rows * like.grid.cols} patches: its attention cannot be laid over the picture"
            )
        return looks

    def _plain_inputs(self, image: Image.Image, question: Question) -> dict[str, torch.Tensor]:
        """All inputs of the model's own `generate` about a picture."""
        text = in_form(self.processor, *question)
        return dict(self.processor(images=[image], text=[text], return_tensors="pt"))

    # Answers

    def decode(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int = 64,
        choose: Choose | None = None,
        memory: Memory | None = None,
    ) -> Generator[Step, None, None]:
        """Answer step by step, one pass through the language model for every branch at each `next`."""
        if not asked:
            raise ModelError("nothing was asked; the first branch is the question itself")
        branches = [self._branch(one, max_new_tokens) for one in asked]
        return self._decoder.decode(branches, max_new_tokens, choose, memory)

    def generate(
        self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64, like: Prepared | None = None
    ) -> str:
        """The greedy answer to image features [N, R], at once."""
        *_, last = self.decode([Asked(prompt, features, like=like)], max_new_tokens)
        return last.text

    @torch.no_grad()
    def generate_many(
        self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64, like: Prepared | None = None
    ) -> list[str]:
        """The greedy answers to one prompt about several pictures, features [B, N, R], in one batch."""
        question = Question(prompt)
        ids = self._ids(question, self._image_tokens(features), max_new_tokens, like)
        rows, positions = self._rows(question, ids, features, like), self._positions(ids, like)
        return self._decoder.together(ids.tolist(), rows, positions, max_new_tokens)

    def answer_plain(self, image: Image.Image, prompt: str, max_new_tokens: int = 64) -> str:
        """The answer of the untouched model from pixel values, by its own `generate`, greedy."""
        return self._text(self.generate_plain(self.plain_inputs(image, prompt), max_new_tokens))

    def plain_inputs(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        """All inputs of the model's own `generate` about a picture, where and as the model wants them."""
        return {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in self._plain_inputs(image, Question(prompt)).items()
        }

    @torch.no_grad()
    def generate_plain(
        self, inputs: dict[str, torch.Tensor], max_new_tokens: int = 64, streamer: Hears | None = None
    ) -> list[int]:
        """The tokens of the greedy answer to `plain_inputs`, by the model's own `generate`.

        streamer: hears of the prompt, then of each token.
        """
        plain = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        output = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            pad_token_id=self._padding(),
            streamer=streamer,
            **plain,
        )
        return output[0, self._echoed(inputs) :].tolist()

    def _echoed(self, inputs: dict[str, torch.Tensor]) -> int:
        """How many tokens of the prompt `generate` gives back."""
        return inputs["input_ids"].shape[1]

    def _padding(self) -> int:
        """What fills up rows that have ended."""
        settings, tokenizer = self._settings(), self.processor.tokenizer
        known = (settings.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
        return next((token for token in known if token is not None), 0)

    def prompt_text(self, prompt: str, preface: str = "", picture: bool = True) -> str:
        """The prompt in the model's own form, with one image token. Raises ModelError if it has its own."""
        return in_form(self.processor, prompt, preface, picture)

    def _encode(self, question: Question, image_tokens: int, form: Hashable) -> torch.Tensor:
        """Ids [L] of a prompt."""
        text = self._prompt_text(question, image_tokens, form)
        return self.processor.tokenizer([text], return_tensors="pt")["input_ids"][0]

    def _ids(
        self, question: Question, image_tokens: int, max_new_tokens: int, like: Prepared | None
    ) -> torch.Tensor:
        """Ids [L] of a prompt on the model's device. Raises ModelError when it is too long."""
        if max_new_tokens < 1:
            raise ModelError(f"an answer of {max_new_tokens} tokens was asked for; ask for 1 or more")
        ids = self._encoded(question, image_tokens, self._form(like))
        if len(ids) + max_new_tokens > self._side.room:
            picture = f" (the picture's {image_tokens} among them)" if question.picture else ""
            raise ModelError(
                f"the prompt is too long: {len(ids)} tokens{picture} and {max_new_tokens} new ones do not "
                f"fit into the model's {self._side.room}"
            )
        return ids.to(self.model.device)

    def _places(self, ids: torch.Tensor) -> torch.Tensor:
        """The places of the picture's tokens in a prompt [L]."""
        return (ids == self.model.config.image_token_id).nonzero()[:, 0]

    def _branch(self, asked: Asked, max_new_tokens: int) -> Branch:
        """One branch of a generation, checked."""
        features, like = asked.features, asked.like
        question = Question(asked.prompt, asked.preface, features is not None)
        count = 0 if features is None else self._image_tokens(features)
        ids = self._ids(question, count, max_new_tokens, like)
        places = self._places(ids).tolist()
        image = slice(places[0], places[-1] + 1) if places else slice(0, 0)

        @torch.no_grad()
        def rows() -> torch.Tensor:
            return self._rows(question, ids, None if features is None else features[None], like)[0]

        positions = self._positions(ids, like if features is not None else None)
        return Branch(ids.tolist(), rows, image, asked.attention, positions)

    # Measures along an answer

    def words(self) -> list[str]:
        """The word that each entry of the vocabulary begins; special tokens and unused rows begin none."""
        tokenizer, rows = self.processor.tokenizer, self.model.get_output_embeddings().weight.shape[0]
        pieces = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
        special = {*tokenizer.all_special_tokens, getattr(self.processor, "image_token", None)}
        pieces = ["" if piece is None or piece in special else piece for piece in pieces]
        marked = any(piece.startswith(WORD_MARKS) for piece in pieces)
        return [word_of(piece, marked) for piece in pieces] + [""] * (rows - len(pieces))

    @torch.no_grad()
    def next_words(
        self, features: torch.Tensor, prompt: str, answer: str, like: Prepared | None = None
    ) -> torch.Tensor:
        """Log-probabilities [B, A + 1, V] of what comes next along an answer, from features [B, N, R]."""
        script = self._script(features, prompt, answer, like)
        return torch.log_softmax(self._logits(script).float(), dim=-1)

    def answer_tokens(self, answer: str) -> list[int]:
        """The tokens of an answer, as `next_words` reads it."""
        return answer_tokens(self.processor.tokenizer, answer)

    def answer_words(self, answer: str) -> list[AnswerWord]:
        """The words of an answer, punctuation left out, and which of `answer_tokens` each is made of."""
        return answer_words(self.processor.tokenizer, answer)

    def word_gradients(
        self,
        hidden: torch.Tensor,
        block: int,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        like: Prepared | None = None,
    ) -> WordGradients:
        """Each word's log-probability, and its gradient by the output of `block`, hidden [tokens, width]."""
        if getattr(self.model, "is_loaded_in_4bit", False) and self.model.device.type == "cpu":
            raise ModelError(
                "bitsandbytes gives no gradients through 4 bits on the CPU; open the model with --quantize "
                "8bit, or without"
            )

        def log_probs(state: torch.Tensor) -> torch.Tensor:
            script = self._script(self._features(state, block, like)[None], prompt, answer, like)
            return token_log_probs(self._logits(script), script.said)[0]

        return word_gradients(log_probs, hidden.to(self.model.device, self.model.dtype), words)

    @torch.no_grad()
    def word_attention(
        self,
        features: torch.Tensor,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        layers: tuple[int, int] | None = None,
        like: Prepared | None = None,
    ) -> torch.Tensor:
        """How much each word looked at each patch of the picture while it was chosen: [W, rows * cols]."""
        script = self._script(features[None], prompt, answer, like)
        return self._over_patches(word_attention(self._side, script, words, layers), like)

    def _script(
        self, features: torch.Tensor, prompt: str, answer: str, like: Prepared | None = None
    ) -> Script:
        """Prompt and answer with image features [B, N, R] in them. Raises ModelError when too long."""
        said = torch.tensor(self.answer_tokens(answer), dtype=torch.int64, device=self.model.device)
        if bool((said == self.model.config.image_token_id).any()):
            raise ModelError("the answer may not contain the token that stands for the picture")
        question = Question(prompt)
        ids = self._ids(question, self._image_tokens(features), len(said) + 1, like)
        places, positions = self._places(ids), self._positions(ids, like)
        rows = self._rows(question, ids, features, like)
        rows = torch.cat([rows, self._side.embed(said).to(rows).expand(len(rows), -1, -1)], dim=1)
        image = slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
        where = along(positions, 0, rows.shape[1])
        return Script(rows, image, places, len(ids) - 1, said, where)

    def _logits(self, script: Script) -> torch.Tensor:
        """Logits [B, A + 1, V] before, along and after the answer."""
        return self._side.score(script.read(self._side)[:, script.last :])

    @torch.no_grad()
    def unembed(self, vectors: torch.Tensor) -> torch.Tensor:
        """What vectors [n, D] of the last layer add to the logits [n, V], final norm's weights included."""
        head = self.model.get_output_embeddings().weight
        return linear(vectors.to(head) * self._side.final_weights().to(head), head).float()


def _text(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    """What people read of tokens."""
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()
