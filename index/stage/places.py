"""A table of places that images hold, best first, with the patch map of each.

Which image is better is one 64-bit key, so the result does not depend on the order in which images come.
Knows numpy and the store's way to quantise maps; nothing of models, pictures or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from explorer.store.maps import scale_of, steps_of
from index.stage.arena import Arena
from index.stage.codes import Groups, Runs, ranks_in_runs, run_starts, spans

EMPTY = np.uint64(2**64 - 1)
MOST_IMAGES = 2**31 - 2
_BLOCK = 1 << 18
_MERGED_AT_ONCE = 1 << 22
_RECORDED = ("numbers", "scores", "scales", "lengths")


class Bids(NamedTuple):
    """Groups that ask for places: row [w] int64 of the table; key [w] uint64, smaller is better,
    different within a row; number [w] uint32 of the image; group [w] int64: which of the `Runs`
    it is."""

    row: np.ndarray
    key: np.ndarray
    number: np.ndarray
    group: np.ndarray


class Choice(NamedTuple):
    """Where the places of a joined table come from, [R, P]: part uint32, column uint8 of its row there."""

    part: np.ndarray
    column: np.ndarray


Draw = Callable[[np.ndarray], np.ndarray]
"""Sketches [w, side] int8 of some of the runs, [w]."""


class Places:
    """`rows` x `places` images: key [R, P] uint64, best first, EMPTY where nobody is.

    What belongs to a place lies in a record, which stays where it is when places shift: record [R, P]
    int32; of the records, number uint32 of the image, score and scale float32, start and length of the
    map's bytes, and sketches [R * P, side] int8 where side > 0. A map is one step per patch when its
    length is n_patches, else (patch low, patch high, step) for each patch where the neuron fires.
    """

    def __init__(self, rows: int, places: int, n_patches: int, side: int = 0) -> None:
        records = rows * places
        self.n_patches, self.side = n_patches, side
        self.key = np.full((rows, places), EMPTY)
        self.record = np.zeros((rows, places), dtype=np.int32)
        self.numbers = np.zeros(records, dtype=np.uint32)
        self.scores = np.zeros(records, dtype=np.float32)
        self.scales = np.zeros(records, dtype=np.float32)
        self.starts = np.zeros(records, dtype=np.int64)
        self.lengths = np.zeros(records, dtype=np.int32)
        self.sketches = np.empty((records if side else 0, side), dtype=np.int8)
        self.arena = Arena(records * n_patches)
        self._last = np.full(rows, EMPTY)
        self._free = np.arange(records, dtype=np.int32)[::-1].copy()
        self._n_free = records

    @property
    def taken(self) -> np.ndarray:
        """[R, P] bool: where somebody is."""
        return self.key != EMPTY

    @property
    def number(self) -> np.ndarray:
        """[R, P] int64: the image at each place, -1 where nobody is."""
        return np.where(self.taken, self.numbers[self.record].astype(np.int64), -1)

    @property
    def score(self) -> np.ndarray:
        """[R, P] float32: its score, 0 where nobody is."""
        return np.where(self.taken, self.scores[self.record], np.float32(0))

    @property
    def scale(self) -> np.ndarray:
        """[R, P] float32: what a step of its map is worth, 0 where nobody is."""
        return np.where(self.taken, self.scales[self.record], np.float32(0))

    @property
    def least(self) -> np.ndarray:
        """[R] float32: the last place's score, of a table with keys by score; 0 where there is room."""
        return (~(self._last >> np.uint64(32)).astype(np.uint32)).view(np.float32)

    def wanted(self, row: np.ndarray, key: np.ndarray, number: np.ndarray) -> Bids:
        """Those of these bids that beat the last place of their row; their `group` counts the columns."""
        group = np.flatnonzero(key < self._last[row])
        return Bids(row[group], key[group], number[group].astype(np.uint32), group)

    def take(self, bids: Bids, runs: Runs, draw: Draw | None = None) -> np.ndarray:
        """Give places to the bids that deserve one; returns which did, as indices into `bids`.

        draw makes their sketches; it is needed when the table keeps them (side > 0).
        """
        order = np.lexsort((bids.key, bids.row))
        bids = Bids(*(column[order] for column in bids))
        rank = ranks_in_runs(run_starts(bids.row), len(order))
        keep = np.flatnonzero(rank < self.key.shape[1])
        bids, rank, order = Bids(*(column[keep] for column in bids)), rank[keep], order[keep]
        won = [order[:0]]
        for begin, end in _blocks(run_starts(bids.row), len(keep)):
            block = Bids(*(column[begin:end] for column in bids))
            won.append(order[begin + self._insert(block, rank[begin:end], runs, draw)])
        return np.concatenate(won)

    def _insert(self, bids: Bids, rank: np.ndarray, runs: Runs, draw: Draw | None) -> np.ndarray:
        """Insert bids sorted by (row, key), whole rows of them; returns which of them won."""
        n_places = self.key.shape[1]
        first = run_starts(bids.row)
        rows = bids.row[first]
        place = (self.key[bids.row] < bids.key[:, None]).sum(axis=1) + rank
        old_key, old_record = self.key[rows], self.record[rows]
        ahead = np.add.reduceat(bids.key[:, None] < self.key[bids.row], first, axis=0, dtype=np.int64)
        goal = np.arange(n_places) + ahead
        held = old_key != EMPTY
        self._release(old_record[held & (goal >= n_places)])
        at, column = np.nonzero(held & (goal < n_places))
        goal = goal[at, column]
        won = np.flatnonzero(place < n_places)
        new_key, new_record = np.full_like(old_key, EMPTY), np.zeros_like(old_record)
        new_key[at, goal], new_record[at, goal] = old_key[at, column], old_record[at, column]
        self.key[rows], self.record[rows] = new_key, new_record
        here = bids.row[won], place[won]
        self.key[here] = bids.key[won]
        self.record[here] = self._new_records(Bids(*(column[won] for column in bids)), runs, draw)
        self._last[rows] = self.key[rows, -1]
        return won

    def _release(self, records: np.ndarray) -> None:
        """Note that these records are not wanted any more."""
        self.arena.live -= int(self.lengths[records].sum())
        self.lengths[records] = 0
        self._free[self._n_free : self._n_free + len(records)] = records
        self._n_free += len(records)

    def _new_records(self, bids: Bids, runs: Runs, draw: Draw | None) -> np.ndarray:
        """Write the records of bids that won; returns where they are, int32."""
        records = self._fresh(len(bids.row))
        lengths = map_lengths(runs.ends[bids.group] - runs.starts[bids.group], self.n_patches)
        if self.arena.crowded(int(lengths.sum())):
            self._pack()
        data, scales = map_bytes(runs, bids.group, lengths, self.n_patches)
        self.numbers[records], self.scores[records] = bids.number, runs.score[bids.group]
        self.scales[records], self.lengths[records] = scales, lengths
        self.starts[records] = self.arena.append(data) + np.cumsum(lengths, dtype=np.int64) - lengths
        if self.side and draw is not None:
            self.sketches[records] = draw(bids.group)
        return records

    def _fresh(self, count: int) -> np.ndarray:
        """Records that nobody uses."""
        self._n_free -= count
        return self._free[self._n_free : self._n_free + count].copy()

    def _pack(self) -> None:
        live = np.flatnonzero(self.lengths)
        self.starts[live] = self.arena.pack(self.starts[live], self.lengths[live].astype(np.int64))

    def map_steps(self, row: int, place: int) -> np.ndarray:
        """The patch map at one place in uint8 steps of its scale, [n_patches]."""
        record = self.record[row, place : place + 1]
        return unpacked(self.arena.read(self.starts[record], self.lengths[record]), self.n_patches)

    def sketch(self, row: int, place: int) -> np.ndarray:
        """The sketch at one place, [side] int8."""
        return self.sketches[self.record[row, place]]

    def holders(self) -> np.ndarray:
        """The numbers of the images that hold a place, ascending, int64."""
        return np.unique(self.numbers[self.record[self.taken]]).astype(np.int64)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What a checkpoint keeps: the keys, and the records in the order of row and place."""
        records = self.record[self.taken]
        found = {column: getattr(self, column)[records] for column in _RECORDED}
        found["key"] = self.key
        found["maps"] = self.arena.read(self.starts[records], self.lengths[records])
        if self.side:
            found["sketches"] = self.sketches[records]
        return {f"{name}.{column}": values for column, values in found.items()}

    def absorb(self, name: str, parts: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Fill this empty table with the best of several tables of different images, given as their
        arrays."""
        choice = self.choose(name, parts)
        for i, part in enumerate(parts):
            self.fill(name, choice, i, part)

    def choose(self, name: str, parts: Sequence[Mapping[str, np.ndarray]]) -> Choice:
        """Take the best keys of several tables, given as their arrays; the records are still to be filled."""
        rows, places = self.key.shape
        choice = Choice(np.zeros((rows, places), np.uint32), np.zeros((rows, places), np.uint8))
        step = max(1, _MERGED_AT_ONCE // (places * len(parts)))
        for begin in range(0, rows, step):
            block = slice(begin, min(begin + step, rows))
            keys = np.concatenate([part[f"{name}.key"][block] for part in parts], axis=1)
            order = _lowest(keys, places)
            self.key[block] = np.take_along_axis(keys, order, axis=1)
            choice.part[block], choice.column[block] = order // places, order % places
        self._last[:] = self.key[:, -1]
        return choice

    def fill(self, name: str, choice: Choice, i: int, part: Mapping[str, np.ndarray]) -> None:
        """Take over the records of those places of table number i, given as its arrays, that were chosen."""
        held = part[f"{name}.key"] != EMPTY
        nth = np.cumsum(held.reshape(-1), dtype=np.int32).reshape(held.shape) - 1
        at, goal = np.nonzero((choice.part == i) & self.taken)
        mine = nth[at, choice.column[at, goal]]
        records = self._fresh(len(mine))
        self.record[at, goal] = records
        for column in (*_RECORDED, *(["sketches"] if self.side else [])):
            getattr(self, column)[records] = part[f"{name}.{column}"][mine]
        lengths = np.asarray(part[f"{name}.lengths"])
        ends = np.cumsum(lengths, dtype=np.int64)
        wanted = lengths[mine]
        data = part[f"{name}.maps"][spans(ends[mine] - wanted, wanted)]
        self.starts[records] = self.arena.append(data) + np.cumsum(wanted, dtype=np.int64) - wanted


def _lowest(keys: np.ndarray, count: int) -> np.ndarray:
    """Where the lowest `count` keys of each row are [R, count], the lowest first."""
    if count == 1:
        return keys.argmin(axis=1)[:, None]
    if keys.shape[1] == count:
        return np.argsort(keys, axis=1)
    near = np.argpartition(keys, count - 1, axis=1)[:, :count]
    return np.take_along_axis(near, np.argsort(np.take_along_axis(keys, near, axis=1), axis=1), axis=1)


def bids_by_score(table: Places, groups: Groups, numbers: np.ndarray) -> Bids:
    """The groups that deserve a place in a table of the highest scores. numbers [b]: of the chunk's images.

    Of equal scores the lower number goes first.
    """
    number = numbers[groups.image]
    key = (~groups.score.view(np.uint32)).astype(np.uint64)
    key <<= np.uint64(32)
    key |= number.view(np.uint64)
    return table.wanted(groups.neuron, key, number)


def map_lengths(patches: np.ndarray, n_patches: int) -> np.ndarray:
    """How many bytes the maps of groups take that fire on so many patches [w], int32."""
    return np.minimum(3 * patches, n_patches).astype(np.int32)


def map_bytes(
    runs: Runs, which: np.ndarray, lengths: np.ndarray, n_patches: int
) -> tuple[np.ndarray, np.ndarray]:
    """The maps of some groups, one after the other [lengths.sum()] uint8, and their scales [w] float32."""
    counts = runs.ends[which] - runs.starts[which]
    entries = spans(runs.starts[which], counts)
    token, value = runs.token[entries], runs.value[entries]
    owner = np.repeat(np.arange(len(which)), counts)
    some = np.flatnonzero(counts)
    first = np.cumsum(counts) - counts
    peaks = np.zeros(len(which), dtype=np.float32)
    peaks[some] = np.maximum.reduceat(value, first[some]) if len(some) else 0
    scales = scale_of(peaks)
    steps = steps_of(value, scales[owner])
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    data = np.zeros(int(lengths.sum()), dtype=np.uint8)
    dense = (lengths == n_patches)[owner]
    data[starts[owner[dense]] + token[dense]] = steps[dense]
    at = (starts[owner] + 3 * (np.arange(len(owner)) - first[owner]))[~dense]
    data[at], data[at + 1], data[at + 2] = token[~dense] & 0xFF, token[~dense] >> 8, steps[~dense]
    return data, scales


def unpacked(data: np.ndarray, n_patches: int) -> np.ndarray:
    """The steps [n_patches] uint8 behind a map's bytes."""
    if len(data) == n_patches:
        return data
    steps = np.zeros(n_patches, dtype=np.uint8)
    triples = data.reshape(-1, 3)
    steps[triples[:, 0].astype(np.int64) | triples[:, 1].astype(np.int64) << 8] = triples[:, 2]
    return steps


def _blocks(first: np.ndarray, total: int) -> Iterator[tuple[int, int]]:
    """Ranges of about _BLOCK bids that end where a row's bids end. first: where each row's begin."""
    begin = 0
    while begin < total:
        next_row = int(np.searchsorted(first, begin + _BLOCK))
        end = int(first[next_row]) if next_row < len(first) else total
        yield begin, end
        begin = end
