"""Keys and values of what a language model has read: they grow in place, and their end can be taken back.

transformers' own caches copy everything for each token, and those with a sliding window forget what a
cropped one would need again. These keep all rows; the model's masks do the sliding.

Knows transformers' cache interface; nothing of pictures, prompts or answers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

SLACK = 64
"""Rows of room, at least, behind what is there when buffers are made."""

LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Rotary embeddings that turn early rows by another angle once there are many."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, [batch, heads, rows, width]: views of buffers that are longer."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append rows; all keys and all values."""
        end = self.length + key_states.shape[-2]
        if not self._buffers or end > self._buffers[0].shape[-2]:
            room = end + max(SLACK, self.length // 2)
            self._buffers = [self._moved(i, new, room) for i, new in enumerate((key_states, value_states))]
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer.narrow(-2, self.length, end - self.length).copy_(new)
        self._show(end)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """How many rows there are."""
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Take the last rows back: their number, as a negative one."""
        assert tokens_to_remove <= 0 and -tokens_to_remove <= self.length
        if self._buffers:
            self._show(self.length + tokens_to_remove)

    def keep(self, rows: int) -> None:
        """Only the first rows, also after a pass that broke off between two layers."""
        if self._buffers:
            self._show(min(rows, self.length))

    def forked(self, rows: int, slack: int) -> GrowingLayer:
        """A copy of the first rows with room for `slack` more."""
        copy = GrowingLayer()
        if self._buffers:
            copy._buffers = [
                torch.cat([b[..., :rows, :], b.new_empty(*b.shape[:-2], slack, b.shape[-1])], dim=-2)
                for b in self._buffers
            ]
            copy.dtype, copy.device, copy.is_initialized = self.dtype, self.device, True
            copy._show(min(rows, self.length))
        return copy

    @property
    def nbytes(self) -> int:
        """Of the buffers, room included."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def _moved(self, which: int, like: torch.Tensor, room: int) -> torch.Tensor:
        """A buffer with more room and the rows so far."""
        wider = like.new_empty(*like.shape[:-2], room, like.shape[-1])
        if self._buffers:
            wider[..., : self.length, :] = self._buffers[which][..., : self.length, :]
        return wider

    def _show(self, rows: int) -> None:
        self.length = rows
        keys, values = self._buffers
        self.keys, self.values = keys.narrow(-2, 0, rows), values.narrow(-2, 0, rows)


class GrowingCache(Cache):
    """The layers of one reading."""

    def __init__(self, layers: int | list[GrowingLayer]) -> None:
        made = [GrowingLayer() for _ in range(layers)] if isinstance(layers, int) else layers
        super().__init__(layers=made)

    def keep(self, rows: int) -> None:
        """Only the first rows, in every layer."""
        for layer in self.layers:
            layer.keep(rows)

    def forked(self, rows: int, slack: int = SLACK) -> GrowingCache:
        """A copy of the first rows that shares no memory with this."""
        return GrowingCache([layer.forked(rows, slack) for layer in self.layers])

    @property
    def nbytes(self) -> int:
        """Of all keys and values, room included."""
        return sum(layer.nbytes for layer in self.layers)


def can_be_cropped(config: PreTrainedConfig) -> bool:
    """Whether a text model's keys and values stay true when rows behind them are taken back.

    Not with states that cannot go back (linear attention), layers that borrow others' keys, or rotary
    embeddings that depend on how long the text is.
    """
    plain = {DynamicLayer, DynamicSlidingWindowLayer}
    if not {type(layer) for layer in DynamicCache(config=config).layers} <= plain:
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    return not any(kind.get("rope_type") in LENGTH_DEPENDENT for kind in kinds)
