"""The file of what people write: notes.sqlite, about the neurons of one SAE, beside a store's files.

Written while the page runs, by several threads and processes at once, so each question opens the file
anew: whoever has a store open goes on writing to the right file when a build replaces the folder. Knows
SQLite and the manifest; not what the tables are for.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from explorer.errors import StoreError
from explorer.store.manifest import NOTES_NAME, read_manifest
from explorer.store.schema import Migration, steps_of

NOTES_FORMAT = 2
WITHOUT_LISTS = 1
"""The format of files that were written before there were lists."""
WAIT = 20.0
"""Seconds to wait for other writers."""

SCHEMA_FILE = Path(__file__).with_name("notes.sql")


class NotesFile:
    """The notes file of one store folder about the neurons of one SAE. Any thread may ask."""

    def __init__(self, folder: Path, sae_id: str) -> None:
        self._folder = folder
        self._path = folder / NOTES_NAME
        self._sae_id = sae_id

    @contextmanager
    def reading(self, wanted: int = WITHOUT_LISTS) -> Iterator[sqlite3.Connection | None]:
        """A connection to ask; None while there is nothing: no file, or one that is being made or is older
        than the format wanted."""
        if not self._path.exists():
            yield None
            return
        try:
            with closing(open_to_read(self._path)) as db:
                if owner_of(db) is not None:
                    self._check_owner(db)
                yield db if format_of(db) >= wanted else None
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot read {self._path}: {error}; move it away to start without notes"
            ) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection to write by single statements; the tables are there, each statement is on the disk.

        Raises StoreError when the file cannot be written, or is about another SAE.
        """
        if not self._path.exists():
            self._check_folder()
        try:
            with closing(_connect(self._path, "rwc")) as db:
                prepare(db, self._sae_id)
                self._check_owner(db)
                yield db
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot keep notes in {self._path}: {error}") from error

    def _check_owner(self, db: sqlite3.Connection) -> None:
        found = owner_of(db)
        if found != self._sae_id:
            raise StoreError(
                f"{self._path} holds notes about another SAE ({found}), not about {self._sae_id}; "
                "open the store again, or move the file away"
            )

    def _check_folder(self) -> None:
        """Do not start notes in a folder that has become the store of another SAE."""
        found = read_manifest(self._folder).sae_id
        if found != self._sae_id:
            raise StoreError(
                f"the store {self._folder} was replaced by one of another SAE ({found}); open it again"
            )


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection to notes that exist, also in a folder that cannot be written."""
    db = _connect(path, "rw")
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        db.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        # The write-ahead log needs a file beside it; where none can be made, nobody writes either.
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    return db


def format_of(db: sqlite3.Connection) -> int:
    """The number of the last migration that the file has seen, 0 for one that nobody has written to yet."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def owner_of(db: sqlite3.Connection) -> str | None:
    """The SAE whose neurons the notes are about; None for a file that nobody has written to yet.

    Raises StoreError for notes of a later format.
    """
    found = format_of(db)
    if found == 0:
        return None
    if not 0 < found <= NOTES_FORMAT:
        raise StoreError(
            f"{NOTES_NAME} has format {found}, this program reads format {NOTES_FORMAT} and earlier ones"
        )
    return str(db.execute("SELECT sae_id FROM owner").fetchone()[0])


def prepare(db: sqlite3.Connection, sae_id: str) -> None:
    """Make the tables that are missing; of several that try, one does."""
    with suppress(sqlite3.OperationalError):  # somebody is writing; the next who comes sets it
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if owner_of(db) is not None and format_of(db) == NOTES_FORMAT:
        return
    db.execute("BEGIN EXCLUSIVE")
    found = format_of(db)
    for step in migrations():
        if step.number > found:
            for statement in _statements(step.sql):
                db.execute(statement)
    if found == 0:
        db.execute("INSERT INTO owner VALUES (?)", (sae_id,))
    db.execute(f"PRAGMA user_version = {NOTES_FORMAT}")
    db.execute("COMMIT")


def migrations() -> list[Migration]:
    """The steps of notes.sql, in order."""
    return steps_of(SCHEMA_FILE.read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """A text without the signs that a database cannot keep: NUL and halves of surrogate pairs."""
    return "".join(sign for sign in text if sign != "\0" and unicodedata.category(sign) != "Cs")


def now() -> str:
    """The time, ISO 8601, UTC, with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)


def _statements(sql: str) -> Iterator[str]:
    """The statements of a piece of SQL, one by one."""
    whole = ""
    for line in sql.splitlines(keepends=True):
        whole += line
        if sqlite3.complete_statement(whole):
            yield whole
            whole = ""
