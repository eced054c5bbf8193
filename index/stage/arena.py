"""Bytes of many small lengths in one block of memory, packed again when too much of it is unused.

Knows numpy only; whose bytes they are, and where they moved, is the caller's to keep.
"""

from __future__ import annotations

import numpy as np

from index.stage.codes import spans

_SLACK = 32 * 2**20
_MOVE = 4 * 2**20


class Arena:
    """Append-only bytes. `live` of the `used` bytes are still wanted; the rest is what evicted places left.

    Memory stays below 1.5 x the most that was ever live, and some slack: untouched pages cost nothing.
    """

    def __init__(self, capacity: int) -> None:
        """capacity: the most bytes that may ever be live."""
        self._data = np.empty(int(capacity * 1.5) + 2 * _SLACK, dtype=np.uint8)
        self.used = 0
        self.live = 0

    def append(self, data: np.ndarray) -> int:
        """Add bytes (uint8) and return where they start. There must be room (see `crowded`)."""
        start = self.used
        self.used += len(data)
        self._data[start : self.used] = data
        self.live += len(data)
        return start

    def crowded(self, coming: int) -> bool:
        """Whether to pack before `coming` more bytes."""
        return (
            self.used + coming > min(self.live * 3 // 2 + _SLACK, len(self._data)) and self.used > self.live
        )

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The bytes of some runs, one after the other."""
        return self._data[spans(starts, lengths)]

    def pack(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Keep only these runs [n]; returns where each starts from now on. Order in memory is kept."""
        order = np.argsort(starts, kind="stable")
        moved = np.empty_like(starts)
        lengths_by_start = lengths[order]
        moved[order] = np.cumsum(lengths_by_start) - lengths_by_start
        begin = 0
        ends = np.cumsum(lengths_by_start)
        while begin < len(order):
            done = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + _MOVE)))
            some = order[begin:end]
            self._data[done : ends[end - 1]] = self._data[spans(starts[some], lengths[some])]
            begin = end
        self.used = self.live = int(ends[-1]) if len(ends) else 0
        return moved
