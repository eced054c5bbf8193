"""The vision half of an opened model: pictures through the tower, and on from a changed output of a block.

Relies on what transformers' models have in common: a vision tower with one list of blocks, and the model's
own `get_image_features`, which is run as it is, stopped at a block or resumed behind it. Families override
the few methods under "What families override". Nothing here knows of prompts or neurons.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from explorer.errors import ModelError
from explorer.vlm.base import Prepared
from explorer.vlm.grid import framing_of, grid_of
from explorer.vlm.hooks import capture, resumed

CLS = ("class_embedding", "cls_token")
"""How towers name the parameter of their CLS token."""
TOGETHER = 1 << 15
"""Tokens that go through a tower together, at most: what a batch of pictures takes stays within bounds. A
single picture goes as a whole."""


class Seeing:
    """The part of an `Adapter` that sees; see `explorer.vlm.base.LVLM` for what each member means."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, model_id: str) -> None:
        self.model, self.processor, self.model_id = model.eval().requires_grad_(False), processor, model_id
        self.family = model.config.model_type
        self._core = model.base_model
        self._tower = model.get_encoder(modality="image")
        self._blocks = longest_list(self._tower)
        self.block_count = len(self._blocks)
        self.read_block = self._find_read_block()
        self._width = self._find_width()
        self.has_cls = any(name.endswith(CLS) for name, _ in self._tower.named_parameters())
        self.preprocessing = self._preprocessing()

    # What families override

    def _find_read_block(self) -> int:
        """The last block that the text depends on."""
        layer = getattr(self.model.config, "vision_feature_layer", None)
        return self.block_count - 1 if layer is None else read_block(layer, self.block_count)

    def _find_width(self) -> int:
        """Width of the blocks' output."""
        return int(self.model.config.vision_config.hidden_size)

    def _preprocessing(self) -> str:
        """How pictures of the fixed form are made, in words."""
        framing = framing_of(self.processor.image_processor)
        return f"{framing.words()}; {type(self.processor.image_processor).__name__}"

    def preprocess(self, image: Image.Image, fixed: bool = False) -> Prepared:
        """Pixel values and grid of an upright RGB picture; here for one size and one grid."""
        processor, patch = self.processor.image_processor, int(self.model.config.vision_config.patch_size)
        pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
        rows, cols = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        grid = grid_of(*image.size, framing_of(processor), rows, cols, patch)
        return Prepared(pixels, grid, tokens=rows * cols + self.has_cls)

    def canvas(self, patches: int) -> Prepared:
        """The form of the smallest picture: here of any picture."""
        return self.preprocess(Image.new("RGB", (64, 64), "gray"), fixed=True)

    def _inputs(self, pixel_values: torch.Tensor, like: Prepared | None) -> dict[str, torch.Tensor]:
        """The arguments of the model's own `get_image_features` for pixel values [B, ...] of one form."""
        more = {} if like is None else like.inputs
        expanded = {name: value.expand(len(pixel_values), *value.shape[1:]) for name, value in more.items()}
        return {"pixel_values": pixel_values, **expanded}

    def _own_path(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's own way from pictures to what the language side is given, [B, N, R]."""
        found = self._core.get_image_features(**inputs, return_dict=True)
        return torch.stack(list(found.pooler_output))

    def _from_block(self, output: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """What a block put out as [B, tokens, width]."""
        return output

    def _to_block(self, hidden: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """The way back: [B, tokens, width] as the block puts it out."""
        return hidden

    def _rest(self, hidden: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """What the language side is given, [B, N, R], for outputs [B, tokens, width] of `block`.

        Here by the model's own image path, resumed behind the block.
        """
        if like is None:
            raise ModelError(f"{self.model_id} needs to know how the picture was prepared")
        blank = torch.zeros(len(hidden), *like.pixel_values.shape[1:], device=self.model.device)
        inputs = self._inputs(blank.to(self.model.dtype), like)
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        with resumed(self._blocks, block, self._to_block(hidden, like), self.read_block):
            return self._own_path(inputs)

    def tied(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise as pixel values can have it: here any."""
        return noise

    # The tower

    @property
    def vision_blocks(self) -> nn.ModuleList:
        """The blocks of the vision tower, for hooks."""
        return self._blocks

    def width(self, block: int) -> int:
        """Width of the block's output. Raises ModelError for a block that does not exist or cannot matter."""
        if not 0 <= block < self.block_count:
            raise ModelError(
                f"{self.model_id} has no block {block}: its vision tower has 0 to {self.block_count - 1}"
            )
        if block > self.read_block:
            raise ModelError(
                f"block {block} cannot matter: the language model of {self.model_id} reads block "
                f"{self.read_block}; use a block from 0 to {self.read_block}"
            )
        return self._width

    def _tokens(self, pixel_values: torch.Tensor) -> int:
        """About how many tokens the tower makes of one picture of pixel values [B, ...]."""
        height, width = pixel_values.shape[-2:]
        return height * width // int(self.model.config.vision_config.patch_size) ** 2

    @torch.no_grad()
    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """Output of `block`, [batch, tokens, width]; the blocks after it do not run."""
        self.width(block)
        pictures = max(1, TOGETHER // max(1, self._tokens(pixel_values)))
        found = [self._look(part, block, like) for part in pixel_values.split(pictures)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _look(self, pixel_values: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """As `tower`, for pictures that go through it together."""
        pixels = pixel_values.to(self.model.device, self.model.dtype)
        inputs = {name: value.to(self.model.device) for name, value in self._inputs(pixels, like).items()}
        with capture(self._blocks[block], stop=True) as captured:
            self._own_path(inputs)
        assert captured.output is not None, f"block {block} did not run"
        return self._from_block(captured.output, like)

    @torch.no_grad()
    def features(self, hidden: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """What the language side is given, [..., N, R], when `block` puts out [..., tokens, width]."""
        return self._features(hidden, block, like)

    def _features(self, hidden: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """As `features`, but gradients reach `hidden`."""
        self.width(block)
        state = hidden.to(self.model.device, self.model.dtype)
        found = self._rest(state[None] if hidden.ndim == 2 else state, block, like)
        return found[0] if hidden.ndim == 2 else found

    @torch.no_grad()
    def alone(self, vectors: torch.Tensor, block: int) -> torch.Tensor:
        """The mean feature [n, D] of pictures of nothing but one patch vector each, [n, width]."""
        like = self.canvas(1)
        parts = [self.features(one.expand(like.tokens, -1), block, like).mean(0) for one in vectors]
        width = int(self.model.config.get_text_config().hidden_size)
        return torch.stack(parts)[:, :width].float()


def longest_list(tower: nn.Module) -> nn.ModuleList:
    """The tower's blocks: no list in it is longer."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError(f"found no list of blocks in the vision tower {type(tower).__name__}")
    return max(lists, key=len)


def read_block(layer: int | list[int], blocks: int) -> int:
    """The block whose output the projector reads: hidden state 0 is the embedding, state i block i - 1."""
    if not isinstance(layer, int):
        raise ModelError(f"the projector reads several blocks at once ({list(layer)}); only one is supported")
    block = (layer if layer >= 0 else layer + blocks + 1) - 1
    if not 0 <= block < blocks:
        raise ModelError(f"vision_feature_layer {layer} names no block of a tower with {blocks} blocks")
    return block
