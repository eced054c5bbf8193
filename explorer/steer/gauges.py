"""How much an intervention changes a picture's patches, and how much of the SAE's error is left in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer.sae import SAE, SparseCodes
from explorer.steer.intervention import Steered

TINY = torch.finfo(torch.float32).tiny


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
    h, after = patches.float(), steered.patches.float()
    unexplained = h - sae.decode_sparse(codes, len(h)).to(h)
    error = _product(unexplained, unexplained)
    centred = h - h.mean(0)
    left = error
    if steered.patches is patches:
        change = largest = 0.0
    else:
        moved = after - h
        lengths, norms = moved.norm(dim=1), h.norm(dim=1).clamp_min(TINY)
        change, largest = float(lengths.norm() / norms.norm()), float((lengths / norms).max())
        left = left + _product(moved, unexplained)
    if steered.change is not None:
        left = left - _product(steered.change.float(), unexplained)
    return Gauges(
        change=change,
        largest=largest,
        error=error / max(_product(centred, centred), TINY),
        error_kept=left / error if error > 0 else 1.0,
    )


def _product(a: Tensor, b: Tensor) -> float:
    """The inner product of two tensors of one shape."""
    return float(torch.dot(a.reshape(-1), b.reshape(-1)))
