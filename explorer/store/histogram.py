"""Histograms of activations in half-octave bins, the same for every neuron and every store. Numpy only.

64 bins: their lower edges are 2^e and 1.5 * 2^e for e = -16 ... 15. A float32's exponent and first
mantissa bit are its bin, so counting needs no logarithm and is exact at the edges.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.records import Histogram

BINS = 64
LOWEST_EXPONENT = -16
_SHIFT = 22  # leaves the sign, the exponent and one bit of the mantissa
_FIRST = int(np.float32(2.0**LOWEST_EXPONENT).view(np.int32)) >> _SHIFT


class Span(NamedTuple):
    """The values low <= v < high."""

    low: float
    high: float


def edges() -> np.ndarray:
    """The bins' edges [65] float64: bin b spans edges[b] <= v < edges[b + 1]."""
    steps = np.arange(BINS + 1)
    return np.ldexp(np.where(steps % 2, 1.5, 1.0), LOWEST_EXPONENT + steps // 2)


def half_octaves(values: np.ndarray) -> np.ndarray:
    """The half-octave of each float32 above 0, int32: one more per bin, without a lowest or a highest."""
    return np.asarray(values, dtype=np.float32).view(np.int32) >> _SHIFT


def bins_of(values: np.ndarray) -> np.ndarray:
    """The bin of each value, int32; values are finite and above 0.

    Smaller ones than the first edge count in bin 0, larger ones than the last in bin 63.
    """
    bins = np.asarray(half_octaves(values) - _FIRST)
    np.maximum(bins, 0, out=bins)
    return np.minimum(bins, BINS - 1, out=bins)


def span_of(value: float) -> Span:
    """The half-octave around a value above 0."""
    first = int(half_octaves(np.float32(value)))
    low, high = (np.array([first, first + 1], dtype=np.int32) << _SHIFT).view(np.float32).tolist()
    return Span(low, high)


def histogram(counts: np.ndarray) -> Histogram:
    """Counts [64] together with the edges that they mean."""
    return Histogram(edges(), np.asarray(counts, dtype=np.int64))


def pack(counts: np.ndarray) -> bytes:
    """The bytes that the store keeps for counts [64] of at least 0."""
    if counts.shape != (BINS,):
        raise ValueError(f"a histogram has {BINS} counts, not {counts.shape}")
    return zlib.compress(counts.astype("<u8").tobytes(), 1)


def unpack(blob: bytes) -> np.ndarray:
    """The counts [64] int64 behind the store's bytes. Raises StoreError when they are damaged."""
    try:
        counts = np.frombuffer(zlib.decompress(blob), dtype="<u8")
    except (zlib.error, ValueError) as error:
        raise StoreError(f"a histogram of this store is damaged ({error}); build the store again") from error
    if counts.size != BINS:
        raise StoreError(
            f"a histogram of this store has {counts.size} bins, not {BINS}; build the store again"
        )
    return counts.astype(np.int64)
