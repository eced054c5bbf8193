"""How often and how strongly each neuron fires, taken in one image at a time.

Every sum is exact, so neither the order of the images nor a split of them into parts changes the result.
Knows numpy only.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

from explorer.store.manifest import FVU_QUANTILES
from index.scores import Scores, highest

TOP = 20
_STEPS = np.float64(2**24)


def exact(values: np.ndarray) -> np.ndarray:
    """Values rounded to steps of 2**-24. Their float64 sums are exact, in any order, up to 2**29."""
    return np.rint(values.astype(np.float64) * _STEPS) / _STEPS


class NeuronFacts(NamedTuple):
    """Arrays [F]: share of images where a neuron fires and where it is in the top-20, mean score where it
    fires, highest score. FORMAT.md describes them."""

    fires: np.ndarray
    in_top: np.ndarray
    mean: np.ndarray
    peak: np.ndarray


class Statistics:
    """Counts and sums over the images so far. fires, in_top, total, peak [F]."""

    def __init__(self, n_neurons: int, top: int = TOP) -> None:
        self.n_images = 0
        self.fires = np.zeros(n_neurons, dtype=np.int64)
        self.in_top = np.zeros(n_neurons, dtype=np.int64)
        self.total = np.zeros(n_neurons, dtype=np.float64)
        self.peak = np.zeros(n_neurons, dtype=np.float32)
        self._top = top
        self._fvu = array("f")

    def take(self, scores: Scores, fvu: float) -> None:
        """Take in one image. fvu: the fraction of its variance that the SAE leaves unexplained."""
        neurons, values = scores
        self.n_images += 1
        self.fires[neurons] += 1
        self.in_top[highest(scores, self._top)] += 1
        self.total[neurons] += exact(values)
        self.peak[neurons] = np.maximum(self.peak[neurons], values)
        self._fvu.append(fvu)

    def facts(self) -> NeuronFacts:
        """Shares, means and peaks; all 0 before the first image."""
        images = max(self.n_images, 1)
        mean = self.total / np.maximum(self.fires, 1)
        return NeuronFacts(self.fires / images, self.in_top / images, mean, self.peak)

    def fvu_quantiles(self) -> dict[str, float]:
        """Quantiles of the unexplained variance, keyed as in the manifest."""
        values = np.frombuffer(self._fvu, dtype=np.float32).astype(np.float64)
        return {str(q): float(np.quantile(values, q)) for q in FVU_QUANTILES}
