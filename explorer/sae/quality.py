"""How well an SAE describes held-out vectors. Knows nothing of how it was trained."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.model import CHUNK, SAE, SparseCodes
from explorer.sae.team import ALONE, Team


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


class Tally:
    """Measures an SAE on vectors that come one part after another, by sums; several processes may share them.

    chunk: most activations that exist densely at once.
    """

    def __init__(self, sae: SAE, chunk: int = CHUNK) -> None:
        self._sae, self._rows = sae, max(1, chunk // sae.n_neurons)
        sums = partial(torch.zeros, dtype=torch.float64, device=sae.b_dec.device)
        self._errors, self._squares, self._count = sums(len(sae.group_sizes)), sums(()), sums(())
        self._sum, self._fired = sums(sae.width), sums(sae.n_neurons)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Take in the vectors x [n, d]."""
        sae = self._sae
        for part in x.to(sae.b_dec.device, torch.float32).split(self._rows):
            z, scale = sae.encode(part), sae.scale(part)
            self._fired += (z != 0).sum(0)
            factor = 1 if scale is None else scale.factor
            left = part - (sae.b_dec if scale is None else scale.back(sae.b_dec))
            start = 0
            for group, end in enumerate(sae.boundaries):
                left = left - z[:, start:end] @ sae.W_dec[start:end] * factor
                self._errors[group] += left.double().square().sum()
                start = end
            exact = part.double()
            self._sum += exact.sum(0)
            self._squares += exact.square().sum()
            self._count += len(part)

    def quality(self, team: Team = ALONE) -> Quality:
        """The figures of all vectors so far, of all processes of the team. Raises SAEError for none."""
        sums = (self._errors, self._squares, self._count, self._sum, self._fired)
        errors, squares, count, total, fired = (team.total(part) for part in sums)
        if not count:
            raise SAEError("there are no vectors to measure this SAE on")
        spread = squares - total.square().sum() / count
        explained = tuple((1 - errors / spread).tolist())
        return Quality(
            explained_variance=explained[-1],
            prefixes=explained,
            l0=float(fired.sum() / count),
            dead_share=float((fired == 0).double().mean()),
            vectors=int(count),
        )


def evaluate(sae: SAE, x: Tensor, chunk: int = CHUNK) -> Quality:
    """Measure the SAE on the vectors x [n, d] with its inference rule, in pieces of `chunk` values."""
    tally = Tally(sae, chunk)
    tally.add(x)
    return tally.quality()


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
