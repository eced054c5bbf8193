"""Which neurons fire together on the same patch, from a few patches of each sampled image.

Pairs are counted by sorting them, in one array of bounded size. How close two neurons are is the cosine of
their patches, n_ab / sqrt(n_a n_b), so that a neuron that always fires is nobody's partner for that alone.
Knows numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from index.stage.codes import spans
from index.stage.sample import PATCHES, Sample

PER_NEURON = 8
"""How many partners the store keeps for a neuron."""
LEAST_TOGETHER = 3
"""Patches on which two neurons must fire together to be partners."""
MOST_PAIRS = 1 << 24
"""Pairs that are counted at most, 128 MiB of them; 4096 images x 16 patches x 190 pairs fit."""
_BLOCK = 1 << 20
_NEURONS = 1 << 13


class Partners(NamedTuple):
    """The partners of all neurons, by neuron and rank: columns of one length.

    neuron, rank, partner, together (patches where both fire), fires (patches where the neuron does) int64;
    cosine float64. Only the patches that were looked at count, for both alike.
    """

    neuron: np.ndarray
    rank: np.ndarray
    partner: np.ndarray
    together: np.ndarray
    fires: np.ndarray
    cosine: np.ndarray


class _Pairs(NamedTuple):
    """Pairs of neurons low < high that fire together, and on how many patches."""

    low: np.ndarray
    high: np.ndarray
    together: np.ndarray


def partners(sample: Sample, n_neurons: int, most_pairs: int = MOST_PAIRS) -> Partners:
    """Up to eight partners per neuron, the closest first; of equally close ones the lower neuron goes first.

    Where the sample holds more pairs than `most_pairs`, fewer patches of each image are looked at, and at
    last fewer images, always the same ones.
    """
    taken = _taken(sample, most_pairs)
    lengths = np.diff(sample.patch_starts)[taken]
    fires = np.zeros(n_neurons, dtype=np.int64)
    keys = np.empty(int((lengths * (lengths - 1) // 2).sum()), dtype=np.int64)
    done = 0
    for begin in range(0, len(taken), max(1, _BLOCK // PATCHES)):
        block = taken[begin : begin + max(1, _BLOCK // PATCHES)]
        done = _collect(sample, block, fires, keys, done)
    keys.sort()
    return _closest(_counted(keys, n_neurons), fires)


def _taken(sample: Sample, most_pairs: int) -> np.ndarray:
    """The places (image x 16 + patch) of the patches to look at, ascending.

    The first patch of every image, then the second of every image, and so on; images in an order that spreads
    evenly over the sample, as long as their pairs fit.
    """
    lengths = np.diff(sample.patch_starts)
    pairs = lengths * (lengths - 1) // 2
    if pairs.sum() <= most_pairs:
        return np.arange(len(lengths))
    image, patch = np.divmod(np.arange(len(lengths)), PATCHES)
    spread = image.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    order = np.lexsort((spread, patch))
    return np.sort(order[np.cumsum(pairs[order]) <= most_pairs])


def _collect(sample: Sample, block: np.ndarray, fires: np.ndarray, keys: np.ndarray, done: int) -> int:
    """Count who fires on some patches, and write down their pairs after the first `done`; returns the new
    number."""
    lengths = np.diff(sample.patch_starts)[block]
    neurons = sample.patch_neurons[spans(sample.patch_starts[block], lengths)].astype(np.int64)
    fires += np.bincount(neurons, minlength=len(fires))
    after = spans(np.zeros(len(block), np.int64), lengths)  # how many of its patch come before each entry
    after = np.repeat(lengths, lengths) - 1 - after
    ends = np.cumsum(after)
    start = 0
    while start < len(neurons):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        some = np.arange(start, end)
        low = np.repeat(neurons[start:end], after[start:end])
        high = neurons[spans(some + 1, after[start:end])]
        keys[done : done + len(low)] = low * len(fires) + high
        done, start = done + len(low), end
    return done


def _counted(keys: np.ndarray, n_neurons: int) -> _Pairs:
    """The pairs that come often enough among sorted keys. Besides masks it makes nothing as long as these."""
    ahead = LEAST_TOGETHER - 1
    if len(keys) <= ahead:
        keys = keys[:0]
    first = np.ones(max(len(keys) - ahead, 0), dtype=bool)
    first[1:] = keys[1 : len(first)] != keys[: len(first) - 1] if len(first) else False
    first &= keys[ahead:] == keys[: len(first)]
    found = keys[first.nonzero()[0]]
    together = np.searchsorted(keys, found, side="right") - np.searchsorted(keys, found)
    low, high = np.divmod(found, n_neurons)
    return _Pairs(low, high, together)


def _closest(pairs: _Pairs, fires: np.ndarray) -> Partners:
    """The closest partners of every neuron, a block of neurons at a time."""
    cosine = pairs.together / np.sqrt(fires[pairs.low] * fires[pairs.high])
    by_high = np.argsort(pairs.high, kind="stable")
    columns = [(np.zeros(0, np.int64),) * 5 + (np.zeros(0),)]
    for begin in range(0, len(fires), _NEURONS):
        edges = (begin, begin + _NEURONS)
        ours = np.arange(*np.searchsorted(pairs.low, edges))
        theirs = by_high[slice(*np.searchsorted(pairs.high, edges, sorter=by_high))]
        both = np.concatenate([ours, theirs])
        neuron = np.concatenate([pairs.low[ours], pairs.high[theirs]])
        partner = np.concatenate([pairs.high[ours], pairs.low[theirs]])
        order = np.lexsort((partner, -cosine[both], neuron))
        both, neuron, partner = both[order], neuron[order], partner[order]
        rank = np.arange(len(neuron)) - np.searchsorted(neuron, neuron)
        best = rank < PER_NEURON
        both = both[best]
        neuron, together = neuron[best], pairs.together[both]
        columns.append((neuron, rank[best], partner[best], together, fires[neuron], cosine[both]))
    return Partners(*map(np.concatenate, zip(*columns, strict=True)))
