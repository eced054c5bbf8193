"""Pictures that hold a place so far, kept on disk while an index is built, so that memory stays bounded.

A scratch file of one part of a build, not of a store: pictures by their number in the source. What was put
is safe once `commit` returns, whatever happens to the process. Knows SQLite; nothing of neurons.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from explorer.errors import StoreError
from explorer.store.writer import plain_errors

_TABLE = (
    "CREATE TABLE IF NOT EXISTS pictures (number INTEGER PRIMARY KEY, image_id TEXT NOT NULL,"
    " origin TEXT NOT NULL, grid_rows INTEGER NOT NULL, grid_cols INTEGER NOT NULL,"
    " thumbnail BLOB NOT NULL, labels TEXT NOT NULL) STRICT;"
)
_MAPPED = 2**40  # all of it: pictures are read from end to end, and read calls for small pages cost most


class PendingImage(NamedTuple):
    """What the store will keep of a picture if it still holds a place at the end.

    number: the picture's number in its source; labels: entries of the source's vocabulary, ascending.
    """

    number: int
    image_id: str
    origin: str
    grid_rows: int
    grid_cols: int
    thumbnail: bytes
    labels: tuple[int, ...]


class Pending:
    """A table of pictures by number. Use it in a `with`; any thread may call, one at a time."""

    def __init__(self, path: Path, new: bool = True) -> None:
        """Open the file; when it is missing it is made, if `new`. Raises StoreError when that cannot be."""
        self._path = path
        with plain_errors(path):
            where = f"{path.absolute().as_uri()}?mode={'rwc' if new else 'rw'}"
            self._db = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA mmap_size = {_MAPPED}")
            if new:
                self._db.executescript(f"PRAGMA synchronous = FULL; {_TABLE}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def put(self, pictures: Iterable[PendingImage]) -> None:
        """Keep pictures, in the place of earlier ones with their numbers; safe after `commit`."""
        rows = ((*picture[:6], json.dumps(list(picture.labels))) for picture in pictures)
        with plain_errors(self._path):
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def commit(self) -> None:
        """Wait until all that was put is on the disk."""
        with plain_errors(self._path):
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def keep(self, numbers: np.ndarray) -> None:
        """Forget all pictures but those with these numbers, and commit."""
        gone = np.setdiff1d(self.numbers(), numbers).tolist()
        with plain_errors(self._path):
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM pictures WHERE number = ?", ((number,) for number in gone))
        self.commit()

    def numbers(self) -> np.ndarray:
        """The numbers of all pictures, ascending, int64."""
        found = (number for (number,) in self._rows("SELECT number FROM pictures ORDER BY number"))
        return np.fromiter(found, dtype=np.int64)

    def read(self, numbers: np.ndarray) -> Iterator[PendingImage]:
        """The pictures with these numbers (int64), one by one, by ascending number.

        Raises StoreError when one of them is missing.
        """
        self.commit()
        with plain_errors(self._path):
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (number INTEGER PRIMARY KEY)")
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM wanted")
            self._db.executemany("INSERT INTO wanted VALUES (?)", ((n,) for n in np.unique(numbers).tolist()))
            self._db.execute("COMMIT")
        sql = (
            "SELECT w.number, p.* FROM wanted w LEFT JOIN pictures p ON p.number = w.number ORDER BY w.number"
        )
        for number, *row in self._rows(sql):
            if row[0] is None:
                raise StoreError(
                    f"{self._path} lacks picture {number}, which the saved progress needs; "
                    "build this part again with --restart"
                )
            yield PendingImage(*row[:6], labels=tuple(json.loads(row[6])))

    def _rows(self, sql: str) -> Iterator[tuple]:
        """The rows of a question. Raises StoreError when the file is damaged."""
        try:
            yield from self._db.execute(sql)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"cannot read {self._path}: {error}; build this part again with --restart"
            ) from error
