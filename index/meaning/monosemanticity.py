"""The monosemanticity score: how alike the images look on which a neuron fires.

The mean cosine of all pairs of sampled images, each pair weighted by the product of its activations, which
are stretched to 0 .. 1 per neuron (Pach et al., the sae-for-vlm code). With G = sum of a_n e_n over unit
embeddings e the sum over pairs has a closed form, (|G|^2 - sum of a_n^2) / 2. The embedding is the tower's
own mean patch vector. Knows numpy and torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from index.meaning.by_neuron import ByNeuron, runs

_CELLS = 1 << 21
"""Most float64 in a block of neurons: of their sums [n, d] and their activations together."""


class Monosemanticity(NamedTuple):
    """score [F] float64: NaN where fewer than two sampled images count, or all activate alike; images [F]
    int64: how many count (those above the neuron's least activation); baseline: the mean cosine of all pairs,
    NaN below two."""

    score: np.ndarray
    images: np.ndarray
    baseline: float


def monosemanticity(scores: ByNeuron, embeddings: np.ndarray) -> Monosemanticity:
    """The score of every neuron, from image scores (0 where it does not fire) and embeddings [s, d].

    An embedding of length 0 has the cosine 0 with all.
    """
    vectors = embeddings.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    units = torch.from_numpy(vectors)
    n_neurons = len(scores.starts) - 1
    score, images = np.full(n_neurons, np.nan), np.zeros(n_neurons, dtype=np.int64)
    for block in runs(np.diff(scores.starts) + units.shape[1], _CELLS):
        score[block], images[block] = _block(scores, units, block)
    return Monosemanticity(score, images, _baseline(units))


def _stretched(scores: ByNeuron, block: slice) -> np.ndarray:
    """The activations of a block of neurons, stretched for each: (a - least) / (most - least); 0 if constant.

    The least one is 0 unless the neuron fires on every image. float64.
    """
    edges = scores.starts[block.start : block.stop + 1]
    values, lengths = scores.values[edges[0] : edges[-1]].astype(np.float64), np.diff(edges)
    some = np.flatnonzero(lengths)
    most, least = np.zeros(len(lengths)), np.zeros(len(lengths))
    most[some] = scores.values[edges[some]]
    whole = some[lengths[some] == scores.n_rows]
    least[whole] = scores.values[edges[whole + 1] - 1]
    span = np.where(most > least, most - least, np.inf)
    return (values - np.repeat(least, lengths)) / np.repeat(span, lengths)


def _block(scores: ByNeuron, units: torch.Tensor, block: slice) -> tuple[np.ndarray, np.ndarray]:
    """Score and number of images of some neurons.

    The strongest image of each (weight 1) is kept apart: its pairs are cos(e_1, rest), so that the small
    difference of |G|^2 and the squares is taken only where it cannot cancel out the answer.
    """
    edges = scores.starts[block.start : block.stop + 1]
    lengths, entries = np.diff(edges), slice(edges[0], edges[-1])
    rows = torch.from_numpy(scores.rows[entries].astype(np.int64))
    owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    weight = torch.from_numpy(_stretched(scores, block))
    images = torch.zeros(len(lengths), dtype=torch.int64).index_add_(0, owner, (weight > 0).long())
    first = torch.from_numpy(edges[:-1] - edges[0])[lengths > 0]
    strongest = torch.zeros(len(lengths), units.shape[1], dtype=torch.float64)
    strongest[owner[first]] = units[rows[first]]
    weight[first] = 0.0
    total = functional.embedding_bag(
        rows, units, torch.from_numpy(edges[:-1] - edges[0]), mode="sum", per_sample_weights=weight
    )
    sums, squares, own = torch.zeros(3, len(lengths), dtype=torch.float64)
    sums.index_add_(0, owner, weight)
    squares.index_add_(0, owner, weight.square())
    own.index_add_(0, owner, weight.square() * units.square().sum(1)[rows])
    above = (strongest * total).sum(1) + (total.square().sum(1) - own) / 2
    below = sums + (sums.square() - squares) / 2
    known = images >= 2
    score = torch.where(known, above / torch.where(known, below, 1.0), torch.nan)
    return score.numpy(), images.numpy()


def _baseline(units: torch.Tensor) -> float:
    """The mean cosine of all pairs of images."""
    n = len(units)
    pairs = float(units.sum(0).square().sum() - units.square().sum())
    return pairs / (n * (n - 1)) if n > 1 else float("nan")
