"""How much an intervention changes a picture's patches, and how much of the SAE's error is left in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer.sae import SAE, SparseCodes
from explorer.steer.intervention import Steered


class Gauges(NamedTuple):
    """What an intervention did to the patches h, which became h'.

    change: ||h' - h|| / ||h|| over the whole picture; largest: the same at the patch that has most of it;
    error: what the SAE does not explain of the untouched patches, as a share of their variance;
    error_kept: the share of that error that is still in h': 1 when the change is added, 0 when the
    SAE's decoding replaces the patches.
    """

    change: float
    largest: float
    error: float
    error_kept: float


@torch.no_grad()
def gauges(patches: Tensor, steered: Steered, codes: SparseCodes, sae: SAE) -> Gauges:
    """The gauges of patches [T, d] with activations `codes`, after an intervention."""
    tiny = torch.finfo(torch.float32).tiny
    h = patches.float()
    reconstruction = sae.decode_sparse(codes, len(h)).to(h)
    unexplained = h - reconstruction
    error = unexplained.square().sum()
    spread = (h - h.mean(0)).square().sum()
    if steered.patches is patches:
        return Gauges(0.0, 0.0, float(error / spread.clamp_min(tiny)), 1.0)
    moved = steered.patches.float() - h
    left = steered.patches.float() - reconstruction
    if steered.change is not None:
        left = left - steered.change.float()
    ratios = moved.norm(dim=1) / h.norm(dim=1).clamp_min(tiny)
    kept = float((left * unexplained).sum() / error) if error > 0 else 1.0
    return Gauges(
        change=float(moved.norm() / h.norm().clamp_min(tiny)),
        largest=float(ratios.max()),
        error=float(error / spread.clamp_min(tiny)),
        error_kept=kept,
    )
