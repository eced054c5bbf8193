"""LLaVA-1.5 and its like: one size of picture, and a language model that reads one feature per patch."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    ProcessorMixin,
)

from explorer.errors import ModelError
from explorer.records import Box, Grid
from explorer.vlm.adapter import Adapter
from explorer.vlm.base import Prepared
from explorer.vlm.origin import Origin


class Llava(Adapter):
    """An opened `LlavaForConditionalGeneration`.

    Its tower takes pictures of any number of patches once they are past the embedding, so the later blocks
    are called one by one: quicker than the model's own path, and nothing need be known of the picture.
    """

    @property
    def projector(self) -> nn.Module:
        """The module between the vision tower and the language model, for hooks."""
        return self._core.multi_modal_projector

    def canvas(self, patches: int) -> Prepared:
        """A picture of a single row of patches."""
        grid = Grid(1, patches, patches, 1, Box(0, 0, patches, 1))
        return Prepared(torch.zeros(0), grid, tokens=patches + self.has_cls)

    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """Output of `block`, [batch, tokens, width]; the blocks after it do not run."""
        return super().tower(pixel_values, block)

    def _rest(self, hidden: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """Image features [B, N, D] of block outputs [B, tokens, width]."""
        state = hidden
        for later in self._blocks[block + 1 : self.read_block + 1]:
            output = later(state, None)
            state = output[0] if isinstance(output, tuple) else output
        if self.model.config.vision_feature_select_strategy == "default":
            state = state[:, 1:]
        return self.projector(state)

    @torch.no_grad()
    def alone(self, vectors: torch.Tensor, block: int) -> torch.Tensor:
        """What a picture of one patch, and a CLS token like it, becomes: [n, D] of vectors [n, width]."""
        tokens = 1 + self.has_cls
        return self.features(vectors[:, None].repeat(1, tokens, 1), block)[:, -1].float()


def open_model(origin: Origin) -> Llava:
    """Open a LLaVA. Raises ModelError for a Pixtral, which goes by the same name."""
    tower = origin.config.vision_config.model_type
    if tower == "pixtral":
        raise ModelError(
            f"'{origin.name}' is a Pixtral, whose tower takes pictures of any size; it is not supported"
        )
    processor = origin.processor(LlavaProcessor)
    model = origin.model(LlavaForConditionalGeneration)
    completed(processor, model.config)
    return Llava(model, processor, origin.identity())


def completed(processor: ProcessorMixin, config: PreTrainedConfig) -> None:
    """Fill in what the processors of older checkpoints leave out and the model's config knows."""
    if processor.patch_size is None:
        processor.patch_size = config.vision_config.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(config.vision_config.model_type == "clip_vision_model")
