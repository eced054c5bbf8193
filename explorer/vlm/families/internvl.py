"""InternVL (the "-hf" checkpoints): tiles of the picture stretched to their shape, then the picture squashed.

How many tiles, and in which shape, follows the picture's own shape and size; a picture of one tile is not
seen twice. The tower's CLS tokens are dropped, and pixel shuffle makes one feature of a square of patches.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from PIL import Image
from torch import nn
from transformers import (
    BaseImageProcessor,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    PreTrainedTokenizerBase,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from explorer.records import Box
from explorer.vlm.adapter import Question
from explorer.vlm.origin import Origin
from explorer.vlm.prompts import in_form
from explorer.vlm.tiled import Cut, Tiled

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The form of the published checkpoints, for copies without a chat template."""


class InternVLReader(InternVLProcessor):
    """The processor without its half for films, which needs torchvision."""

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        image_seq_length: int = 256,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template)


class InternVL(Tiled):
    """An opened `InternVLForConditionalGeneration`."""

    whole = -1

    @property
    def _patch(self) -> int:
        """Side of a patch in model pixels."""
        return int(self.model.config.vision_config.patch_size[0])

    @property
    def _merged(self) -> int:
        """How many patches along each side become one feature."""
        return round(1 / self.model.config.downsample_ratio)

    def _cut(self, image: Image.Image, fixed: bool) -> Cut:
        """The tiles row by row, then the squashed view; or that alone."""
        processor = self.processor.image_processor
        asked = {**self.processor.images_kwargs, **({"crop_to_patches": False} if fixed else {})}
        pixels = processor(images=[image], return_tensors="pt", **asked)["pixel_values"][None]
        if pixels.shape[1] == 1:
            return Cut(pixels)
        length, limits = tuple(pixels.shape[-2:]), (processor.min_patches, processor.max_patches)
        cols, rows = get_optimal_tiled_canvas((image.height, image.width), length, *limits)
        across, down = image.width / cols, image.height / rows
        boxes = [
            Box(col * across, row * down, (col + 1) * across, (row + 1) * down)
            for row in range(rows)
            for col in range(cols)
        ]
        return Cut(pixels, boxes, {"layout": torch.tensor([[rows, cols]])})

    def _step(self, block: nn.Module, state: torch.Tensor) -> torch.Tensor:
        """A block's output [n, tokens, width] of its input."""
        return block(state)

    def _projected(self, state: torch.Tensor) -> torch.Tensor:
        """One feature for each square of patches."""
        config = self.model.config
        if config.vision_feature_layer == -1:
            state = self._tower.layernorm(state)
        if config.vision_feature_select_strategy == "default":
            state = state[:, 1:]
        side = math.isqrt(state.shape[1])
        shuffled = self._core.pixel_shuffle(state.unflatten(1, (side, side)), config.downsample_ratio)
        return self._core.multi_modal_projector(shuffled.flatten(1, 2))

    def _prompt_text(self, question: Question, image_tokens: int, form: Hashable) -> str:
        """The prompt with the picture's tokens between those that begin and end it."""
        processor = self.processor
        mark, first, last = processor.image_token, processor.start_image_token, processor.end_image_token
        return in_form(processor, *question).replace(mark, f"{first}{mark * image_tokens}{last}")


def open_model(origin: Origin) -> InternVL:
    """Open an InternVL."""
    processor = origin.processor(InternVLReader)
    if processor.image_token not in (processor.chat_template or ""):  # early ones say <image>
        processor.chat_template = TEMPLATE
    model = origin.model(InternVLForConditionalGeneration)
    seen, tile = model.config.vision_config, processor.image_processor.size
    side = int(tile["height"] // seen.patch_size[0] * model.config.downsample_ratio)
    processor.image_seq_length = side**2  # what the tower makes of such a tile
    return InternVL(model, processor, origin.identity())
