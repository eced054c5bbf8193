"""Idefics3 and SmolVLM: tiles row by row, each announced by its row and column, then the picture squashed.

Pixel shuffle makes one feature of a square of patches. SmolVLM 2 is read with Idefics3's processor: its own
differs for films only, and needs packages for these.
"""

from __future__ import annotations

import torch
from PIL import Image
from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    SmolVLMForConditionalGeneration,
)

from explorer.records import Box
from explorer.vlm.adapter import Question
from explorer.vlm.base import Prepared
from explorer.vlm.origin import Origin
from explorer.vlm.prompts import in_form
from explorer.vlm.tiled import Cut, Tiled

TEMPLATE = (
    "{{ begin }}{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The form of the published checkpoints, for copies without a chat template; begin: their first token."""


class Idefics3(Tiled):
    """An opened `Idefics3ForConditionalGeneration` or `SmolVLMForConditionalGeneration`."""

    whole = -1

    @property
    def _merged(self) -> int:
        """How many patches along each side become one feature."""
        return int(self.model.config.scale_factor)

    def _cut(self, image: Image.Image, fixed: bool) -> Cut:
        """The tiles row by row, then the squashed view."""
        more = {"do_image_splitting": False} if fixed else {}
        found = self.processor.image_processor(
            images=[[image]], return_row_col_info=True, return_tensors="pt", **more
        )
        rows, cols = found["rows"][0][0], found["cols"][0][0]
        if not rows:
            return Cut(found["pixel_values"])
        across, down = image.width / cols, image.height / rows
        boxes = [
            Box(col * across, row * down, (col + 1) * across, (row + 1) * down)
            for row in range(rows)
            for col in range(cols)
        ]
        return Cut(found["pixel_values"], boxes, {"layout": torch.tensor([[rows, cols]])})

    def _projected(self, state: torch.Tensor) -> torch.Tensor:
        """One feature for each square of patches."""
        return self._core.connector(self._tower.post_layernorm(state))

    def _form(self, like: Prepared | None) -> tuple[int, int]:
        """How many tiles are below and beside each other; 0 and 0 for the squashed view alone."""
        if like is None or not like.scales:
            return 0, 0
        rows, cols = like.inputs["layout"][0].tolist()
        return rows, cols

    def _prompt_text(self, question: Question, image_tokens: int, form: tuple[int, int]) -> str:
        """The prompt with what the processor puts in the picture's place."""
        processor, (rows, cols) = self.processor, form
        mark = processor.image_token
        picture = processor.replace_image_token({"rows": [[rows]], "cols": [[cols]]}, 0)
        each = image_tokens // (rows * cols + 1)
        picture = picture.replace(mark * processor.image_seq_len, mark * each)
        return in_form(processor, *question).replace(mark, picture)


def open_model(origin: Origin) -> Idefics3:
    """Open an Idefics3 or a SmolVLM."""
    smol = origin.config.model_type == "smolvlm"
    processor = origin.processor(Idefics3Processor)
    model = origin.model(SmolVLMForConditionalGeneration if smol else Idefics3ForConditionalGeneration)
    seen = model.config.vision_config
    side = processor.image_processor.max_image_size["longest_edge"] // seen.patch_size
    processor.image_seq_len = (side // model.config.scale_factor) ** 2  # what the tower makes of such a tile
    if not processor.chat_template:
        processor.chat_template = template_of(processor)
    return Idefics3(model, processor, origin.identity())


def template_of(processor: Idefics3Processor) -> str:
    """A chat template for a checkpoint that comes without one: SmolVLM's and Idefics3's first tokens."""
    known = processor.tokenizer.get_vocab()
    begin = next((token for token in ("<|im_start|>", "<|begin_of_text|>") if token in known), "")
    return TEMPLATE.replace("{{ begin }}", begin)
