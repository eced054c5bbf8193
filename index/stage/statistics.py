"""How often and how strongly each neuron fires, taken in one chunk at a time.

Every sum is exact, so neither the order of the chunks nor a split of them into parts changes the result.
Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from explorer.store.histogram import BINS, bins_of
from explorer.store.manifest import FVU_QUANTILES
from index.stage.codes import Groups, Pools, ranks_in_runs, run_starts, spans
from index.stage.sums import ExactSum

TOP = 20
_FVU_PER_OCTAVE, _FVU_LOWEST, _FVU_BINS = 128, -12, 128 * 16


class NeuronFacts(NamedTuple):
    """Arrays [F], 0 where there is nothing; FORMAT.md describes them.

    fires, patch_fires, in_top: shares of images where the neuron fires, of patches, and of images where
    it is in the image-level top-20; mean, variance, peak: of its image scores where it fires;
    active_mean, active_variance, active_peak: of its activations on patches where it fires;
    score_histogram, active_histogram [F, 64] int: of scores, and of activations on the patches of the
    detailed images.
    """

    fires: np.ndarray
    patch_fires: np.ndarray
    in_top: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    peak: np.ndarray
    active_mean: np.ndarray
    active_variance: np.ndarray
    active_peak: np.ndarray
    score_histogram: np.ndarray
    active_histogram: np.ndarray


_COUNTS = ("images", "fires", "patch_fires", "in_top", "score_histogram", "active_histogram", "fvu")
_PEAKS = ("peak", "active_peak")
_SUMS = ("score_total", "score_square", "active_total", "active_square")


class Statistics:
    """Counts, sums, peaks and histograms of F neurons over the images so far."""

    def __init__(self, n_neurons: int, n_patches: int, top: int = TOP) -> None:
        self._n_patches, self._highest = n_patches, Highest(top)
        self.images = np.zeros((), dtype=np.int64)
        self.fires = np.zeros(n_neurons, dtype=np.int64)
        self.patch_fires = np.zeros(n_neurons, dtype=np.int64)
        self.in_top = np.zeros(n_neurons, dtype=np.int64)
        self.score_histogram = np.zeros((n_neurons, BINS), dtype=np.int32)
        self.active_histogram = np.zeros((n_neurons, BINS), dtype=np.int64)
        self.fvu = np.zeros(_FVU_BINS, dtype=np.int64)
        self.peak = np.zeros(n_neurons, dtype=np.float32)
        self.active_peak = np.zeros(n_neurons, dtype=np.float32)
        self.score_total = ExactSum(n_neurons)
        self.score_square = ExactSum(n_neurons)
        self.active_total = ExactSum(n_neurons)
        self.active_square = ExactSum(n_neurons)

    @property
    def n_images(self) -> int:
        """How many images were taken in."""
        return int(self.images)

    def take(self, pools: Pools, groups: Groups, fvu: np.ndarray, detailed: np.ndarray) -> None:
        """Take in a chunk and all its groups.

        fvu [b]: the share of each image's variance that the SAE leaves unexplained; detailed: places of the
        images whose activations are counted in `active_histogram`.
        """
        self.images += len(fvu)
        place = np.floor((np.log2(np.maximum(fvu, 2.0**-40)) - _FVU_LOWEST) * _FVU_PER_OCTAVE)
        self.fvu += np.bincount(np.clip(place, 0, _FVU_BINS - 1).astype(np.int64), minlength=_FVU_BINS)
        self.fires += np.bincount(groups.neuron, minlength=len(self.fires))
        self.patch_fires += np.bincount(pools.owner, minlength=len(self.fires))
        pooled = self._by_neuron(groups.neuron, groups.pooled)
        self.score_total.add(slice(None), pooled / pools.divisor)
        squares = self._by_neuron(groups.neuron, groups.pooled * groups.pooled)
        self.score_square.add(slice(None), squares / pools.divisor**2)
        if pools.totals is not pools.table:
            pooled = self._by_neuron(groups.neuron, pools.totals[groups.cell])
        self.active_total.add(slice(None), pooled)
        squares = self._by_neuron(pools.owner, np.square(pools.value, dtype=np.float64))
        self.active_square.add(slice(None), squares)
        self._raise(self.peak, groups.neuron, groups.score)
        self._raise(self.active_peak, pools.owner, pools.value)
        _count(self.score_histogram, groups.neuron, groups.score)
        entries = spans(pools.edges[detailed], pools.edges[detailed + 1] - pools.edges[detailed])
        _count(self.active_histogram, pools.owner[entries], pools.value[entries])
        highest = groups.neuron[self._highest(groups, len(fvu))]
        self.in_top += np.bincount(highest, minlength=len(self.fires))

    def _by_neuron(self, owner: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """Sums [F] of the terms of each owner. On one thread and in order, so the same every time."""
        sums = torch.zeros(len(self.fires), dtype=torch.float64)
        return sums.scatter_add_(0, torch.from_numpy(owner), torch.from_numpy(terms)).numpy()

    @staticmethod
    def _raise(peaks: np.ndarray, owner: np.ndarray, values: np.ndarray) -> None:
        """Raise peaks [F] to the values of their owners."""
        higher = np.flatnonzero(values > peaks[owner])
        np.maximum.at(peaks, owner[higher], values[higher])

    def facts(self) -> NeuronFacts:
        """Shares, moments, peaks and histograms; all 0 before the first image."""
        images = max(self.n_images, 1)
        mean, variance = _moments(self.score_total, self.score_square, self.fires)
        active_mean, active_variance = _moments(self.active_total, self.active_square, self.patch_fires)
        return NeuronFacts(
            self.fires / images,
            self.patch_fires / (images * self._n_patches),
            self.in_top / images,
            mean,
            variance,
            self.peak,
            active_mean,
            active_variance,
            self.active_peak,
            self.score_histogram,
            self.active_histogram,
        )

    def fvu_quantiles(self) -> dict[str, float]:
        """Quantiles of the unexplained variance, keyed as in the manifest; rounded up by at most 0.6 %."""
        reached = np.cumsum(self.fvu)
        edges = 2.0 ** (_FVU_LOWEST + np.arange(1, _FVU_BINS + 1) / _FVU_PER_OCTAVE)
        places = (int(np.searchsorted(reached, q * max(self.n_images, 1))) for q in FVU_QUANTILES)
        return {
            str(q): float(edges[min(p, _FVU_BINS - 1)]) for q, p in zip(FVU_QUANTILES, places, strict=True)
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        found = {f"statistics.{name}": getattr(self, name) for name in _COUNTS + _PEAKS}
        for name in _SUMS:
            found |= getattr(self, name).arrays(f"statistics.{name}")
        return found

    def absorb(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add the statistics of other images, given as their arrays; to empty ones this restores them."""
        for name in _COUNTS:
            counts = getattr(self, name)
            counts += arrays[f"statistics.{name}"]
        for name in _PEAKS:
            peaks = getattr(self, name)
            np.maximum(peaks, arrays[f"statistics.{name}"], out=peaks)
        for name in _SUMS:
            getattr(self, name).absorb(f"statistics.{name}", arrays)


