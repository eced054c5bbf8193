"""Brings a store of format 2 to format 3: in a copy, which takes its place when all is done.

Label entropy and the map of directions are computed from what the store holds; pictures and models are not
needed. Readers that have the store open go on reading it as it was; people's notes move on.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from explorer.store.database import Database
from explorer.store.entropy import stored_entropies
from explorer.store.manifest import (
    DATABASE_NAME,
    DIRECTIONS_NAME,
    FILE_NAMES,
    FORMAT,
    UPGRADABLE,
    Manifest,
    read_manifest,
)
from explorer.store.publish import atomic
from explorer.store.schema import migrate
from explorer.store.vectors import Directions
from explorer.store.writer import StoreWriter, plain_errors


def upgrade(
    target: Path,
    place: Callable[[np.ndarray], np.ndarray],
    tell: Callable[[str], None] = lambda words: None,
) -> Manifest:
    """Publish the store `target` of format 2 in format 3.

    place: gives each direction [F, d] its place on the map, [F, 2]. tell: hears what is being done. Raises
    StoreError for a store of another format, or when something cannot be written: then it is as it was.
    """
    manifest = read_manifest(target, UPGRADABLE)
    with atomic(target) as folder:
        tell("copying the store")
        with plain_errors(folder):
            for name in FILE_NAMES:
                shutil.copyfile(target / name, folder / name)
            with closing(sqlite3.connect(folder / DATABASE_NAME)) as db, db:
                migrate(db)
                db.execute("DELETE FROM texts")  # the writer makes them again
        tell("measuring label entropy")
        with closing(Database(folder / DATABASE_NAME)) as database:
            entropies = stored_entropies(database, manifest.n_neurons)
        tell("drawing the map of directions")
        positions = place(Directions(folder / DIRECTIONS_NAME).rows())
        with StoreWriter(folder) as writer:
            writer.set_entropies(entropies)
            writer.add_positions(positions)
            tell("closing the store")
            return writer.finish(replace(manifest, format=FORMAT))
