"""The places of a state as rows of the store: exemplars, images of lower intervals, and centroids.

Works in blocks of neurons, so that memory stays bounded. Knows states and rows; nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from explorer.store.entropy import label_entropies
from explorer.store.maps import pack
from explorer.store.rows import ExemplarRow, IntervalRow
from index.stage.codes import spans
from index.stage.intervals import INTERVALS, below_peak
from index.stage.places import Places
from index.stage.state import BuildState

_BLOCK = 1 << 13


def shown_images(state: BuildState, peaks: np.ndarray) -> np.ndarray:
    """The numbers of the images that the store shows, ascending, int64. peaks [F]: highest scores.

    Not all that hold a place: an interval may lie too far below a peak that came later.
    """
    table = state.intervals
    inside = below_peak(table, peaks).reshape(table.key.shape) >= 0
    return np.union1d(state.top.holders(), table.numbers[table.record[inside]].astype(np.int64))


def exemplar_rows(state: BuildState, holders: np.ndarray) -> Iterator[ExemplarRow]:
    """One row per place, by neuron and rank. holders: as `shown_images` gives them."""
    at = np.nonzero(state.top.taken)
    for block in _blocks(state.top, *at, holders):
        yield from map(ExemplarRow, *block)


def interval_rows(state: BuildState, holders: np.ndarray, peaks: np.ndarray) -> Iterator[IntervalRow]:
    """One row per image of a lower interval, by neuron and interval; those among the exemplars are left out.

    peaks [F] float32: the highest score of each neuron.
    """
    table, top = state.intervals, state.top
    below = below_peak(table, peaks)
    number, held = table.number.reshape(below.shape), top.number
    for begin in range(0, len(below), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        again = (number[rows, :, None] == held[rows, None, :]).any(axis=2)
        neuron, slot = np.nonzero((below[rows] >= 0) & ~again)
        neuron += begin
        order = np.lexsort((below[neuron, slot], neuron))
        neuron, slot = neuron[order], slot[order]
        interval = below[neuron, slot]
        at = neuron * INTERVALS + slot, np.zeros(len(neuron), dtype=np.int64)
        start = 0
        for block in _blocks(table, *at, holders):
            n = len(block.row)
            mine = slice(start, start + n)
            yield from map(IntervalRow, neuron[mine].tolist(), interval[mine].tolist(), *block[2:])
            start += n


class _Block(NamedTuple):
    """Columns of some places, as plain Python values."""

    row: list[int]
    place: list[int]
    image: list[int]
    score: list[float]
    scale: list[float]
    patch_map: list[bytes]


def _blocks(table: Places, row: np.ndarray, place: np.ndarray, holders: np.ndarray) -> Iterator[_Block]:
    """The places (row, place) [n] of a table, some thousand at a time."""
    for begin in range(0, len(row), _BLOCK):
        at = row[begin : begin + _BLOCK], place[begin : begin + _BLOCK]
        record = table.record[at]
        image = np.searchsorted(holders, table.numbers[record].astype(np.int64))
        columns = (*at, image, table.scores[record], table.scales[record])
        maps = [pack(steps) for steps in map_steps(table, record)]
        yield _Block(*(column.tolist() for column in columns), maps)


def image_places(table: Places, holders: np.ndarray) -> np.ndarray:
    """The store's image at each place, [F, P] int64, -1 where nobody is."""
    return np.where(table.taken, np.searchsorted(holders, table.number), -1)


def exemplar_entropies(state: BuildState, held: np.ndarray, labels: Sequence[Sequence[str]]) -> np.ndarray:
    """The label entropy of each neuron [F], NaN where unknown.

    held [F, P]: as `image_places` gives them; labels: what each of the store's images shows.
    """
    neuron, place = np.nonzero(held >= 0)
    score = state.top.scores[state.top.record[neuron, place]]
    return label_entropies(neuron, held[neuron, place], score, labels, len(held))


def map_steps(table: Places, record: np.ndarray) -> np.ndarray:
    """The patch maps of some records [n] in steps of their scales, [n, n_patches] uint8."""
    lengths = table.lengths[record].astype(np.int64)
    data = table.arena.read(table.starts[record], lengths)
    steps = np.zeros((len(record), table.n_patches), dtype=np.uint8)
    starts = np.cumsum(lengths) - lengths
    dense = np.flatnonzero(lengths == table.n_patches)
    steps[dense] = data[starts[dense][:, None] + np.arange(table.n_patches)]
    thin = np.flatnonzero(lengths != table.n_patches)
    owner = np.repeat(thin, lengths[thin] // 3)
    triples = data[spans(starts[thin], lengths[thin])].reshape(-1, 3).astype(np.int64)
    steps[owner, triples[:, 0] | triples[:, 1] << 8] = triples[:, 2]
    return steps


def centroids(table: Places) -> np.ndarray:
    """The mean of the unit sketches of each neuron's exemplars, at unit length, [F, s]; zeros when dead."""
    found = np.zeros((len(table.key), table.side), dtype=np.float32)
    for begin in range(0, len(found), _BLOCK // 4):
        rows = slice(begin, begin + _BLOCK // 4)
        held = table.taken[rows]
        sketches = np.zeros((*held.shape, table.side), dtype=np.float64)
        sketches[held] = _unit(table.sketches[table.record[rows][held]].astype(np.float64))
        found[rows] = _unit(sketches.sum(axis=1))
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, s] at unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
