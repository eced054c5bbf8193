"""Changes the names and words of a finished store: in a copy, which takes its place when all is done.

Readers that have the store open go on reading it as it was; people's notes move on. Knows the schema.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from explorer.store.database import Database
from explorer.store.manifest import (
    CENTROIDS_NAME,
    DATABASE_NAME,
    DIRECTIONS_NAME,
    Manifest,
    Route,
    read_manifest,
)
from explorer.store.publish import atomic
from explorer.store.rows import WordRow
from explorer.store.writer import StoreWriter, plain_errors

_RENAME = (
    "UPDATE neurons SET label = ?1 WHERE kind = ?2 AND label = ?3",
    "UPDATE neuron_labels SET label = ?1 WHERE kind = ?2 AND label = ?3",
    "UPDATE label_images SET label = ?1 WHERE kind = ?2 AND label = ?3",
)


def rework(
    target: Path,
    words: Iterable[WordRow] | None = None,
    kind: str = "class",
    names: Mapping[str, str] | None = None,
    route: Route = "none",
) -> Manifest:
    """Publish a new version of the store `target`.

    words: take the place of all words; None leaves them. names: new names of labels of this kind, by their
    old ones; no two labels may have one name afterwards. route: how the words were found. Raises StoreError
    when something cannot be written; the store is then as it was.
    """
    manifest = read_manifest(target)
    with atomic(target) as folder:
        path = folder / DATABASE_NAME
        with plain_errors(folder):
            for name in (DATABASE_NAME, DIRECTIONS_NAME, CENTROIDS_NAME):
                shutil.copyfile(target / name, folder / name)
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("DELETE FROM texts")
                if words is not None:
                    db.execute("DELETE FROM neuron_words")
                _rename(db, kind, names or {})
        with StoreWriter(folder) as writer:
            writer.add_words(words or ())
            return writer.finish(manifest if words is None else replace(manifest, words=route))


def label_names(folder: Path, kind: str) -> list[str]:
    """The labels of one kind that the store `folder` knows, in alphabetical order."""
    with closing(Database(folder / DATABASE_NAME)) as database:
        sql = "SELECT label FROM label_images WHERE kind = ? ORDER BY label"
        return [label for (label,) in database.ask(sql, (kind,))]


def _rename(db: sqlite3.Connection, kind: str, names: Mapping[str, str]) -> None:
    """Give labels other names, in two steps, since one's new name may be another's old one."""
    changed = {old: new for old, new in names.items() if old != new}
    first = {old: f"{new}\0" for old, new in changed.items()}
    for pairs in (first, {f"{new}\0": new for new in changed.values()}):
        for sql in _RENAME:
            db.executemany(sql, ((new, kind, old) for old, new in pairs.items()))
    if changed:
        rows = db.execute("SELECT image, labels FROM images").fetchall()
        db.executemany("UPDATE images SET labels = ? WHERE image = ?", _relabelled(rows, changed))


def _relabelled(rows: Iterable[tuple[int, str]], names: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """The new label lists of the images that have one of the labels."""
    for image, text in rows:
        labels = json.loads(text)
        renamed = [names.get(label, label) for label in labels]
        if renamed != labels:
            yield json.dumps(renamed, ensure_ascii=False), image
