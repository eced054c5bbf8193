"""Reads a store. Knows the schema, the manifest and the directions; nothing of models or pages.

One read-only connection serves all threads behind a lock. A question takes microseconds, and a
connection opened at the start keeps reading the same files when a new build takes the folder's place.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from explorer.errors import StoreError
from explorer.records import Activation, Exemplar, Found, NeuronSummary
from explorer.store.manifest import (
    DATABASE_NAME,
    DIRECTIONS_NAME,
    Manifest,
    facts_of,
    read_manifest,
)
from explorer.store.maps import unpack
from explorer.store.probe import Probe
from explorer.store.schema import LATEST, version
from explorer.store.vectors import Directions

_QUESTIONS_AT_ONCE = 500


class Skipped(NamedTuple):
    """A picture that the build could not read, and why."""

    image_id: str
    origin: str
    reason: str


def concept_key(words: str) -> str:
    """The form in which the store names concepts: "  Wine glass" -> "wine_glass"."""
    return re.sub(r"[\s_-]+", "_", words.strip()).strip("_").lower()


class Store:
    """A finished store, open for reading. Methods may be called from any thread."""

    def __init__(
        self, folder: Path, manifest: Manifest, db: sqlite3.Connection, directions: Directions
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._db = db
        self._lock = threading.Lock()
        self._directions = directions

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a store. Raises StoreError when it is missing, unfinished, damaged or of another format."""
        folder = Path(folder).absolute()
        manifest = read_manifest(folder)
        for name in (DATABASE_NAME, DIRECTIONS_NAME):
            path = folder / name
            if name not in manifest.files or not path.is_file():
                raise StoreError(f"the store {folder} lacks {name}; build it again")
            if path.stat().st_size != manifest.files[name].bytes:
                raise StoreError(
                    f"{name} of the store {folder} has {path.stat().st_size} bytes instead of "
                    f"{manifest.files[name].bytes}; build it again"
                )
        db = _connect(folder / DATABASE_NAME)
        directions = Directions(folder / DIRECTIONS_NAME)
        if len(directions) != manifest.n_neurons:
            raise StoreError(
                f"the store {folder} has {len(directions)} directions for {manifest.n_neurons} neurons; "
                "build it again"
            )
        return cls(folder, manifest, db, directions)

    def close(self) -> None:
        """Close the database; the store cannot be asked anything afterwards."""
        with self._lock:
            self._db.close()

    def verify(self) -> None:
        """Hash the files again. Raises StoreError that names those which changed since the build."""
        changed = [
            name for name, facts in self.manifest.files.items() if facts_of(self.folder / name) != facts
        ]
        if changed:
            raise StoreError(
                f"{', '.join(changed)} of the store {self.folder} changed after the build; build it again"
            )

    def check(
        self,
        *,
        model_id: str | None = None,
        block: int | None = None,
        sae_id: str | None = None,
        n_neurons: int | None = None,
    ) -> None:
        """Raise StoreError that says what differs from the model and SAE given. None: not compared."""
        wanted = {"model_id": model_id, "block": block, "sae_id": sae_id, "n_neurons": n_neurons}
        words = {"model_id": "model", "block": "block", "sae_id": "SAE", "n_neurons": "number of neurons"}
        differences = [
            f"its {words[name]} is {getattr(self.manifest, name)}, the session's is {value}"
            for name, value in wanted.items()
            if value is not None and value != getattr(self.manifest, name)
        ]
        if differences:
            raise StoreError(
                f"the store {self.folder} does not fit: {'; '.join(differences)}. "
                "Build it again with this model and SAE: python -m index build"
            )

    def exemplars(self, neuron: int) -> list[Exemplar]:
        """The neuron's strongest images, strongest first; none when it is dead."""
        self._check_neuron(neuron)
        rows = self._ask(
            "SELECT e.rank, e.score, i.image_id, i.origin, i.thumbnail, e.patch_map, e.scale, i.grid_rows,"
            " i.grid_cols, i.labels FROM exemplars e JOIN images i USING (image)"
            " WHERE e.neuron = ? ORDER BY e.rank",
            (neuron,),
        )
        return [
            Exemplar(
                neuron=neuron,
                rank=rank,
                score=score,
                image_id=image_id,
                origin=origin,
                thumbnail=thumbnail,
                patch_map=unpack(blob, scale, n_rows, n_cols),
                labels=tuple(json.loads(labels)),
            )
            for rank, score, image_id, origin, thumbnail, blob, scale, n_rows, n_cols, labels in rows
        ]

    def summary(self, neuron: int) -> NeuronSummary:
        """What the store knows of one neuron."""
        return self.summaries([neuron])[neuron]

    def summaries(self, neurons: Iterable[int]) -> dict[int, NeuronSummary]:
        """What the store knows of several neurons, by neuron, in the order asked for."""
        wanted = list(dict.fromkeys(int(neuron) for neuron in neurons))
        for neuron in wanted:
            self._check_neuron(neuron)
        found: dict[int, NeuronSummary] = {}
        for start in range(0, len(wanted), _QUESTIONS_AT_ONCE):
            part = wanted[start : start + _QUESTIONS_AT_ONCE]
            marks = ", ".join("?" * len(part))
            sql = (
                "SELECT neuron, fires, in_top, mean, peak, label, precision FROM neurons "
                f"WHERE neuron IN ({marks})"
            )
            found.update((row[0], NeuronSummary(*row)) for row in self._ask(sql, part))
        return {neuron: found[neuron] for neuron in wanted}

    def find(self, concept: str, k: int = 3) -> list[Found]:
        """The neurons that stand for a concept, best first; none when the store does not know the concept."""
        sql = "SELECT neuron, concept, score, precision FROM concepts WHERE concept = ? ORDER BY rank LIMIT ?"
        return [Found(*row) for row in self._ask(sql, (concept_key(concept), max(k, 0)))]

    def concepts(self) -> list[str]:
        """The concepts that `find` knows, in alphabetical order."""
        return [row[0] for row in self._ask("SELECT DISTINCT concept FROM concepts ORDER BY concept", ())]

    def probe(self) -> Probe | None:
        """The linear read-out of concepts from patches; None when the source had no truth per patch."""
        rows = self._ask("SELECT concept, bias, weight FROM probes ORDER BY place", ())
        if not rows:
            return None
        bias = np.array([-np.inf if row[1] is None else row[1] for row in rows], dtype=np.float32)
        weight = np.stack([np.frombuffer(row[2], dtype="<f4") for row in rows])
        return Probe(tuple(row[0] for row in rows[:-1]), weight, bias)

    def similar(self, neuron: int, k: int = 8) -> list[Activation]:
        """The k neurons whose decoder direction is nearest, with the cosine as value, nearest first."""
        self._check_neuron(neuron)
        return self._directions.similar(neuron, k)

    def always_on(self, min_frequency: float = 1.0) -> list[int]:
        """The neurons that are in the image-level top-20 of at least this share of the indexed images."""
        sql = "SELECT neuron FROM neurons WHERE in_top >= ? ORDER BY neuron"
        return [row[0] for row in self._ask(sql, (min_frequency,))]

    def skipped(self) -> list[Skipped]:
        """The pictures that the build could not read."""
        return [Skipped(*row) for row in self._ask("SELECT * FROM skipped ORDER BY image_id", ())]

    def _check_neuron(self, neuron: int) -> None:
        if not 0 <= neuron < self.manifest.n_neurons:
            raise StoreError(
                f"there is no neuron {neuron}; the store has neurons 0 to {self.manifest.n_neurons - 1}"
            )

    def _ask(self, sql: str, values: Sequence[object]) -> list[tuple]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"cannot read the store {self.folder}: {error}; build it again if this stays"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that can only read, on a file that never changes."""
    try:
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        found = version(db)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"cannot read {path}: {error}; build the store again") from error
    if found != LATEST:
        raise StoreError(
            f"{path} has schema {found}, this program reads schema {LATEST}; build the store again"
        )
    return db
