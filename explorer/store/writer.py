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
from typing import Self

import numpy as np

from explorer.errors import StoreError
from explorer.records import NeuronSummary
from explorer.store import histogram
from explorer.store.classes import classify
from explorer.store.manifest import (
    CENTROIDS_NAME,
    DATABASE_NAME,
    DIRECTIONS_NAME,
    FILE_NAMES,
    Manifest,
    facts_of,
    write_manifest,
)
from explorer.store.probe import Probe
from explorer.store.rows import (
    MEAN_PATCH,
    ConceptRow,
    ExemplarRow,
    ImageRow,
    IntervalRow,
    LabelImagesRow,
    LabelRow,
    PartnerRow,
    SkippedRow,
    WordRow,
)
from explorer.store.schema import migrate
from explorer.store.vectors import write_centroids, write_directions

__all__ = ["ConceptRow", "ExemplarRow", "ImageRow", "SkippedRow", "StoreWriter", "plain_errors"]

# Nobody reads before the folder is renamed, so a journal would protect nothing.
_QUICK = (
    "PRAGMA page_size = 32768; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -65536;"
)
# What people search: the label, the other labels and the words of each neuron, in plain words.
_TEXTS = """
INSERT INTO texts (rowid, neuron, name, labels, words)
SELECT * FROM (
    SELECT neuron, neuron, replace(label, '_', ' ') AS name,
        coalesce((SELECT group_concat(replace(label, '_', ' '), '; ') FROM
            (SELECT label FROM neuron_labels l WHERE l.neuron = n.neuron ORDER BY rank)), '') AS labels,
        coalesce((SELECT group_concat(word, '; ') FROM
            (SELECT word FROM neuron_words w WHERE w.neuron = n.neuron ORDER BY rank)), '') AS words
    FROM neurons n ORDER BY neuron)
WHERE name || labels || words <> '';
INSERT INTO texts (texts) VALUES ('optimize');
"""


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors of writing into a StoreError that names the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"cannot write {path}: {error}") from error


class StoreWriter:
    """Fills one folder: add rows in any order, then `finish`. Use it in a `with`, inside `atomic()`.

    Every table but `neurons` may stay empty; both vector files must be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / DATABASE_NAME
        with plain_errors(self._path):
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.executescript(_QUICK)
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

    def add_intervals(self, rows: Iterable[IntervalRow]) -> None:
        """Add images of lower intervals; quickest in the order of (neuron, interval)."""
        self._insert("interval_exemplars", 6, rows)

    def add_neurons(
        self, rows: Iterable[NeuronSummary], score_histograms: np.ndarray, active_histograms: np.ndarray
    ) -> None:
        """Add the summary of each neuron; histograms [F, 64] are counts of `histogram.bins_of`.

        A summary without a class gets the one that `classes.classify` gives.
        """
        summaries = list(rows)
        fires, in_top = np.array([(row.fires, row.in_top) for row in summaries]).reshape(-1, 2).T
        found = classify(fires, in_top).tolist()
        self._insert(
            "neurons",
            21,
            (
                (
                    *(row.neuron, row.neuron_class or name),
                    *(row.fires, row.patch_fires, row.in_top, row.mean, row.variance, row.peak),
                    *(row.active_mean, row.active_variance, row.active_peak),
                    *(row.label, row.kind, row.precision, row.lift, row.average_precision),
                    *(row.monosemanticity, row.monosemanticity_images),
                    histogram.pack(score_histograms[row.neuron]),
                    histogram.pack(active_histograms[row.neuron]),
                    row.entropy,
                )
                for row, name in zip(summaries, found, strict=True)
            ),
        )

    def add_positions(self, positions: np.ndarray) -> None:
        """Add each neuron's place on the map, [F, 2]; NaN where it has none."""
        placed = np.flatnonzero(np.isfinite(positions).all(1))
        rows = zip(placed.tolist(), *positions[placed].T.tolist(), strict=True)
        self._insert("positions", 3, rows)

    def set_entropies(self, entropies: np.ndarray) -> None:
        """Set each neuron's label entropy [F], NaN where it is unknown, in rows that are there already."""
        with plain_errors(self._path), closing(self._db.cursor()) as cursor:
            cursor.execute("BEGIN")
            rows = ((value, neuron) for neuron, value in enumerate(entropies.tolist()))
            cursor.executemany("UPDATE neurons SET entropy = ? WHERE neuron = ?", rows)
            cursor.execute("COMMIT")

    def add_labels(self, rows: Iterable[LabelRow]) -> None:
        """Add the best labels of neurons."""
        self._insert("neuron_labels", 7, rows)

    def add_label_images(self, rows: Iterable[LabelImagesRow]) -> None:
        """Add how many indexed images show each label."""
        self._insert("label_images", 3, rows)

    def add_words(self, rows: Iterable[WordRow]) -> None:
        """Add the words that neurons raise."""
        self._insert("neuron_words", 4, rows)

    def add_partners(self, rows: Iterable[PartnerRow]) -> None:
        """Add the neurons that fire together."""
        self._insert("partners", 5, rows)

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

    def add_mean_patch(self, vector: np.ndarray) -> None:
        """Add the mean patch vector [d] of the sampled images."""
        self._insert("site", 2, [(MEAN_PATCH, vector.astype("<f4").tobytes())])

    def add_skipped(self, rows: Iterable[SkippedRow]) -> None:
        """Add the pictures that could not be read."""
        self._insert("skipped", 3, rows)

    def add_directions(self, directions: np.ndarray) -> None:
        """Write the decoder directions [F, d]."""
        write_directions(self._folder / DIRECTIONS_NAME, directions)

    def add_centroids(self, centroids: np.ndarray, b_dec: np.ndarray) -> None:
        """Write the mean sketch of each neuron's exemplars [F, min(d, 256)], zeros for a dead one.

        b_dec [d]: what is taken off a patch vector before it is sketched.
        """
        write_centroids(self._folder / CENTROIDS_NAME, centroids, b_dec)

    def finish(self, manifest: Manifest) -> Manifest:
        """Close the database, hash the files and write the manifest, which makes the folder a store."""
        files = [self._folder / name for name in FILE_NAMES]
        with plain_errors(self._folder):
            self._db.executescript(f"BEGIN;{_TEXTS}COMMIT;ANALYZE;")
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
