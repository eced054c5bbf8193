"""People's own names of neurons and notes about them. Knows the table `notes`, not what a neuron is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from explorer.errors import StoreError
from explorer.records import Note
from explorer.store.notes_file import NotesFile, now, plain

MAX_NAME = 200
MAX_NOTE = 20_000

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
    """The notes in one file. Methods may be called from any thread."""

    def __init__(self, file: NotesFile) -> None:
        self._file = file

    def read(self, neurons: Iterable[int] | None = None) -> dict[int, Note]:
        """The notes about some neurons, or all, by ascending neuron."""
        with self._file.reading() as db:
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

    def names(self) -> dict[int, str]:
        """The own name of each neuron that has one."""
        with self._file.reading() as db:
            rows = [] if db is None else db.execute("SELECT neuron, name FROM notes WHERE name <> ''")
            return dict(rows)

    def search(self, expression: str, k: int | None) -> list[NoteMatch]:
        """At most k neurons (None: all) whose name or note matches an FTS5 expression, names before notes."""
        sql = (
            "SELECT n.neuron, n.name, -bm25(note_texts, 8.0, 1.0) AS score FROM note_texts"
            " JOIN notes n ON n.neuron = note_texts.rowid WHERE note_texts MATCH ?"
            " ORDER BY score DESC, n.neuron LIMIT ?"
        )
        with self._file.reading() as db:
            rows = [] if db is None else db.execute(sql, (expression, -1 if k is None else k)).fetchall()
        return [NoteMatch(*row) for row in rows]

    def write(self, neuron: int, name: str, note: str) -> None:
        """Keep a name and a note; both empty removes them. On the disk when this returns.

        Raises StoreError when they are too long or the file cannot be written.
        """
        name, note = " ".join(plain(name).split()), plain(note).strip()
        if len(name) > MAX_NAME or len(note) > MAX_NOTE:
            raise StoreError(
                f"neuron {neuron}: a name has at most {MAX_NAME} characters and a note {MAX_NOTE}; "
                f"these have {len(name)} and {len(note)}"
            )
        with self._file.writing() as db:
            db.execute(_UPSERT, (neuron, name, note, now()))


def add_newer_notes(db: sqlite3.Connection, rows: Iterable[tuple]) -> None:
    """Take in rows of other notes, except where these were changed later."""
    db.executemany(f"{_UPSERT} WHERE excluded.changed > notes.changed", rows)
