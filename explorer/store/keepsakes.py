"""What people wrote outlives the store that it lies in: notes and lists move on when a build replaces it.

Knows notes files; nothing of how a build is published.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from explorer.errors import StoreError
from explorer.store.lists import add_newer_lists
from explorer.store.manifest import NOTES_NAME
from explorer.store.notes import add_newer_notes
from explorer.store.notes_file import NOTES_FORMAT, format_of, open_to_read, owner_of, prepare


def carry_notes(old: Path, new: Path, sae_id: str) -> None:
    """Copy the notes of the store `old` into the folder `new` that will take its place.

    sae_id: the new store's. Notes about another SAE, or ones that cannot be read, are copied beside the
    store instead, to <name>.notes-<first digits of the SAE>.sqlite or <name>.notes-unreadable.sqlite.
    Raises StoreError when the copy cannot be written.
    """
    source = old / NOTES_NAME
    if not source.exists():
        return
    owner = _owner(source)
    if owner is None:
        shutil.copyfile(source, old.parent / f"{old.name}.notes-unreadable.sqlite")
    else:
        beside = old.parent / f"{old.name}.notes-{owner[:12]}.sqlite"
        _copy(source, new / NOTES_NAME if owner == sae_id else beside)


def catch_up(replaced: Path, new: Path, sae_id: str) -> None:
    """Take over what was written to the notes of `replaced` after `carry_notes` copied them.

    sae_id: the new store's; notes about another SAE are left. Raises StoreError that says where they are
    when they cannot be written.
    """
    source, target = replaced / NOTES_NAME, new / NOTES_NAME
    if not source.exists() or _owner(source) != sae_id:
        return
    if not target.exists():
        _copy(source, target)
        return
    try:
        with closing(open_to_read(source)) as db, closing(open_to_read(target)) as goal:
            prepare(goal, sae_id)
            goal.execute("BEGIN IMMEDIATE")
            add_newer_notes(goal, db.execute("SELECT * FROM notes").fetchall())
            if format_of(db) == NOTES_FORMAT:
                add_newer_lists(goal, db.execute("SELECT * FROM lists").fetchall())
            goal.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"the last notes of the earlier store stay in {source}: {error}") from error


def _owner(path: Path) -> str | None:
    """The SAE that notes are about; None when they cannot be read, or nobody has written any."""
    try:
        with closing(open_to_read(path)) as db:
            return owner_of(db)
    except (sqlite3.Error, StoreError):
        return None


def _copy(source: Path, target: Path) -> None:
    """A whole copy of a database, what is still in its log included."""
    try:
        with closing(open_to_read(source)) as db, closing(sqlite3.connect(target)) as copy:
            db.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {target}: {error}") from error
