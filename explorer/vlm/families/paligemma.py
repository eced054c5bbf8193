"""PaliGemma: SigLIP's patches in front of a Gemma that reads picture and prompt in both directions."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from PIL import Image
from transformers import Cache, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from explorer.errors import ModelError
from explorer.vlm.adapter import Adapter, Question
from explorer.vlm.base import Prepared
from explorer.vlm.origin import Origin
from explorer.vlm.text import TextSide, placed


class _Text(TextSide):
    """Gemma, whose prompt sees itself whole; what follows it sees what came before."""

    looks_ahead = True

    def run(
        self,
        rows: torch.Tensor,
        positions: torch.Tensor | None = None,
        cache: Cache | None = None,
        prompt: int = 0,
    ) -> torch.Tensor:
        """As `TextSide.run`, with the mask of a prompt that looks ahead."""
        past = 0 if cache is None else cache.get_seq_length()
        where = None if positions is None else placed(positions, len(rows))
        number = torch.arange(past, past + rows.shape[1], device=rows.device).expand(len(rows), -1)
        given = {
            "config": self.config,
            "inputs_embeds": rows,
            "attention_mask": None,
            "past_key_values": cache,
            "position_ids": where,
        }
        if past < prompt:
            given["block_sequence_ids"] = torch.where(number < prompt, 0, -1)
        mask: object = create_causal_mask(**given)
        if getattr(self.config, "sliding_window", None) is not None:
            mask = {"full_attention": mask, "sliding_attention": create_sliding_window_causal_mask(**given)}
        output = self.stack(
            inputs_embeds=rows,
            attention_mask=mask,
            position_ids=where,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., V], capped where the model caps them (PaliGemma 2)."""
        logits, cap = super().score(hidden), getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


class PaliGemma(Adapter):
    """An opened `PaliGemmaForConditionalGeneration`; versions 1 and 2."""

    default_prompt = "caption en"

    def _text_side(self) -> TextSide:
        """Gemma."""
        return _Text(self.model)

    def prompt_text(self, prompt: str, preface: str = "", picture: bool = True) -> str:
        """The prompt as in training: picture (one token here), first token, words, line break."""
        mark = self.processor.image_token
        if mark in prompt or mark in preface:
            raise ModelError(f"the prompt may not contain {mark!r}: it stands for the picture")
        words = f"{preface} {prompt}" if preface else prompt
        return f"{mark if picture else ''}{self.processor.tokenizer.bos_token}{words}\n"

    def _prompt_text(self, question: Question, image_tokens: int, form: Hashable) -> str:
        """The same with all image tokens."""
        mark = self.processor.image_token
        return self.prompt_text(*question).replace(mark, mark * image_tokens)

    def _positions(self, ids: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """Counted from 1: [1, L]."""
        return torch.arange(1, len(ids) + 1, device=ids.device)[None]

    def _plain_inputs(self, image: Image.Image, question: Question) -> dict[str, torch.Tensor]:
        """All inputs of the model's own `generate` about a picture."""
        words = f"{question.preface} {question.prompt}" if question.preface else question.prompt
        text = f"{self.processor.image_token}{words}"
        found = dict(self.processor(images=[image], text=[text], return_tensors="pt"))
        found.pop("labels", None)
        return found


def open_model(origin: Origin) -> PaliGemma:
    """Open a PaliGemma."""
    processor = origin.processor(PaliGemmaProcessor)
    return PaliGemma(origin.model(PaliGemmaForConditionalGeneration), processor, origin.identity())
