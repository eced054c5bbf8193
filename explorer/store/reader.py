"""Reads a store: one method per question. Knows the tables; nothing of models or pages.

What looks at many neurons at once, and people's notes, is in `gallery`.

Every method may be called from any thread, and an open store goes on when a new build takes its place.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from explorer.errors import StoreError
from explorer.records import (
    Activation,
    Exemplar,
    Found,
    Histogram,
    IntervalExemplar,
    LabelEvidence,
    NeuronSummary,
    Partner,
    TextMatch,
    Word,
)
from explorer.store import histogram
from explorer.store.classes import ALWAYS_SHARE, RARE_SHARE, classify
from explorer.store.database import Database
from explorer.store.fit import differences
from explorer.store.gallery import Gallery
from explorer.store.manifest import (
    CENTROIDS_NAME,
    DATABASE_NAME,
    DIRECTIONS_NAME,
    FILE_NAMES,
    Manifest,
    build_command,
    read_manifest,
)
from explorer.store.maps import unpack
from explorer.store.notes_file import NotesFile
from explorer.store.probe import Probe
from explorer.store.rows import MEAN_PATCH
from explorer.store.texts import search_texts
from explorer.store.vectors import Centroids, Directions
from explorer.store.verify import problems

_QUESTIONS_AT_ONCE = 500
_UNREAD = object()
# The fields of NeuronSummary, in their order.
_SUMMARY = (
    "neuron, fires, in_top, mean, peak, label, precision, kind, patch_fires, variance, active_mean,"
    " active_variance, active_peak, lift, average_precision, monosemanticity, monosemanticity_images, class,"
    " entropy"
)
_PICTURE = (
    "e.score, i.image_id, i.origin, i.thumbnail, e.patch_map, e.scale, i.grid_rows, i.grid_cols, i.labels"
)


class Skipped(NamedTuple):
    """A picture that the build could not read, and why."""

    image_id: str
    origin: str
    reason: str


def concept_key(words: str) -> str:
    """The form in which the store names concepts: "  Wine glass" -> "wine_glass"."""
    return re.sub(r"[\s_-]+", "_", words.strip()).strip("_").lower()


class Store(Gallery):
    """A finished store, open for reading; people's notes and lists can be written."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        database: Database,
        directions: Directions,
        centroids: Centroids,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._database = database
        self._directions = directions
        self._centroids = centroids
        self._open_gallery(NotesFile(folder, manifest.sae_id))
        self._probe: object = _UNREAD
        self._probe_lock = threading.Lock()
        self._always_on: dict[float, tuple[int, ...]] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a store. Raises StoreError when it is missing, unfinished, damaged or of another format."""
        folder = Path(folder).absolute()
        manifest = read_manifest(folder)
        for name in FILE_NAMES:
            path = folder / name
            if name not in manifest.files or not path.is_file():
                raise StoreError(f"the store {folder} lacks {name}; build it again")
            if path.stat().st_size != manifest.files[name].bytes:
                raise StoreError(
                    f"{name} of the store {folder} has {path.stat().st_size} bytes instead of "
                    f"{manifest.files[name].bytes}; build it again"
                )
        database = Database(folder / DATABASE_NAME)
        directions = Directions(folder / DIRECTIONS_NAME)
        centroids = Centroids(folder / CENTROIDS_NAME)
        for vectors, name in ((directions, DIRECTIONS_NAME), (centroids, CENTROIDS_NAME)):
            if len(vectors) != manifest.n_neurons:
                raise StoreError(
                    f"{name} of the store {folder} has {len(vectors)} rows for {manifest.n_neurons} neurons; "
                    "build it again"
                )
        return cls(folder, manifest, database, directions, centroids)

    def close(self) -> None:
        """Close the database; the store cannot be asked anything afterwards."""
        self._database.close()

    def verify(self) -> None:
        """Read everything again and check it against FORMAT.md. Raises StoreError that lists what is wrong.

        Takes some seconds for a large store. People's notes are not part of it.
        """
        found = problems(self.folder, self.manifest, self._database, self._directions, self._centroids)
        if found:
            raise StoreError(
                f"the store {self.folder} is damaged: {'; '.join(found)}. "
                f"Build it again: {build_command(self.folder, self.manifest.source)}"
            )

    def check(
        self,
        *,
        model_id: str | None = None,
        block: int | None = None,
        sae_id: str | None = None,
        n_neurons: int | None = None,
        preprocessing: str | None = None,
        score: str | None = None,
    ) -> None:
        """Raise StoreError that says what differs from the session's model and SAE. None: not compared.

        Models are compared by their weights, wherever they lie; the precision they ran in never matters.
        """
        wanted = {
            **{"model_id": model_id, "block": block, "sae_id": sae_id, "n_neurons": n_neurons},
            **{"preprocessing": preprocessing, "score": score},
        }
        found = differences(self.manifest, wanted)
        if found:
            raise StoreError(
                f"the store {self.folder} does not fit: {'; '.join(found)}. Build one with this model and "
                "SAE: python -m index build --model MODEL --sae SAE --images FOLDER --out STORE "
                "(without --model and --sae for the embedded set)"
            )

    def exemplars(self, neuron: int) -> list[Exemplar]:
        """The neuron's strongest images, strongest first; none when it is dead."""
        self._check_neuron(neuron)
        rows = self._database.ask(
            f"SELECT e.rank, {_PICTURE} FROM exemplars e JOIN images i USING (image)"
            " WHERE e.neuron = ? ORDER BY e.rank",
            (neuron,),
        )
        return [Exemplar(neuron, rank, *_picture(*rest)) for rank, *rest in rows]

    def interval_exemplars(self, neuron: int) -> list[IntervalExemplar]:
        """One image per half-octave of the score, from the peak's downwards, none of them an exemplar."""
        self._check_neuron(neuron)
        rows = self._database.ask(
            f"SELECT e.interval, {_PICTURE} FROM interval_exemplars e JOIN images i USING (image)"
            " WHERE e.neuron = ? ORDER BY e.interval",
            (neuron,),
        )
        return [
            IntervalExemplar(neuron, rank, *_picture(*rest), interval, *histogram.span_of(rest[0]))
            for rank, (interval, *rest) in enumerate(rows)
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
            sql = f"SELECT {_SUMMARY} FROM neurons WHERE neuron IN ({', '.join('?' * len(part))})"
            found.update((row[0], NeuronSummary(*row)) for row in self._database.ask(sql, part))
        return {neuron: found[neuron] for neuron in wanted}

    def histogram(self, neuron: int, which: Literal["score", "active"] = "score") -> Histogram:
        """How often each size came up: "score" over images, "active" over patches, both only above 0."""
        self._check_neuron(neuron)
        column = {"score": "score_histogram", "active": "active_histogram"}.get(which)
        if column is None:
            raise StoreError(f"there is no histogram {which!r}; use 'score' or 'active'")
        ((blob,),) = self._database.ask(f"SELECT {column} FROM neurons WHERE neuron = ?", (neuron,))
        return histogram.histogram(histogram.unpack(blob))

    def labels(self, neuron: int) -> list[LabelEvidence]:
        """The labels that the neuron stands for best, best first; none when the source has no labels."""
        self._check_neuron(neuron)
        sql = (
            "SELECT kind, label, precision, lift, average_precision, coalesce(images, 0) FROM neuron_labels"
            " LEFT JOIN label_images USING (kind, label) WHERE neuron = ? ORDER BY rank"
        )
        return [LabelEvidence(*row) for row in self._database.ask(sql, (neuron,))]

    def words(self, neuron: int) -> list[Word]:
        """The words that the neuron's direction raises most in the language model, most raised first."""
        self._check_neuron(neuron)
        sql = "SELECT word, gain FROM neuron_words WHERE neuron = ? ORDER BY rank"
        return [Word(*row) for row in self._database.ask(sql, (neuron,))]

    def partners(self, neuron: int) -> list[Partner]:
        """The neurons that fire on the same patches, the closest first."""
        self._check_neuron(neuron)
        sql = "SELECT partner, together, cosine FROM partners WHERE neuron = ? ORDER BY rank"
        return [Partner(*row) for row in self._database.ask(sql, (neuron,))]

    def find(self, concept: str, k: int = 3) -> list[Found]:
        """The neurons that stand for a concept, best first; none when the store does not know the concept."""
        sql = "SELECT neuron, concept, score, precision FROM concepts WHERE concept = ? ORDER BY rank LIMIT ?"
        return [Found(*row) for row in self._database.ask(sql, (concept_key(concept), max(k, 0)))]

    def search(self, text: str, k: int = 20) -> list[TextMatch]:
        """The neurons whose name, labels, words or notes hold all words of a text; people's own first.

        The last word may be the beginning of one. Any text is allowed; without a letter or digit in it
        nothing is found.
        """
        return search_texts(self._database, self._notes, text, k)

    def concepts(self) -> list[str]:
        """The concepts that `find` knows, in alphabetical order."""
        return [
            row[0] for row in self._database.ask("SELECT DISTINCT concept FROM concepts ORDER BY concept")
        ]

    def probe(self) -> Probe | None:
        """The linear read-out of concepts from patches; None when the source had no truth per patch."""
        with self._probe_lock:
            if self._probe is _UNREAD:
                self._probe = self._read_probe()
            return self._probe  # type: ignore[return-value]

    def _read_probe(self) -> Probe | None:
        rows = self._database.ask("SELECT concept, bias, weight FROM probes ORDER BY place")
        if not rows:
            return None
        bias = np.array([-np.inf if row[1] is None else row[1] for row in rows], dtype=np.float32)
        weight = np.stack([np.frombuffer(row[2], dtype="<f4") for row in rows])
        return Probe(tuple(row[0] for row in rows[:-1]), weight, bias)

    def mean_patch(self) -> np.ndarray | None:
        """The mean patch vector [d] float32 of the sampled images; None when none was sampled."""
        rows = self._database.ask("SELECT vector FROM site WHERE name = ?", (MEAN_PATCH,))
        return np.frombuffer(rows[0][0], dtype="<f4").astype(np.float32) if rows else None

    def similar(self, neuron: int, k: int = 8) -> list[Activation]:
        """The k neurons whose decoder direction is nearest, with the cosine as value, nearest first."""
        self._check_neuron(neuron)
        return self._directions.similar(neuron, k)

    def by_picture(self, vector: np.ndarray, k: int = 20) -> list[Activation]:
        """The k neurons whose exemplars look most like a picture, with the cosine, nearest first.

        vector: the mean patch vector [d] of the picture at the site. Raises StoreError when it has another
        width or values that are not finite.
        """
        return self._centroids.nearest(vector, k)

    def by_patch(self, vector: np.ndarray, k: int = 20) -> list[Activation]:
        """As `by_picture`, for the vector [d] of one patch, or the mean of several."""
        return self._centroids.nearest(vector, k)

    def always_on(self, min_frequency: float = 1.0) -> list[int]:
        """The neurons that are in the image-level top-20 of at least this share of the indexed images."""
        known = self._always_on.get(min_frequency)
        if known is None:
            sql = "SELECT neuron FROM neurons WHERE in_top >= ? ORDER BY neuron"
            known = tuple(row[0] for row in self._database.ask(sql, (min_frequency,)))
            self._always_on = {min_frequency: known}  # each contrast asks, with the same share mostly
        return list(known)

    def classes(self, always_share: float = ALWAYS_SHARE, rare_share: float = RARE_SHARE) -> np.ndarray:
        """The class of every neuron, [F] str; `classes.count` counts them.

        always_share, rare_share: as in `classes.classify`; the column `class` holds those of the defaults.
        """
        shares = np.array(self._database.ask("SELECT fires, in_top FROM neurons ORDER BY neuron"))
        return classify(shares[:, 0], shares[:, 1], always_share, rare_share)

    def skipped(self) -> list[Skipped]:
        """The pictures that the build could not read."""
        return [Skipped(*row) for row in self._database.ask("SELECT * FROM skipped ORDER BY image_id")]


def _picture(
    score: float,
    image_id: str,
    origin: str,
    thumbnail: bytes,
    blob: bytes,
    scale: float,
    rows: int,
    cols: int,
    labels: str,
) -> tuple[float, str, str, bytes, np.ndarray, tuple[str, ...]]:
    """The fields of an Exemplar from `score` on, out of the columns _PICTURE."""
    shown = tuple(json.loads(labels))
    return score, image_id, origin, thumbnail, unpack(blob, scale, rows, cols), shown
