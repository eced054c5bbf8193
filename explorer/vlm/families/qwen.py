"""Qwen2-VL and Qwen2.5-VL: a grid for each picture, and a language model that reads 2 x 2 patches as one.

A picture is squashed to multiples of 2 patches near its own size and becomes rows of pixels, one for each
patch, in which the frame is held twice (a picture is a film of two frames to them). The tower holds the
patches of each block of 2 x 2 side by side, Qwen2.5-VL also those of each window; `Prepared.places` puts them
back in order. Positions in the prompt have three axes: time, height, width.

Knows nothing of Qwen3-VL's taps (`qwen3`), which builds on this.
"""

from __future__ import annotations

import math

import torch
from PIL import Image
from transformers import (
    BaseImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from explorer.errors import ModelError
from explorer.records import Box, Grid
from explorer.vlm.adapter import Adapter
from explorer.vlm.base import Hears, Prepared
from explorer.vlm.hooks import resumed
from explorer.vlm.origin import Origin

SIDE = 448
"""Side in pixels of the square that pictures of the fixed form are squashed to, or the nearest possible."""

CHAT = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The published form of a conversation, for a checkpoint that comes without its template."""


class Qwen(Adapter):
    """What the families of Qwen have in common.

    How large a picture may become is up to the settings of its image processor: no more pixels than
    `size["longest_edge"]` (`max_pixels` in older files; as published 16,384 features of 4 patches each), no
    fewer than `size["shortest_edge"]`.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, model_id: str) -> None:
        seen, images = model.config.vision_config, processor.image_processor
        self._patch, self._merge = int(seen.patch_size), int(seen.spatial_merge_size)
        self._frames = int(seen.temporal_patch_size)
        given = (images.patch_size, images.merge_size, images.temporal_patch_size)
        if given != (self._patch, self._merge, self._frames):
            raise ModelError(
                f"{model_id} takes patches of {self._patch} pixels, {self._merge} x {self._merge} at a time, "
                f"{self._frames} frames; its image processor makes {given}: take the one that came with it"
            )
        super().__init__(model, processor, model_id)

    # Pictures

    def _preprocessing(self) -> str:
        side, kind = self._side_length(), type(self.processor.image_processor).__name__
        return f"squash to {side} x {side}; {kind}"

    def _side_length(self) -> int:
        """The side, in pixels, of pictures of the fixed form: as near to SIDE as the processor allows."""
        step, size = self._patch * self._merge, self.processor.image_processor.size
        most = math.isqrt(int(size["longest_edge"])) // step
        least = math.ceil(math.sqrt(int(size["shortest_edge"])) / step)
        return max(1, least, min(most, round(SIDE / step))) * step

    def preprocess(self, image: Image.Image, fixed: bool = False) -> Prepared:
        """Pixel values [1, N, C * frames * patch * patch] and grid of an upright RGB picture."""
        processor, given, how = self.processor.image_processor, image, {}
        if fixed:
            side, how = self._side_length(), {"do_resize": False}
            given = image.resize((side, side), Image.Resampling(processor.resample))
        try:
            found = processor(images=[given], return_tensors="pt", **how)
        except ValueError as error:
            raise ModelError(f"a picture of {image.width} x {image.height} will not do: {error}") from error
        return self._prepared(found["pixel_values"], found["image_grid_thw"], *image.size)

    def canvas(self, patches: int) -> Prepared:
        """A picture of one row of blocks, all of their patches counted."""
        rows = self._merge
        cols = self._merge * max(1, math.ceil(patches / self._merge**2))
        channels = int(self.model.config.vision_config.in_channels)
        pixels = torch.zeros(0, rows * cols, channels * self._frames * self._patch**2)
        thw = torch.tensor([[1, rows, cols]])
        return self._prepared(pixels, thw, cols * self._patch, rows * self._patch)

    def _prepared(self, pixels: torch.Tensor, thw: torch.Tensor, width: int, height: int) -> Prepared:
        """Pixel values [N, ...] (or [B, N, ...]) of a picture of width x height natural pixels."""
        _, rows, cols = thw[0].tolist()
        grid = Grid(rows, cols, width, height, Box(0, 0, width, height))
        stacked = pixels if pixels.ndim == 3 else pixels[None]
        places = self._order(thw).argsort()
        return Prepared(stacked, grid, places, inputs={"image_grid_thw": thw}, tokens=rows * cols)

    def _order(self, thw: torch.Tensor) -> torch.Tensor:
        """Which patch, counted row by row, each of the tower's tokens is: [N]."""
        row, col = get_vision_position_ids(thw, self._merge).unbind(1)
        return row * int(thw[0, 2]) + col

    def tied(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise [..., C * frames * patch * patch] alike in all frames."""
        frames = noise.unflatten(-1, (-1, self._frames, self._patch**2))
        return frames[..., :1, :].expand_as(frames).flatten(-3)

    # The tower

    def _inputs(self, pixel_values: torch.Tensor, like: Prepared | None) -> dict[str, torch.Tensor]:
        """All patches of the pictures one after the other, and the grid of each."""
        inputs = super()._inputs(pixel_values, self._known(like))
        return {**inputs, "pixel_values": pixel_values.flatten(0, 1)}

    def _tokens(self, pixel_values: torch.Tensor) -> int:
        """One for each row of pixels."""
        return pixel_values.shape[1]

    def _known(self, like: Prepared | None) -> Prepared:
        """The form of the picture. Raises ModelError without one."""
        if like is None:
            raise ModelError(f"{self.model_id} needs to know how the picture was prepared")
        return like

    def _from_block(self, output: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """[B, N, width] of [B * N, width]."""
        grid = self._known(like).grid
        return output.unflatten(0, (-1, grid.rows * grid.cols))

    def _to_block(self, hidden: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """[B * N, width] of [B, N, width]."""
        return hidden.flatten(0, 1)

    def _rest(self, hidden: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """Image features [B, N / 4, R] of block outputs: the model's own path, resumed behind the block.

        The embedding of pixels, which takes as long as a block, does not run either.
        """
        state, stack = self._to_block(hidden, like), [self._tower.patch_embed, *self._blocks]
        grids = self._known(like).inputs["image_grid_thw"].expand(len(hidden), -1).to(state.device)
        with resumed(stack, block + 1, state):
            blank = torch.zeros_like(state)
            found = self._core.get_image_features(blank, image_grid_thw=grids, return_dict=True)
        return self._given(found)

    def _given(self, found: BaseModelOutputWithPooling) -> torch.Tensor:
        """What the language side is given, [B, N / 4, R], of what `get_image_features` put out."""
        return torch.stack(list(found.pooler_output))

    @torch.no_grad()
    def alone(self, vectors: torch.Tensor, block: int) -> torch.Tensor:
        """What one block of patches that are all alike becomes: [n, D] of vectors [n, width]."""
        like = self.canvas(1)
        found = self.features(vectors[:, None].expand(-1, like.tokens, -1), block, like)
        return found.mean(1)[:, : int(self.model.config.get_text_config().hidden_size)].float()

    # The language side

    def _positions(self, ids: torch.Tensor, like: Prepared | None) -> torch.Tensor | None:
        """Time, height and width [3, L] of the rows of a prompt [L], as the model itself counts them."""
        if not len(self._places(ids)):
            return None
        grid = self._known(like).inputs["image_grid_thw"].to(ids.device)
        kinds = (ids == self.model.config.image_token_id).int()
        return self._core.get_rope_index(ids[None], kinds[None], image_grid_thw=grid)[0][:, 0]

    def _over_patches(self, looks: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """Attention to features [W, N / 4], the share of each divided among its patches: [W, rows * cols]."""
        grid, merge = self._known(like).grid, self._merge
        blocks = looks.unflatten(1, (grid.rows // merge, grid.cols // merge)) / merge**2
        return blocks.repeat_interleave(merge, 1).repeat_interleave(merge, 2).flatten(1)

    def generate_plain(
        self, inputs: dict[str, torch.Tensor], max_new_tokens: int = 64, streamer: Hears | None = None
    ) -> list[int]:
        """As every family; the positions that `generate` leaves in the model go again."""
        try:
            return super().generate_plain(inputs, max_new_tokens, streamer)
        finally:
            self._core.rope_deltas = None


class Qwen2VL(Qwen):
    """An opened `Qwen2VLForConditionalGeneration`."""

    def _find_width(self) -> int:
        """Its config calls the width of what the tower gives to the language model hidden_size."""
        return int(self.model.config.vision_config.embed_dim)


class Qwen25VL(Qwen):
    """An opened `Qwen2_5_VLForConditionalGeneration`: most blocks look within windows only."""

    def _order(self, thw: torch.Tensor) -> torch.Tensor:
        """The tower's tokens are in merge blocks, and these in the order of the windows."""
        window = int(self.model.config.vision_config.window_size)
        index, _ = get_vision_window_index(thw, self._merge, window, self._patch)
        return super()._order(thw).unflatten(0, (-1, self._merge**2))[index].flatten()


class WithoutVideos:
    """A processor of pictures and text without its half for videos, which needs torchvision."""

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


class Qwen2Reader(WithoutVideos, Qwen2VLProcessor):
    """Qwen2-VL's processor."""


class Qwen25Reader(WithoutVideos, Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor."""


def reading(origin: Origin, kind: type[ProcessorMixin]) -> ProcessorMixin:
    """The processor of a checkpoint, with the published chat template where it has none.

    Raises ModelError for a limit of pixels below what the model needs.
    """
    processor = origin.processor(kind)
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template or CHAT
    wished, images = origin.loading.max_pixels, processor.image_processor
    if wished is not None:
        size = dict(images.size)
        least = max(int(size["shortest_edge"]), (images.patch_size * images.merge_size) ** 2)
        if wished < least:
            raise ModelError(
                f"{wished:,} pixels are too few for '{origin.name}', which takes {least:,} or more"
            )
        images.size = {**size, "longest_edge": min(wished, int(size["longest_edge"]))}
    return processor


def open_model(origin: Origin) -> Qwen:
    """Open a Qwen2-VL or a Qwen2.5-VL."""
    if origin.config.model_type == "qwen2_vl":
        processor = reading(origin, Qwen2Reader)
        return Qwen2VL(origin.model(Qwen2VLForConditionalGeneration), processor, origin.identity())
    processor = reading(origin, Qwen25Reader)
    return Qwen25VL(origin.model(Qwen2_5_VLForConditionalGeneration), processor, origin.identity())
