"""Which card each part of a model lies on, for models larger than one: `--device-map auto`.

The vision side, the embeddings and all else that is not a layer lie together on the first card, so that the
SAE's site is on one device; the layers follow in order, as many on each card as fit; what comes behind them
lies with the last. accelerate moves what passes from card to card. Nothing is left to the CPU or a disk:
that would work, but no slider would be worth moving.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from explorer.errors import ModelError
from explorer.vlm.loading import Quantized
from explorer.vlm.loading.full import gib
from explorer.vlm.loading.memory import need_of, weight_of
from explorer.vlm.loading.parts import parts_of


def spread(
    model: PreTrainedModel,
    dtype: torch.dtype,
    free: Sequence[int],
    quantized: Quantized | None = None,
    beside: int = 0,
) -> dict[str, int]:
    """The card of every part, by name, as from_pretrained takes it.

    free: bytes on each card; beside: bytes of the SAE, which lies on the first. Each card keeps its share
    of what working takes. Raises ModelError when all cards together are too small.
    """
    need = need_of(model, dtype, quantized)
    layers = [part for part in parts_of(model) if part.role == "layer"]
    room = [size - need.work // len(free) for size in free]
    seen: set[int] = set()
    room[0] -= need.sees + beside
    card, found = 0, {part.name: 0 for part in parts_of(model) if part.role == "sees"}
    sizes = [weight_of(part, dtype, quantized, seen) for part in layers]
    for place, (part, size) in enumerate(zip(layers, sizes, strict=True)):
        size += need.ends if place == len(layers) - 1 else 0
        while card < len(room) and (room[card] < size or room[0] < 0):
            card = card + 1 if room[0] >= 0 else len(room)
        if card == len(room):
            raise ModelError(_too_small(need.weights + beside, need.work, free, quantized))
        room[card] -= int(size)
        found[part.name] = card
    return found | {part.name: card for part in parts_of(model) if part.role == "ends"}


def _too_small(weights: int, work: int, free: Sequence[int], quantized: Quantized | None) -> str:
    cards = ", ".join(f"cuda:{place} {gib(size)}" for place, size in enumerate(free))
    advice = {None: "use --quantize 8bit or 4bit, or ", "8bit": "use --quantize 4bit, or ", "4bit": ""}
    return (
        f"the model does not fit on the cards: it takes {gib(weights)} and about {gib(work)} to work; free "
        f"are {cards}; {advice[quantized]}take a smaller model"
    )
