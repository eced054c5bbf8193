"""From the sparse activations of one image to one score per neuron. Knows numpy only."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Pooling = Literal["mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("mean", "max")


class ImageCodes(NamedTuple):
    """The activations above 0 of one image, in any order.

    tokens [n] int64: the patch, 0 .. n_patches - 1, row by row; neurons [n] int64; values [n] float32.
    """

    tokens: np.ndarray
    neurons: np.ndarray
    values: np.ndarray
    n_patches: int


class Scores(NamedTuple):
    """The scores above 0 of one image: neurons [m] int64, ascending; values [m] float32."""

    neurons: np.ndarray
    values: np.ndarray


def pool(codes: ImageCodes, n_neurons: int, how: Pooling) -> Scores:
    """One score per neuron that fires: the mean over all patches (silent ones count as 0), or the maximum."""
    if how == "mean":
        total = np.bincount(codes.neurons, weights=codes.values, minlength=n_neurons)
        neurons = np.flatnonzero(total)
        values = (total[neurons] / codes.n_patches).astype(np.float32)
    else:
        peak = np.zeros(n_neurons, dtype=np.float32)
        np.maximum.at(peak, codes.neurons, codes.values)
        neurons = np.flatnonzero(peak)
        values = peak[neurons]
    if len(values) and not values.min() > 0:
        above = values > 0
        neurons, values = neurons[above], values[above]
    return Scores(neurons, values)


def highest(scores: Scores, k: int) -> np.ndarray:
    """The neurons of the k highest scores, in no order; of equal scores the lower neuron is taken first."""
    if len(scores.values) <= k:
        return scores.neurons
    least = np.partition(scores.values, len(scores.values) - k)[-k]
    above = scores.neurons[scores.values > least]
    equal = scores.neurons[scores.values == least]
    return np.concatenate([above, equal[: k - len(above)]])
