"""What a model's own `generate` is given for a prompt."""

from __future__ import annotations

import torch

from explorer.vlm.adapter import Adapter, Question


def ids_and_mask(lvlm: Adapter, prompt: str, image_tokens: int, longest: int) -> dict[str, torch.Tensor]:
    """Ids and mask [1, L] of a prompt with so many image tokens."""
    ids = lvlm._ids(Question(prompt), image_tokens, longest, None)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
