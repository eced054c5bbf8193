"""Writes the files of a store into a folder. Knows the schema and the manifest, not where rows come from."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from explorer.errors import StoreError
from explorer.records import NeuronSummary
from explorer.store.manifest import DATABASE_NAME, DIRECTIONS_NAME, Manifest, facts_of, write_manifest
from explorer.store.probe import Probe
from explorer.store.schema import migrate
from explorer.store.vectors import write_directions


class ImageRow(NamedTuple):
    """A picture that is an exemplar of some neuron; `image` is its number within the store."""

    image: int
    image_id: str
    origin: str
    grid_rows: int
    grid_cols: int
    thumbnail: bytes
    labels: tuple[str, ...]


class ExemplarRow(NamedTuple):
    """One place of one neuron; patch_map as `maps.pack` makes it."""

    neuron: int
    rank: int
    image: int
    score: float
    scale: float
    patch_map: bytes


class ConceptRow(NamedTuple):
    """One neuron that stands for a concept; FORMAT.md describes the columns."""

    concept: str
    rank: int
    neuron: int
    score: float
    precision: float
    on_mean: float
    off_mean: float
    firing: float
    reach: float


class SkippedRow(NamedTuple):
    """A picture that could not be read, and why."""

    image_id: str
    origin: str
    reason: str


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors of writing into a StoreError that names the file."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        raise StoreError(f"cannot write {path}: {error}") from error


class StoreWriter:
    """Fills one folder: add rows in any order, then `finish`. Use it in a `with`, inside `atomic()`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / DATABASE_NAME
        with plain_errors(self._path):
            self._db = sqlite3.connect(self._path, isolation_level=None)
            # Nobody reads before the folder is renamed, so a journal would protect nothing.
            self._db.executescript(
                "PRAGMA page_size = 8192; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            )
            migrate(self._db)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add_images(self, rows: Iterable[ImageRow]) -> None:
        """Add the pictures; labels are kept as a JSON list."""
        self._insert(
            "images", 7, ((*row[:6], json.dumps(list(row.labels), ensure_ascii=False)) for row in rows)
        )

    def add_exemplars(self, rows: Iterable[ExemplarRow]) -> None:
        """Add places; quickest in the order of (neuron, rank)."""
        self._insert("exemplars", 6, rows)

    def add_neurons(self, rows: Iterable[NeuronSummary]) -> None:
        """Add the summary of each neuron."""
        tuples = ((r.neuron, r.fires, r.in_top, r.mean, r.peak, r.label, r.precision) for r in rows)
        self._insert("neurons", 7, tuples)

    def add_concepts(self, rows: Iterable[ConceptRow]) -> None:
        """Add the neurons that stand for concepts."""
        self._insert("concepts", 9, rows)

    def add_probe(self, probe: Probe) -> None:
        """Add the linear read-out of concepts; the last row, for none of them, has no name."""
        names = (*probe.concepts, "")
        rows = (
            (place, name, float(bias) if np.isfinite(bias) else None, row.astype("<f4").tobytes())
            for place, (name, bias, row) in enumerate(zip(names, probe.bias, probe.weight, strict=True))
        )
        self._insert("probes", 4, rows)

    def add_skipped(self, rows: Iterable[SkippedRow]) -> None:
        """Add the pictures that could not be read."""
        self._insert("skipped", 3, rows)

    def add_directions(self, directions: np.ndarray) -> None:
        """Write the decoder directions [F, d]."""
        write_directions(self._folder / DIRECTIONS_NAME, directions)

    def finish(self, manifest: Manifest) -> Manifest:
        """Close the database, hash the files and write the manifest, which makes the folder a store."""
        files = [self._path, self._folder / DIRECTIONS_NAME]
        with plain_errors(self._folder):
            self._db.executescript("ANALYZE;")
            self._db.close()
            for path in files:
                _to_disk(path)
            manifest = replace(manifest, files={path.name: facts_of(path) for path in files})
            write_manifest(self._folder, manifest)
        return manifest

    def _insert(self, table: str, columns: int, rows: Iterable[tuple[object, ...]]) -> None:
        """Insert rows in one transaction."""
        sql = f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"
        with plain_errors(self._path), closing(self._db.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.executemany(sql, rows)
            cursor.execute("COMMIT")


def _to_disk(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
