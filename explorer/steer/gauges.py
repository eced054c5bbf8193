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
    unexplained = sae.decode_sparse(codes, len(h), h).to(h).neg_().add_(h)
    error = _product(unexplained, unexplained)
    work = h - h.mean(0)
    spread = max(_product(work, work), TINY)
    moved = torch.sub(after, h, out=work)
    lengths, norms = moved.norm(dim=1), h.norm(dim=1).clamp_min(TINY)
    left = error + _product(moved, unexplained)
    if steered.change is not None:
        left -= _product(steered.change.float(), unexplained)
    return Gauges(
        change=float(lengths.norm() / norms.norm()),
        largest=float((lengths / norms).max()),
        error=error / spread,
        error_kept=left / error if error > 0 else 1.0,
    )


def _product(a: Tensor, b: Tensor) -> float:
    """The inner product of two tensors of one shape."""
    return float(torch.dot(a.reshape(-1), b.reshape(-1)))
