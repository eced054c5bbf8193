"""A finished store's SQLite file, open for reading. Knows SQLite and the schema's number, no tables.

One read-only connection serves all threads behind a lock. A question takes microseconds, and a
connection opened at the start keeps reading the same file when a new build takes the folder's place.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from explorer.errors import StoreError
from explorer.store.schema import LATEST, version

_ROWS_AT_ONCE = 1000


class Database:
    """Questions to one file that never changes. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError when the file is damaged or has another schema."""
        self._path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            found = version(self._db)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"cannot read {path}: {error}; build the store again") from error
        if found != LATEST:
            raise StoreError(
                f"{path} has schema {found}, this program reads schema {LATEST}; build the store again"
            )

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        with self._lock:
            self._db.close()

    def ask(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:
        """All rows of an answer. Raises StoreError when the file is damaged or closed."""
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def each(self, sql: str) -> Iterator[tuple]:
        """The rows of a long answer, some at a time."""
        try:
            with self._lock:
                cursor = self._db.execute(sql)
                rows = cursor.fetchmany(_ROWS_AT_ONCE)
            while rows:
                yield from rows
                with self._lock:
                    rows = cursor.fetchmany(_ROWS_AT_ONCE)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"cannot read {self._path}: {error}; build the store again if this stays")
