"""LLaVA-NeXT (LLaVA-1.6): the whole picture squashed, then tiles of it at the best of a few resolutions.

The picture is brought to that resolution with its shape kept and a margin around it, of which the language
model is given nothing but the patches that the picture reaches into.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.modeling_llava_next import unpad_image

from explorer.errors import ModelError
from explorer.records import Box
from explorer.vlm.base import Prepared
from explorer.vlm.families.llava import completed
from explorer.vlm.origin import Origin
from explorer.vlm.tiled import Cut, Tiled

TEMPLATES = {
    "<|im_start|>": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n",
        "<|im_end|><|im_start|>assistant\n",
    ),
    "<|start_header_id|>": (
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "[INST]": ("[INST] ", " [/INST]"),
    "": (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the human's questions. USER: ",
        " ASSISTANT:",
    ),
}
"""What stands around a person's words, by what marks the text model's turns: the forms of the published
checkpoints (34b and 72b, Llama 3, Mistral, Vicuna), for copies of them without a chat template."""


class LlavaNext(Tiled):
    """An opened `LlavaNextForConditionalGeneration`."""

    @property
    def _length(self) -> int:
        """Side of a tile in model pixels."""
        return int(self.model.config.vision_config.image_size)

    def _cut(self, image: Image.Image, fixed: bool) -> Cut:
        """The squashed view, then the tiles row by row."""
        processor, length = self.processor.image_processor, self._length
        boxes, only = [], {"image_grid_pinpoints": [[length, length]]}
        if not fixed:
            boxes, only = self._boxes(*image.size), {}
        found = processor(images=[image], return_tensors="pt", **only)
        pixels = found["pixel_values"][:, :1] if fixed else found["pixel_values"]
        if pixels.shape[-1] != length:
            raise ModelError(
                f"{self.model_id} reads tiles of {length} x {length} pixels, but its image processor makes "
                f"them {pixels.shape[-1]} x {pixels.shape[-2]}: take the one that came with it"
            )
        return Cut(pixels, boxes, {} if fixed else {"image_sizes": found["image_sizes"]})

    def _boxes(self, width: int, height: int) -> list[Box]:
        """Where the tiles of a picture of natural size lie, the margin around it included."""
        pinpoints, length = self.processor.image_processor.image_grid_pinpoints, self._length
        best = select_best_resolution((height, width), pinpoints)
        shape = np.broadcast_to(np.uint8(0), (3, height, width))
        scaled_h, scaled_w = get_patch_output_size(shape, best, ChannelDimension.FIRST)
        above, left = (best[0] - scaled_h) // 2, (best[1] - scaled_w) // 2
        down, across = height / scaled_h, width / scaled_w
        return [
            Box(
                (x - left) * across,
                (y - above) * down,
                (x + length - left) * across,
                (y + length - above) * down,
            )
            for y in range(0, best[0], length)
            for x in range(0, best[1], length)
        ]

    def _projected(self, state: torch.Tensor) -> torch.Tensor:
        """One feature for each patch."""
        if self.model.config.vision_feature_select_strategy == "default":
            state = state[:, 1:]
        return self._core.multi_modal_projector(state)

    def _joined(self, tiles: torch.Tensor, like: Prepared) -> torch.Tensor:
        """The squashed view, then the rows of all tiles together, each with the feature that ends a line.

        The squashed view alone is followed by a single such feature.
        """
        sizes = like.inputs.get("image_sizes", torch.zeros(1, 2, dtype=torch.int64)).expand(len(tiles), -1)
        strategy, newline = self.model.config.vision_feature_select_strategy, self._core.image_newline
        packed, _ = self._core.pack_image_features(list(tiles), sizes, strategy, newline)
        return torch.stack(packed)

    def _shares(self, looks: torch.Tensor, like: Prepared) -> torch.Tensor:
        """Attention to each tile's patches [W, T, patches]; what ends a line and what lies in the margin is
        left out."""
        side = like.grid.rows
        whole = looks[:, None, : side**2]
        if not like.scales:
            return whole
        tiles_h, tiles_w = self._layout(like)
        numbers = torch.arange(tiles_h * tiles_w * side**2).reshape(1, tiles_h * side, tiles_w * side)
        kept = unpad_image(numbers, like.inputs["image_sizes"][0])[0]
        lines = looks[:, side**2 :].reshape(len(looks), kept.shape[0], kept.shape[1] + 1)
        spread = looks.new_zeros(len(looks), numbers.numel())
        spread[:, kept.flatten()] = lines[..., :-1].flatten(1)
        tiles = spread.reshape(-1, tiles_h, side, tiles_w, side).transpose(2, 3)
        return torch.cat([whole, tiles.reshape(len(looks), tiles_h * tiles_w, side**2)], dim=1)

    def _layout(self, like: Prepared) -> tuple[int, int]:
        """How many tiles are below and beside each other."""
        size = like.inputs["image_sizes"][0].tolist()
        height, width = select_best_resolution(size, self.model.config.image_grid_pinpoints)
        return height // self._length, width // self._length


def open_model(origin: Origin) -> LlavaNext:
    """Open a LLaVA-NeXT."""
    processor = origin.processor(LlavaNextProcessor)
    model = origin.model(LlavaNextForConditionalGeneration)
    completed(processor, model.config)
    if not processor.chat_template:
        processor.chat_template = template_of(processor, model.config.text_config.model_type)
    return LlavaNext(model, processor, origin.identity())


def template_of(processor: LlavaNextProcessor, text: str) -> str:
    """A chat template for a checkpoint that comes without one, by its tokens and the kind of text model."""
    known = processor.tokenizer.get_vocab()
    marks = [mark for mark in TEMPLATES if mark in known] + ["[INST]"] * (text == "mistral") + [""]
    before, after = (repr(part) for part in TEMPLATES[marks[0]])
    image, each = "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}", "message['content']"
    words = "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    parts = f"{{% for part in {each} %}}{image}{{% endfor %}}{{% for part in {each} %}}{words}{{% endfor %}}"
    return (
        f"{{% for message in messages %}}{{{{ {before} }}}}{parts}"
        f"{{% if add_generation_prompt %}}{{{{ {after} }}}}{{% endif %}}{{% endfor %}}"
    )
