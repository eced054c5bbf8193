"""InstructBLIP: a Q-Former reads the output of the tower, and the prompt, into a few tokens for the text.

What the language side is given here is therefore the tower's output after its last norm; the Q-Former runs
when the prompt is known. Its tokens have no places in the picture, so patch maps come from the tower alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from PIL import Image
from transformers import (
    AddedToken,
    GenerationConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from explorer.errors import ModelError
from explorer.vlm.adapter import Adapter, Question
from explorer.vlm.base import AnswerWord, Prepared
from explorer.vlm.origin import Origin
from explorer.vlm.processors import end_tokens
from explorer.vlm.text import TextSide

NO_PLACES = "reads a picture through a Q-Former, whose tokens have no places in it"


class _Text(TextSide):
    """The language model is one with a head of its own, inside."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.stack = model.language_model.get_decoder()


class InstructBlip(Adapter):
    """An opened `InstructBlipForConditionalGeneration` whose language model is a decoder (Vicuna)."""

    default_prompt = "Describe the image in detail."
    has_places = False

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, model_id: str) -> None:
        if not model.config.use_decoder_only_language_model:
            kind = model.config.text_config.model_type
            raise ModelError(
                f"{model_id} has the encoder-decoder {kind!r} as its language model, which is not supported; "
                "use one of the Vicuna models, such as Salesforce/instructblip-vicuna-7b"
            )
        self._mark = str(processor.image_token)
        processor.image_token = AddedToken(self._mark, normalized=False, special=True)  # a text breaks it
        _complete_ends(model, processor)
        super().__init__(model, processor, model_id)

    def _text_side(self) -> TextSide:
        """The language model's layers."""
        return _Text(self.model)

    def _settings(self) -> GenerationConfig:
        """The inner language model's: the outer ones are not heard."""
        return self.model.language_model.generation_config

    def _own_path(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The tower with its last norm: [B, 1 + N, width]."""
        return self.model.vision_model(**inputs, return_dict=True).last_hidden_state

    def _image_tokens(self, features: torch.Tensor) -> int:
        """As many as the Q-Former puts out."""
        return int(self.model.config.num_query_tokens)

    def prompt_text(self, prompt: str, preface: str = "", picture: bool = True) -> str:
        """The prompt as it is, behind its preface; the picture's tokens are put before the first token."""
        if self._mark in prompt or self._mark in preface:
            raise ModelError(f"the prompt may not contain {self._mark!r}: it stands for the picture")
        return f"{preface} {prompt}" if preface else prompt

    def _encode(self, question: Question, image_tokens: int, form: Hashable) -> torch.Tensor:
        """Ids [L]: the picture's tokens come before even the token that begins a text."""
        ids = self.processor.tokenizer([self.prompt_text(*question)], return_tensors="pt")["input_ids"][0]
        return torch.cat([ids.new_full((image_tokens,), self.model.config.image_token_id), ids])

    def _rows(
        self, question: Question, ids: torch.Tensor, features: torch.Tensor | None, like: Prepared | None
    ) -> torch.Tensor:
        """Embeddings [B, L, D], the Q-Former's reading of features [B, 1 + N, width] and prompt in them."""
        if features is None:
            return super()._rows(question, ids, None, like)
        return super()._rows(question, ids, self._queried(question, features), like)

    def _queried(self, question: Question, features: torch.Tensor) -> torch.Tensor:
        """What the Q-Former makes of features [B, 1 + N, width] for a prompt: [B, queries, D]."""
        model, batch = self.model, len(features)
        text = self.processor.qformer_tokenizer([self.prompt_text(*question)], return_tensors="pt")
        asked = text["input_ids"].to(features.device).expand(batch, -1)
        queries = model.query_tokens.expand(batch, -1, -1)
        both = torch.ones(batch, queries.shape[1] + asked.shape[1], dtype=torch.long, device=features.device)
        read = model.qformer(
            input_ids=asked,
            attention_mask=both,
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=both.new_ones(features.shape[:2]),
            return_dict=True,
        )
        return model.language_projection(read.last_hidden_state[:, : queries.shape[1]])

    def _plain_inputs(self, image: Image.Image, question: Question) -> dict[str, torch.Tensor]:
        """All inputs of the model's own `generate` about a picture."""
        text = self.prompt_text(*question)
        return dict(self.processor(images=[image], text=[text], return_tensors="pt"))

    def word_attention(
        self,
        features: torch.Tensor,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        layers: tuple[int, int] | None = None,
        like: Prepared | None = None,
    ) -> torch.Tensor:
        """Raises ModelError: attention to the Q-Former's tokens cannot be laid over the picture."""
        raise ModelError(f"{self.model_id} {NO_PLACES}: its attention cannot be laid over the picture")

    def alone(self, vectors: torch.Tensor, block: int) -> torch.Tensor:
        """Raises ModelError: what a patch becomes depends on the prompt."""
        raise ModelError(f"{self.model_id} {NO_PLACES}, and depends on the prompt; use --words answer")


def _complete_ends(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Let the inner language model end its answers with what the outer settings and the tokenizer end them.

    The published checkpoints say in the language model's config that texts end with token 1 and are filled
    up with -1, while the model ends them with "</s>", token 2, as their tokenizer says.
    """
    inner, tokenizer = model.language_model.generation_config, processor.tokenizer
    ends = end_tokens(inner) | end_tokens(model.generation_config) | {tokenizer.eos_token_id}
    inner.eos_token_id = sorted(ends - {None}) or None
    if (inner.pad_token_id or 0) < 0:
        inner.pad_token_id = None


def open_model(origin: Origin) -> InstructBlip:
    """Open an InstructBLIP."""
    image_processor, tokenizer = origin.parts()
    words = origin.tokenizer("qformer_tokenizer")
    queries = int(origin.config.num_query_tokens)
    processor = InstructBlipProcessor(image_processor, tokenizer, words, num_query_tokens=queries)
    model = origin.model(InstructBlipForConditionalGeneration)
    return InstructBlip(model, processor, origin.identity())