class Highest:
    """The groups with the k highest scores of each image; remembers where the cut lay to find it sooner."""

    def __init__(self, k: int = TOP) -> None:
        self._k, self._guess = k, np.float32(0)

    def __call__(self, groups: Groups, n_images: int) -> np.ndarray:
        """Places [<= k * b] of the groups, in no order; of equal scores the lower neuron is taken first."""
        near = np.flatnonzero(groups.score >= self._guess)
        counts = np.bincount(groups.image[near], minlength=n_images)
        if counts.min(initial=self._k) < self._k and self._guess:
            near = np.arange(len(groups.score))
        near = near[np.lexsort((groups.neuron[near], -groups.score[near], groups.image[near]))]
        rank = ranks_in_runs(run_starts(groups.image[near]), len(near))
        last = groups.score[near[rank == self._k - 1]]
        self._guess = last.min() * np.float32(0.9) if len(last) == n_images else np.float32(0)
        return near[rank < self._k]


def _count(histogram: np.ndarray, owner: np.ndarray, values: np.ndarray) -> None:
    """Count values in the rows [F, 64] of their owners."""
    cells = owner.astype(np.int32)
    cells *= BINS
    cells += bins_of(values)
    flat = torch.from_numpy(histogram.reshape(-1))
    flat.scatter_add_(0, torch.from_numpy(cells).long(), torch.ones(len(cells), dtype=flat.dtype))


def _moments(total: ExactSum, square: ExactSum, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (of the whole population) from sums; 0 where nothing was counted."""
    many = np.maximum(counts, 1)
    mean = total.values() / many
    return mean, np.maximum(square.values() / many - mean * mean, 0.0)
