"""Qwen3-VL: as Qwen2-VL, and some blocks of the tower are tapped for the first layers of the language model.

A tap gives features of its own, which are added to the picture's rows behind the first, second, ... layer
("DeepStack", arXiv 2406.04334). So the text hangs on the outputs of several blocks. For an SAE at a block,
the taps before it are what they are: their outputs go along behind the patches, as further tokens. That of
the block itself and those behind it follow from the patches.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import pad
from transformers import (
    Cache,
    PreTrainedModel,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from explorer.vlm.base import Prepared
from explorer.vlm.families.qwen import Qwen, WithoutVideos, reading
from explorer.vlm.hooks import capture, edited
from explorer.vlm.origin import Origin
from explorer.vlm.text import TextSide


class DeepStack(TextSide):
    """A language model that adds a part of each row behind each of its first layers.

    Rows are [D * (1 + taps)]: the embedding, then what is added behind layer 0, 1, ...
    """

    def __init__(self, model: PreTrainedModel, taps: int) -> None:
        super().__init__(model)
        self.taps = taps

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows [..., R] of tokens [...]: nothing is added to text."""
        rows = super().embed(ids)
        return pad(rows, (0, self.taps * rows.shape[-1]))

    def run(
        self,
        rows: torch.Tensor,
        positions: torch.Tensor | None = None,
        cache: Cache | None = None,
        prompt: int = 0,
    ) -> torch.Tensor:
        """Read rows [B, n, R] behind what `cache` holds: hidden states [B, n, D]."""
        first, *added = rows.chunk(1 + self.taps, dim=-1)
        given = {} if positions is None else {"position_ids": positions[:, None].expand(-1, len(rows), -1)}
        if cache is None or cache.get_seq_length() < prompt:  # an answer's rows have nothing to add
            given["visual_pos_masks"] = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            given["deepstack_visual_embeds"] = [part.flatten(0, 1) for part in added]
        output = self.stack(inputs_embeds=first, past_key_values=cache, use_cache=cache is not None, **given)
        return output.last_hidden_state


class Qwen3VL(Qwen):
    """An opened `Qwen3VLForConditionalGeneration`, or the mixture of experts of that name.

    The tower's tokens are N patches and, for each tap, N more: what that block put out, if it comes before
    the SAE's block, else 0. A picture that is made up (`canvas`) has patches only; its earlier taps add
    nothing to the text.
    """

    @property
    def _taps(self) -> list[int]:
        """The blocks that are tapped, first to last."""
        return sorted(self.model.config.vision_config.deepstack_visual_indexes)

    def _text_side(self) -> TextSide:
        return DeepStack(self.model, len(self._taps))

    def _prepared(self, pixels: torch.Tensor, thw: torch.Tensor, width: int, height: int) -> Prepared:
        """With room for the taps, but for a picture that is made up."""
        found = super()._prepared(pixels, thw, width, height)
        if not len(found.pixel_values):
            return found
        return replace(found, tokens=found.tokens * (1 + len(self._taps)))

    def _from_block(self, output: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """[B, tokens, width] of [B * N, width], 0 for the taps."""
        patches = super()._from_block(output, like)
        return pad(patches, (0, 0, 0, self._known(like).tokens - patches.shape[1]))

    def _to_block(self, hidden: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """[B * N, width] of [B, tokens, width]."""
        grid = self._known(like).grid
        return super()._to_block(hidden[:, : grid.rows * grid.cols], like)

    def _look(self, pixel_values: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """Output of `block`, and of the taps before it, [batch, tokens, width]; later blocks do not run."""
        grid = self._known(like).grid
        with ExitStack() as stack:
            earlier = [stack.enter_context(capture(self._blocks[tap])) for tap in self._taps if tap < block]
            hidden = super()._look(pixel_values, block, like)
        _, *room = hidden.split(grid.rows * grid.cols, dim=1)
        for place, tap in zip(room, earlier, strict=False):
            place.copy_(tap.output.view_as(place))
        return hidden

    def _rest(self, hidden: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """Image features [B, N / 4, D * (1 + taps)]; where a tap is unknown its share of them is 0."""
        grid, earlier = self._known(like).grid, [tap for tap in self._taps if tap < block]
        _, *known = hidden.split(grid.rows * grid.cols, dim=1)
        with ExitStack() as stack:
            for tap, state in zip(earlier, known, strict=False):
                stack.enter_context(edited(self._blocks[tap], partial(_instead, state.flatten(0, 1))))
            rows = super()._rest(hidden, block, like)
        if known:
            return rows
        first, *added = rows.chunk(1 + len(self._taps), dim=-1)
        nothing = [torch.zeros_like(first)] * len(earlier)
        return torch.cat([first, *nothing, *added[len(earlier) :]], dim=-1)

    def _given(self, found: BaseModelOutputWithPooling) -> torch.Tensor:
        """The features of the last block, and beside them those of each tap: [B, N / 4, D * (1 + taps)]."""
        return torch.cat(
            [torch.stack(list(it)) for it in (found.pooler_output, *found.deepstack_features)], -1
        )


def _instead(state: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """What was kept of a block, in the place of what it puts out now."""
    return state


class Qwen3Reader(WithoutVideos, Qwen3VLProcessor):
    """Qwen3-VL's processor."""


def open_model(origin: Origin) -> Qwen3VL:
    """Open a Qwen3-VL, dense or of experts."""
    experts = origin.config.model_type == "qwen3_vl_moe"
    kind = Qwen3VLMoeForConditionalGeneration if experts else Qwen3VLForConditionalGeneration
    processor = reading(origin, Qwen3Reader)
    return Qwen3VL(origin.model(kind), processor, origin.identity())
