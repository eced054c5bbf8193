"""Pictures that hold a place so far, kept on disk while an index is built, so that memory stays bounded.

Knows SQLite and a scratch file; nothing of neurons. The file is not part of the store.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from explorer.store.writer import plain_errors


class PendingImage(NamedTuple):
    """What the store will keep of a picture if it still holds a place at the end."""

    image_id: str
    origin: str
    grid_rows: int
    grid_cols: int
    thumbnail: bytes
    labels: tuple[str, ...]


class Pending:
    """A scratch table of pictures, by id. Use it in a `with`: the file is gone afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with plain_errors(path):
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                "CREATE TABLE pending (image_id TEXT PRIMARY KEY, origin TEXT, grid_rows INTEGER,"
                " grid_cols INTEGER, thumbnail BLOB, labels TEXT) STRICT;"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)

    def put(self, picture: PendingImage) -> None:
        """Keep a picture, in the place of an earlier one with its id."""
        row = (*picture[:5], json.dumps(list(picture.labels), ensure_ascii=False))
        with plain_errors(self._path):
            self._db.execute("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?)", row)

    def drop(self, image_ids: Iterable[str]) -> None:
        """Forget pictures that hold no place any more."""
        with plain_errors(self._path):
            self._db.executemany(
                "DELETE FROM pending WHERE image_id = ?", ((image_id,) for image_id in image_ids)
            )

    def __iter__(self) -> Iterator[PendingImage]:
        """All pictures in the order of their ids (by code point), read one by one."""
        for row in self._db.execute("SELECT * FROM pending ORDER BY image_id"):
            yield PendingImage(*row[:5], labels=tuple(json.loads(row[5])))
