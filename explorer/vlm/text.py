"""The language side of a model: rows of what it reads go in, scores of the next token come out.

A row is what stands for one token: its embedding, or what the picture became there. A family whose picture
enters at several depths puts what enters later beside it in the same row, so that rows say all that a pass
depends on, besides positions. Knows the text stack of transformers' models; nothing of towers or prompts.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import Cache, PreTrainedModel


class TextSide:
    """The stack of layers of one model, called directly: that saves a tenth of a small model's pass.

    Families override what differs. looks_ahead: whether the tokens of a prompt see those after them, so
    that the beginning of one prompt is worth nothing for another.
    """

    looks_ahead = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.stack = model, model.get_decoder()
        self.config = model.config.get_text_config()

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return int(self.config.num_hidden_layers)

    @property
    def room(self) -> int:
        """How many tokens fit."""
        return int(self.config.max_position_embeddings)

    @property
    def size(self) -> int:
        """How many weights it has; a head that shares the embeddings counts once."""
        weights = [*self.stack.parameters(), *self.model.get_output_embeddings().parameters()]
        return sum({id(one): _count(one) for one in weights}.values())

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows [..., R] of tokens [...]."""
        return self.model.get_input_embeddings()(ids)

    def run(
        self,
        rows: torch.Tensor,
        positions: torch.Tensor | None = None,
        cache: Cache | None = None,
        prompt: int = 0,
    ) -> torch.Tensor:
        """Read rows [B, n, R] behind what `cache` holds: hidden states [B, n, D].

        positions [axes, n]: where they stand, for families that do not count them one by one; prompt: how
        many of all rows, from the first ever read, belong to the prompt.
        """
        given = {} if positions is None else {"position_ids": placed(positions, len(rows))}
        output = self.stack(inputs_embeds=rows, past_key_values=cache, use_cache=cache is not None, **given)
        return output.last_hidden_state

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of hidden states [..., D], on the model's first device."""
        return self.model.get_output_embeddings()(hidden).to(self.model.device)

    def final_weights(self) -> torch.Tensor:
        """What the final norm multiplies each dimension by, once it has divided by the length: [D].

        Told by what it makes of a vector and of its opposite, since norms differ in how they keep that.
        """
        weights = self.stack.norm.weight
        one = torch.ones_like(weights)
        one[1::2] = -1
        return (self.stack.norm(one) - self.stack.norm(-one)) / (2 * one)


def placed(positions: torch.Tensor, batch: int) -> torch.Tensor:
    """Positions [axes, n] for a batch, as stacks take them: [axes, B, n], or [B, n] for a single axis."""
    return positions.expand(batch, -1) if len(positions) == 1 else positions[:, None].expand(-1, batch, -1)


def _count(weight: nn.Parameter) -> int:
    """How many numbers a matrix stands for: in 4 bits two of them share a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def along(positions: torch.Tensor | None, start: int, count: int) -> torch.Tensor | None:
    """The positions [axes, count] from place `start` on; those of the prompt are [axes, L], and behind it
    all axes count on from the highest."""
    if positions is None:
        return None
    length = positions.shape[1]
    known = positions[:, start : start + count]
    if start + count <= length:
        return known
    first = int(positions.max()) + 1 - length + max(start, length)
    more = torch.arange(first, first + start + count - max(start, length), device=positions.device)
    return torch.cat([known, more.expand(len(positions), -1)], dim=1)
