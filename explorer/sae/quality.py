"""How well an SAE describes held-out vectors. Knows nothing of how it was trained."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explorer.sae.model import CHUNK, SAE, SparseCodes


class Quality(NamedTuple):
    """Figures of one SAE on some vectors.

    explained_variance: 1 - squared error / squared distance to the mean, summed over all vectors
    and dimensions (1 is perfect, 0 no better than the mean); prefixes: the same from the first
    group, the first two, ...; l0: mean number of neurons per vector whose activation is not 0; dead_share:
    share of the neurons that are 0 on all of these vectors; vectors: how many there were.
    """

    explained_variance: float
    prefixes: tuple[float, ...]
    l0: float
    dead_share: float
    vectors: int


@torch.no_grad()
def evaluate(sae: SAE, x: Tensor, chunk: int = CHUNK) -> Quality:
    """Measure the SAE on the vectors x [n, d] with its inference rule, in pieces of `chunk` values."""
    x = x.float()
    errors = torch.zeros(len(sae.group_sizes), dtype=torch.float64)
    fired = torch.zeros(sae.n_neurons, dtype=torch.int64)
    for part in x.split(max(1, chunk // sae.n_neurons)):
        z, scale = sae.encode(part), sae.scale(part)
        fired += (z != 0).sum(0).cpu()
        factor = 1 if scale is None else scale.factor
        left = part - (sae.b_dec if scale is None else scale.back(sae.b_dec))
        start = 0
        for group, end in enumerate(sae.boundaries):
            left = left - z[:, start:end] @ sae.W_dec[start:end] * factor
            errors[group] += left.double().square().sum().cpu()
            start = end
    spread = (x - x.mean(0)).double().square().sum().cpu()
    explained = tuple((1 - errors / spread).tolist())
    return Quality(
        explained_variance=explained[-1],
        prefixes=explained,
        l0=float(fired.sum()) / len(x),
        dead_share=float((fired == 0).float().mean()),
        vectors=len(x),
    )


@torch.no_grad()
def unexplained(sae: SAE, patches: Tensor, codes: SparseCodes) -> list[float]:
    """The fraction of variance unexplained of each picture of `patches` [B, T, d].

    That is the squared error over the squared distance to the picture's own mean patch. codes: the
    activations of all B * T patches in a row.
    """
    x = patches.float()
    decoded = sae.decode_sparse(codes, x.shape[0] * x.shape[1], x.flatten(0, 1))
    error = (x - decoded.view_as(x)).square().sum(dim=(1, 2))
    spread = (x - x.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
    return (error / spread.clamp_min(torch.finfo(spread.dtype).tiny)).tolist()
