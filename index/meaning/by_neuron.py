"""The sample's image scores by neuron instead of by image. Knows numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from index.stage.sample import Sample

KEY_BITS = 64
_BITS = 31
_ALL = np.uint32((1 << _BITS) - 1)
_BLOCK = 1 << 20


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
    """Turn the sample round, with one sort of 64-bit numbers where they have room for all (else three).

    Beside the sample and the result it holds 8 bytes per score.
    """
    n_rows = len(sample.numbers)
    counts = np.bincount(sample.score_neurons, minlength=n_neurons)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    row_bits = max(1, n_rows.bit_length())
    if n_neurons.bit_length() + _BITS + row_bits > KEY_BITS:
        row = np.repeat(np.arange(n_rows, dtype=np.int32), np.diff(sample.score_starts))
        order = np.lexsort((row, -sample.score_values, sample.score_neurons))
        return ByNeuron(starts, row[order], sample.score_values[order], n_rows)
    key = _keys(sample, row_bits)
    key.sort()
    rows, values = np.empty(len(key), dtype=np.int32), np.empty(len(key), dtype=np.float32)
    for begin in range(0, len(key), _BLOCK):
        block = key[begin : begin + _BLOCK]
        rows[begin : begin + _BLOCK] = block & np.uint64((1 << row_bits) - 1)
        falling = (block >> np.uint64(row_bits)).astype(np.uint32) & _ALL
        values[begin : begin + _BLOCK] = (_ALL - falling).view(np.float32)
    return ByNeuron(starts, rows, values, n_rows)


def _keys(sample: Sample, row_bits: int) -> np.ndarray:
    """Numbers [n] uint64 that sort by neuron, falling value, row. A positive float's bits grow with it."""
    key = sample.score_neurons.astype(np.uint64)
    for begin in range(0, len(key), _BLOCK):
        block = slice(begin, min(begin + _BLOCK, len(key)))
        bits = sample.score_values[block].astype(np.float32).view(np.uint32)
        row = np.searchsorted(sample.score_starts, np.arange(block.start, block.stop), side="right") - 1
        key[block] <<= np.uint64(_BITS)
        key[block] |= _ALL - bits
        key[block] <<= np.uint64(row_bits)
        key[block] |= row.astype(np.uint64)
    return key


def runs(costs: np.ndarray, most: int) -> Iterator[slice]:
    """Cut a list with these costs into runs that cost at most so much together, or hold one entry alone."""
    ends = np.cumsum(costs)
    start = 0
    while start < len(costs):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, end)
        start = end
