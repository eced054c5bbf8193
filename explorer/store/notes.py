"""People's own names of neurons and notes about them: a small SQLite file beside the store's files.

Written while the page runs, by several threads and processes at once, so each question opens the file
anew: whoever has a store open goes on writing to the right file when a build replaces the folder. Knows
SQLite and the manifest; nothing of what a neuron is.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from explorer.errors import StoreError
from explorer.records import Note
from explorer.store.manifest import NOTES_NAME, read_manifest

NOTES_FORMAT = 1
MAX_NAME = 200
MAX_NOTE = 20_000
WAIT = 20.0
"""Seconds to wait for other writers."""

SCHEMA_FILE = Path(__file__).with_name("notes.sql")
_UPSERT = (
    "INSERT INTO notes VALUES (?, ?, ?, ?) ON CONFLICT (neuron) DO UPDATE"
    " SET name = excluded.name, note = excluded.note, changed = excluded.changed"
)
_QUESTIONS_AT_ONCE = 500


class NoteMatch(NamedTuple):
    """A neuron whose name or note matches; name may be empty; score: higher is better."""

    neuron: int
    name: str
    score: float


class Notes:
    """The notes of one store folder about the neurons of one SAE. Methods may be called from any thread."""

    def __init__(self, folder: Path, sae_id: str) -> None:
        self._folder = folder
        self._path = folder / NOTES_NAME
        self._sae_id = sae_id

    def read(self, neurons: Iterable[int] | None = None) -> dict[int, Note]:
        """The notes about some neurons, or all, by ascending neuron."""
        if not self._path.exists():
            return {}
        with self._reading() as db:
            if db is None:
                return {}
            rows: list[tuple] = []
            if neurons is None:
                rows = db.execute("SELECT * FROM notes ORDER BY neuron").fetchall()
            wanted = sorted({int(neuron) for neuron in neurons or ()})
            for start in range(0, len(wanted), _QUESTIONS_AT_ONCE):
                part = wanted[start : start + _QUESTIONS_AT_ONCE]
                sql = f"SELECT * FROM notes WHERE neuron IN ({', '.join('?' * len(part))}) ORDER BY neuron"
                rows += db.execute(sql, part).fetchall()
        return {row[0]: Note(*row) for row in rows if row[1] or row[2]}

    def search(self, expression: str, k: int) -> list[NoteMatch]:
        """At most k neurons whose name or note matches an FTS5 expression, names before notes."""
        if not self._path.exists():
            return []
        sql = (
            "SELECT n.neuron, n.name, -bm25(note_texts, 8.0, 1.0) AS score FROM note_texts"
            " JOIN notes n ON n.neuron = note_texts.rowid WHERE note_texts MATCH ?"
            " ORDER BY score DESC, n.neuron LIMIT ?"
        )
        with self._reading() as db:
            rows = [] if db is None else db.execute(sql, (expression, k)).fetchall()
        return [NoteMatch(*row) for row in rows]

    def write(self, neuron: int, name: str, note: str) -> None:
        """Keep a name and a note; both empty removes them. On the disk when this returns.

        Raises StoreError when they are too long or the file cannot be written.
        """
        name, note = " ".join(_plain(name).split()), _plain(note).strip()
        if len(name) > MAX_NAME or len(note) > MAX_NOTE:
            raise StoreError(
                f"neuron {neuron}: a name has at most {MAX_NAME} characters and a note {MAX_NOTE}; "
                f"these have {len(name)} and {len(note)}"
            )
        if not self._path.exists():
            self._check_folder()
        try:
            with closing(_connect(self._path, "rwc")) as db:
                _prepare(db, self._sae_id)
                self._check_owner(db)
                db.execute(_UPSERT, (neuron, name, note, _now()))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot keep notes in {self._path}: {error}") from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection to ask; None while the file is being made."""
        try:
            with closing(open_to_read(self._path)) as db:
                if owner_of(db) is not None:
                    self._check_owner(db)
                    yield db
                else:
                    yield None
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot read {self._path}: {error}; move it away to start without notes"
            ) from error

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


def owner_of(db: sqlite3.Connection) -> str | None:
    """The SAE whose neurons the notes are about; None for a file that nobody has written to yet.

    Raises StoreError for notes of another format.
    """
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found == 0:
        return None
    if found != NOTES_FORMAT:
        raise StoreError(f"{NOTES_NAME} has format {found}, this program reads format {NOTES_FORMAT}")
    return str(db.execute("SELECT sae_id FROM owner").fetchone()[0])


def add_newer(db: sqlite3.Connection, rows: Iterable[tuple]) -> None:
    """Take in rows of other notes, except where these were changed later."""
    db.execute("BEGIN IMMEDIATE")
    db.executemany(f"{_UPSERT} WHERE excluded.changed > notes.changed", rows)
    db.execute("COMMIT")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)


def _prepare(db: sqlite3.Connection, sae_id: str) -> None:
    """Make the tables in an empty file; of several that try, one does."""
    with suppress(sqlite3.OperationalError):  # somebody is writing; the next who comes sets it
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if owner_of(db) is not None:
        return
    db.execute("BEGIN EXCLUSIVE")
    if owner_of(db) is None:
        for statement in _statements():
            db.execute(statement)
        db.execute("INSERT INTO owner VALUES (?)", (sae_id,))
        db.execute(f"PRAGMA user_version = {NOTES_FORMAT}")
    db.execute("COMMIT")


def _statements() -> Iterator[str]:
    """The statements of notes.sql, one by one."""
    whole = ""
    for line in SCHEMA_FILE.read_text(encoding="utf-8").splitlines(keepends=True):
        whole += line
        if sqlite3.complete_statement(whole):
            yield whole
            whole = ""


def _plain(text: str) -> str:
    """A text without the signs that a database cannot keep: NUL and halves of surrogate pairs."""
    return "".join(sign for sign in text if sign != "\0" and unicodedata.category(sign) != "Cs")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
