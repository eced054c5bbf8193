"""Long lists in little memory: names as one run of bytes, and lists of numbers as one array.

A million names take their bytes and 8 more each, and nothing is copied when a process forks. Knows
nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

import numpy as np


class PackedNames(Sequence[str]):
    """Names that cannot be changed, with random access.

    Bytes of a file name that are no UTF-8 survive, as Python's lone surrogates (surrogateescape).
    """

    __slots__ = ("_blob", "_starts")

    def __init__(self, names: Iterable[str] = ()) -> None:
        parts = [name.encode("utf-8", "surrogateescape") for name in names]
        self._starts = np.fromiter(accumulate(map(len, parts), initial=0), dtype=np.int64)
        self._blob = b"".join(parts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> PackedNames: ...
    def __getitem__(self, number: int | slice) -> str | PackedNames:
        """One name, or some of them."""
        if isinstance(number, slice):
            return PackedNames(self[i] for i in range(len(self))[number])
        place = range(len(self))[number]  # IndexError beyond the ends
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        return self._blob[start:end].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._starts[1:]:
            yield self._blob[start:end].decode("utf-8", "surrogateescape")
            start = end

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self._blob, self._starts)

    @property
    def nbytes(self) -> int:
        """Memory that the names take, in bytes."""
        return len(self._blob) + self._starts.nbytes


def _restored(blob: bytes, starts: np.ndarray) -> PackedNames:
    """The names of a pickle."""
    names = PackedNames.__new__(PackedNames)
    names._blob, names._starts = blob, starts
    return names


class PackedRows:
    """Rows of whole numbers below 2^31: row i is values[starts[i] : starts[i + 1]]."""

    __slots__ = ("starts", "values")

    def __init__(self, starts: np.ndarray, values: np.ndarray) -> None:
        self.starts, self.values = starts, values

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> PackedRows:
        """Pack rows in their order."""
        starts, values = [0], []
        for row in rows:
            values.extend(row)
            starts.append(len(values))
        return cls(np.array(starts, dtype=np.int64), np.array(values, dtype=np.int32))

    @classmethod
    def grouped(cls, rows: np.ndarray, values: np.ndarray, count: int) -> PackedRows:
        """Rows from pairs (row, value): within a row the values keep the order of the pairs."""
        order = np.argsort(rows, kind="stable")
        starts = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=count), out=starts[1:])
        return cls(starts, np.asarray(values)[order].astype(np.int32))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> tuple[int, ...]:
        """The numbers of one row."""
        return tuple(self.array(row).tolist())

    def array(self, row: int) -> np.ndarray:
        """The same as an array, not copied."""
        return self.values[self.starts[row] : self.starts[row + 1]]
