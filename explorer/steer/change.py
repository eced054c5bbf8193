"""How much noise changes which neurons are strongest: the neuron-change ratio of CNS.

    Delta_K = 1 - |S_K(v) & S_K(v')| / K        (arXiv 2602.00621, eq 3)

S_K are the K largest activations of a picture and of its noisy self; of equal ones the lower neuron comes
first. When fewer than K neurons fire, the equation leaves open who the others are. Here they are the first
of the silent neurons, so that nothing changes when nothing changes; `active_only` counts those that fire
alone and divides by their number; or rank pre-activations after ReLU, as `change_ratio` takes any rows.
Activations below 0, which a signed SAE has, count as silent in what takes sparse activations here.
Knows activations; nothing of vectors, models or stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.sae import SparseCodes
from explorer.steer.checks import whole
from explorer.steer.contrast import kept

K = 20

Among = Tensor | Sequence[int] | None
"""A set of neurons: a boolean tensor [F], or their numbers. None: all of them."""


def top_mask(z: Tensor, k: int = K, active_only: bool = False) -> Tensor:
    """Which neurons are among the k largest of each row of z [..., F]: boolean, in the same shape.

    Of equal ones the lower neuron comes first. active_only: only those above 0. Raises EditError when
    there are no k neurons.
    """
    k = whole("k", k, 1, z.shape[-1])
    least = z.topk(k, dim=-1).values[..., -1:]
    above, level = z > least, z == least
    room = k - above.sum(-1, keepdim=True)
    top = above | (level & (level.cumsum(-1) <= room))
    return top & (z > 0) if active_only else top


def change_ratio(
    clean: Tensor, noisy: Tensor, k: int = K, active_only: bool = False, *, among: Among = None
) -> Tensor:
    """The share of the k strongest neurons that noise replaced: [...] of the rows [..., F].

    active_only: of those that fire, when fewer than k do; 0 where none does. among: instead the share of
    the k strongest within this set that left the k strongest; NaN where none of them is in the set.
    Raises EditError for rows of different shapes, no k neurons, or a neuron that does not exist.
    """
    if clean.shape != noisy.shape:
        raise EditError(f"activations {list(clean.shape)} and {list(noisy.shape)} are not of one picture")
    before, after = top_mask(clean, k, active_only), top_mask(noisy, k, active_only)
    if among is not None:
        before = before & _mask(among, clean.shape[-1]).to(before.device)
    stayed, were = (before & after).sum(-1).double(), before.sum(-1).double()
    if among is not None:
        return (were - stayed) / were
    return (were - stayed) / were.clamp_min(1)


def pooled(
    codes: SparseCodes, n_tokens: int, n_neurons: int, pool: Literal["mean", "max"] = "mean"
) -> Tensor:
    """Image-level activations [n_neurons] of a picture of n_tokens patches: their mean, or the largest.

    Raises EditError for another pool.
    """
    codes = kept(codes, codes.values > 0)
    dense = torch.zeros(n_neurons, dtype=torch.float64, device=codes.values.device)
    match pool:
        case "mean":
            return dense.index_add_(0, codes.neurons, codes.values.double()) / n_tokens
        case "max":
            return dense.scatter_reduce_(0, codes.neurons, codes.values.double(), "amax")
    raise EditError(f"unknown pool {pool!r}; use 'mean' or 'max'")


def image_level(
    clean: SparseCodes,
    noisy: SparseCodes,
    n_tokens: int,
    n_neurons: int,
    k: int = K,
    active_only: bool = False,
    *,
    pool: Literal["mean", "max"] = "mean",
    among: Among = None,
) -> float:
    """The change ratio of a picture's image-level activations; arguments as of `change_ratio`."""
    rows = [pooled(codes, n_tokens, n_neurons, pool) for codes in (clean, noisy)]
    return float(change_ratio(*rows, k, active_only, among=among))


def patch_level(
    clean: SparseCodes,
    noisy: SparseCodes,
    n_tokens: int,
    n_neurons: int,
    k: int = K,
    active_only: bool = False,
    *,
    among: Among = None,
) -> Tensor:
    """The change ratio of every patch, [n_tokens] float64; arguments as of `change_ratio`.

    The paper's figure is their mean (`nanmean` with `among`). Nothing dense is as large as [T, F].
    """
    k = whole("k", k, 1, n_neurons)
    before, after = (_top_keys(codes, n_tokens, n_neurons, k, active_only) for codes in (clean, noisy))
    if among is not None:
        before = before[_mask(among, n_neurons).to(before.device)[before % n_neurons]]
    were = torch.bincount(before // n_neurons, minlength=n_tokens).double()
    left = before[~torch.isin(before, after, assume_unique=True)]
    gone = torch.bincount(left // n_neurons, minlength=n_tokens).double()
    return gone / (were if among is not None else were.clamp_min(1))


def _top_keys(codes: SparseCodes, n_tokens: int, n_neurons: int, k: int, active_only: bool) -> Tensor:
    """The k strongest neurons of every patch, as numbers token * n_neurons + neuron."""
    codes = kept(codes, codes.values > 0)
    ranked = codes.values.argsort(descending=True, stable=True)
    ranked = ranked[codes.tokens[ranked].argsort(stable=True)]
    fire = torch.bincount(codes.tokens, minlength=n_tokens)
    starts = fire.cumsum(0) - fire
    tokens = codes.tokens[ranked]
    rank = torch.arange(len(ranked), device=tokens.device) - starts[tokens]
    top = (tokens * n_neurons + codes.neurons[ranked])[rank < k]
    if active_only:
        return top
    silent = torch.ones(n_tokens, k, dtype=torch.bool, device=tokens.device)
    low = codes.neurons < k
    silent[codes.tokens[low], codes.neurons[low]] = False
    filling, neurons = (silent & (silent.cumsum(1) <= k - fire[:, None])).nonzero(as_tuple=True)
    return torch.cat([top, filling * n_neurons + neurons])


def _mask(among: Tensor | Sequence[int], n_neurons: int) -> Tensor:
    """A set of neurons as a boolean tensor [n_neurons]."""
    if isinstance(among, Tensor) and among.dtype == torch.bool:
        if among.shape != (n_neurons,):
            raise EditError(f"a set marked in {list(among.shape)} does not fit {n_neurons} neurons")
        return among
    numbers = [int(neuron) for neuron in among]
    wrong = [neuron for neuron in numbers if not 0 <= neuron < n_neurons]
    if wrong:
        raise EditError(f"there is no neuron {wrong[0]}: this SAE has {n_neurons}, counted from 0")
    mask = torch.zeros(n_neurons, dtype=torch.bool)
    mask[torch.tensor(numbers, dtype=torch.int64)] = True
    return mask
