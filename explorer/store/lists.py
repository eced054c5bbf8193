"""Lists of neurons that people keep under names, favourites among them. Knows the table `lists`.

What is taken off a list stays in the table as not held, so that a merge of two files knows which came later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from explorer.errors import StoreError
from explorer.records import NeuronList
from explorer.store.notes_file import NOTES_FORMAT, NotesFile, now, plain

MAX_LIST_NAME = 80
MAX_LISTS = 200

_HOLD = (
    "INSERT INTO lists VALUES (?1, ?2, ?3, ?4) ON CONFLICT (list, neuron) DO UPDATE"
    " SET held = excluded.held, changed = excluded.changed WHERE lists.held <> excluded.held"
)
_NEWER = (
    "INSERT INTO lists VALUES (?1, ?2, ?3, ?4) ON CONFLICT (list, neuron) DO UPDATE"
    " SET held = excluded.held, changed = excluded.changed WHERE excluded.changed > lists.changed"
)


class Lists:
    """The lists in one file. Methods may be called from any thread."""

    def __init__(self, file: NotesFile) -> None:
        self._file = file

    def read(self) -> list[NeuronList]:
        """All lists that hold a neuron, by name, their neurons in the order in which they were added."""
        found: dict[str, list[int]] = {}
        for name, neuron in self._ask("SELECT list, neuron FROM lists WHERE held ORDER BY changed, neuron"):
            found.setdefault(name, []).append(neuron)
        return [
            NeuronList(name, tuple(found[name])) for name in sorted(found, key=lambda n: (n.casefold(), n))
        ]

    def neurons(self, name: str) -> list[int]:
        """The neurons on one list, in the order in which they were added; none on an unknown one."""
        sql = "SELECT neuron FROM lists WHERE list = ? AND held ORDER BY changed, neuron"
        return [neuron for (neuron,) in self._ask(sql, (tidy(name),))]

    def of(self, neuron: int) -> tuple[str, ...]:
        """The names of the lists that hold a neuron, in alphabetical order."""
        rows = self._ask("SELECT list FROM lists WHERE neuron = ? AND held", (neuron,))
        return tuple(sorted((name for (name,) in rows), key=lambda name: (name.casefold(), name)))

    def add(self, name: str, neuron: int) -> None:
        """Put a neuron on a list, which is made when it is new. On the disk when this returns.

        Raises StoreError for a name that is empty or too long, when there are too many lists, or when the
        file cannot be written.
        """
        name = _checked(name)
        with self._file.writing() as db:
            db.execute("BEGIN IMMEDIATE")
            known = db.execute("SELECT 1 FROM lists WHERE list = ? AND held LIMIT 1", (name,)).fetchone()
            ((count,),) = db.execute("SELECT count(DISTINCT list) FROM lists WHERE held")
            if not known and count >= MAX_LISTS:
                raise StoreError(
                    f"there are {count} lists already, and {MAX_LISTS} at most; "
                    f"empty one before {name!r} is made"
                )
            db.execute(_HOLD, (name, neuron, 1, now()))
            db.execute("COMMIT")

    def remove(self, name: str, neuron: int) -> None:
        """Take a neuron off a list, if it is there; a list that holds none any more vanishes."""
        sql = "UPDATE lists SET held = 0, changed = ? WHERE list = ? AND neuron = ? AND held"
        if self.neurons(name):
            with self._file.writing() as db:
                db.execute(sql, (now(), tidy(name), neuron))

    def _ask(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple]:
        """All rows of an answer; none when nobody has made a list yet."""
        with self._file.reading(NOTES_FORMAT) as db:
            return [] if db is None else db.execute(sql, values).fetchall()


def tidy(name: str) -> str:
    """A list's name as it is kept: without line breaks and needless spaces."""
    return " ".join(plain(name).split())


def _checked(name: str) -> str:
    """A tidy name. Raises StoreError when it is empty or too long."""
    kept = tidy(name)
    if not kept:
        raise StoreError("the list has no name; give it one")
    if len(kept) > MAX_LIST_NAME:
        raise StoreError(
            f"the name of a list has at most {MAX_LIST_NAME} characters; {kept[:20]!r} ... has {len(kept)}"
        )
    return kept


def add_newer_lists(db: sqlite3.Connection, rows: Iterable[tuple]) -> None:
    """Take in rows of other lists, except where these were changed later."""
    db.executemany(_NEWER, rows)
