"""The sample's image scores by neuron instead of by image. Knows numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from index.stage.sample import Sample

KEY_BITS = 64


class ByNeuron(NamedTuple):
    """The sample's scores above 0, neuron by neuron, the highest first, equal ones by row (image number).

    starts [F + 1] int64: neuron n's entries are starts[n] .. starts[n + 1]; rows [n] int32: row of the
    sample; values [n] float32; n_rows: images in the sample.
    """

    starts: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    n_rows: int


def by_neuron(sample: Sample, n_neurons: int) -> ByNeuron:
    """Turn the sample round, with one sort of 64-bit numbers where they have room for all (else three)."""
    n_rows = len(sample.numbers)
    row = np.repeat(np.arange(n_rows, dtype=np.uint64), np.diff(sample.score_starts))
    counts = np.bincount(sample.score_neurons, minlength=n_neurons)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    bits = np.ascontiguousarray(sample.score_values, dtype=np.float32).view(np.uint32)
    falling = np.uint32(0x7FFFFFFF) - bits  # a positive float's bits grow with it
    row_bits = max(1, int(n_rows).bit_length())
    if int(n_neurons).bit_length() + 31 + row_bits > KEY_BITS:
        order = np.lexsort((row, falling, sample.score_neurons))
        return ByNeuron(starts, row[order].astype(np.int32), sample.score_values[order], n_rows)
    shift = np.uint64(row_bits)
    row |= falling.astype(np.uint64) << shift
    row |= sample.score_neurons.astype(np.uint64) << (shift + np.uint64(31))
    row.sort()
    values = (np.uint32(0x7FFFFFFF) - (row >> shift).astype(np.uint32) % np.uint32(2**31)).view(np.float32)
    return ByNeuron(starts, (row & np.uint64((1 << row_bits) - 1)).astype(np.int32), values, n_rows)


def runs(costs: np.ndarray, most: int) -> Iterator[slice]:
    """Cut a list with these costs into runs that cost at most so much together, or hold one entry alone."""
    ends = np.cumsum(costs)
    start = 0
    while start < len(costs):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, end)
        start = end
