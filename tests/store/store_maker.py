"""Writes a small store by hand."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from explorer.records import NeuronSummary
from explorer.store import Manifest, Probe, StoreWriter, atomic
from explorer.store.histogram import BINS, bins_of
from explorer.store.manifest import facts_of
from explorer.store.maps import pack, quantise
from explorer.store.rows import (
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

N_NEURONS, N_IMAGES, WIDTH = 6, 6, 5
MOST = 4
"""Exemplars of a neuron; the last two images are in intervals only."""
PEAKS = np.arange(N_NEURONS, dtype=np.float32) * 3
ROWS, COLS = 2, 3


def some_manifest(**changes: object) -> Manifest:
    """A manifest of the store that `make_store` writes."""
    facts: dict[str, object] = {
        "model_id": "fake@0123",
        "block": 1,
        "sae_id": "ab" * 32,
        "n_neurons": N_NEURONS,
        "n_images": 50,
        "n_skipped": 1,
        "rows": ROWS,
        "cols": COLS,
        "score": "mean",
        "places": 16,
        "source": "by hand",
        "image_list_hash": "cd" * 32,
        "preprocessing": "none",
        "fvu": {"0.5": 0.1, "0.9": 0.2, "0.99": 0.3, "0.995": 0.35, "0.999": 0.4},
        "created": "2026-11-20T12:00:00+00:00",
        "batch": 32,
        "include_cls": False,
        "sample": 4096,
        "n_parts": 1,
        "interval_places": 10,
        "monosemanticity_baseline": 0.25,
        "dtype": "float32",
        "words": "answer",
    }
    return Manifest(**{**facts, **changes})


def some_map(neuron: int, rank: int) -> np.ndarray:
    """The patch map at one place, [T]."""
    return np.arange(ROWS * COLS, dtype=np.float32) * (neuron + 1) / (rank + 2)


def some_directions() -> np.ndarray:
    """Directions [F, d] of different lengths; neuron 1 points almost where neuron 0 does, neuron 5 is 0."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(N_NEURONS, WIDTH)).astype(np.float32)
    rows[1] = 3 * rows[0] + 0.01
    rows[5] = 0
    return rows


def some_centroids() -> np.ndarray:
    """Centroids [F, d] of different lengths; neuron 0 is dead."""
    rows = np.random.default_rng(4).normal(size=(N_NEURONS, WIDTH)).astype(np.float32)
    rows[0] = 0
    return rows


def some_b_dec() -> np.ndarray:
    """What is taken off before sketching, [d]."""
    return np.array([0.5, -2.0, 0.0, 1.0, 3.0], dtype=np.float32)


def some_mean_patch() -> np.ndarray:
    """The mean patch vector [d], in a precision that the store does not keep."""
    return np.array([1 / 3, -1e-8, 0.0, 7e5, 2.0], dtype=np.float64)


def some_histograms() -> np.ndarray:
    """Counts [F, 64]: neuron n fires in 5 n of the 50 images, once at its peak, else a quarter of it."""
    counts = np.zeros((N_NEURONS, BINS), dtype=np.int64)
    for neuron in range(1, N_NEURONS):
        high, low = bins_of(np.array([PEAKS[neuron], PEAKS[neuron] / 4]))
        counts[neuron, high], counts[neuron, low] = 1, 5 * neuron - 1
    return counts


def some_entropy(neuron: int) -> float | None:
    """Of the labels of the exemplars: rank 1 shows a cake, rank 2 a cake and a fork, the others nothing."""
    fork = {2: 0.0, 3: 3.5 / 15, 4: 5 / 21, 5: 6.5 / 27}.get(neuron)
    if fork is None:
        return None
    return -(fork * math.log(fork) + (1 - fork) * math.log(1 - fork)) if fork else 0.0


def some_positions() -> np.ndarray:
    """Places on the map [F, 2]; neuron 5 has no direction, and none."""
    rows = np.array([[0.25, -1.0], [0.5, 0.125], [-0.75, 0.5], [1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    rows[5] = np.nan
    return rows


def some_summary(neuron: int) -> NeuronSummary:
    """The row of `neurons`: numbers that differ from field to field, unknown ones for neuron 1."""
    known = neuron != 1
    return NeuronSummary(
        neuron,
        fires=neuron / 10,
        in_top=[0.0, 1.0, 0.5, 1.0, 0.99, 0.2][neuron],
        mean=neuron * 2.0,
        peak=float(PEAKS[neuron]),
        label="cake" if neuron else "",
        precision=0.5,
        kind="concept" if neuron else "",
        patch_fires=neuron / 30,
        variance=neuron * 0.25,
        active_mean=neuron * 4.0,
        active_variance=neuron * 0.125,
        active_peak=neuron * 8.0,
        lift=1.5,
        average_precision=0.625 if known else None,
        monosemanticity=-0.5 if known else None,
        monosemanticity_images=7 if known else 1,
        neuron_class=["dead", "always_on", "image_specific", "always_on", *["image_specific"] * 2][neuron],
        entropy=some_entropy(neuron),
    )


def some_probe() -> Probe:
    """A read-out of three concepts, of which the zebra was never seen."""
    weight = np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)
    bias = np.array([0.1, -2.5, -np.inf, -0.7], dtype=np.float32)
    return Probe(("wine_glass", "cake", "zebra"), weight, bias)


def fill(writer: StoreWriter, truth: bool = True) -> None:
    """Neuron n has n exemplars (at most 4), so neuron 0 is dead. truth: patches have truth, and a mean."""
    writer.add_images(
        ImageRow(i, f"i{i}", f"from/i{i}", ROWS, COLS, bytes([i, 255]), ("cake", "fork")[: i % 3])
        for i in range(N_IMAGES)
    )
    rows, intervals = [], []
    for neuron in range(1, N_NEURONS):
        peak = float(PEAKS[neuron])
        for rank in range(min(neuron, MOST)):
            steps, scales = quantise(some_map(neuron, rank)[None])
            rows.append(ExemplarRow(neuron, rank, rank, peak - rank, float(scales[0]), pack(steps[0])))
        for interval, image in ((2, 4), (4, 5)):
            steps, scales = quantise(some_map(neuron, image)[None])
            score = peak / 2 ** (interval / 2)
            intervals.append(IntervalRow(neuron, interval, image, score, float(scales[0]), pack(steps[0])))
    writer.add_exemplars(rows)
    writer.add_intervals(intervals)
    writer.add_neurons(map(some_summary, range(N_NEURONS)), some_histograms(), 2 * some_histograms())
    writer.add_labels(
        [
            LabelRow(3, 0, "concept", "cake", 1.0, 4.0, 0.75),
            LabelRow(3, 1, "category", "wine glass", 0.5, 2.0, None),
            LabelRow(5, 0, "word", "café", 0.25, 1.5, 0.5),
        ]
    )
    writer.add_label_images(
        [
            LabelImagesRow("concept", "cake", 12),
            LabelImagesRow("category", "wine glass", 3),
            LabelImagesRow("word", "café", 1),
        ]
    )
    writer.add_words([WordRow(2, 0, "zebra", 3.5), WordRow(2, 1, "stripe", 1.25), WordRow(4, 0, "cake", 2.0)])
    writer.add_partners([PartnerRow(3, 0, 5, 0.5, 0.75), PartnerRow(3, 1, 1, 0.25, 0.125)])
    if truth:
        writer.add_mean_patch(some_mean_patch())
        writer.add_concepts(
            ConceptRow("wine_glass", rank, 5 - rank, 4.0 - rank, 0.75, 1.0, 0.5, 0.25, 0.125)
            for rank in range(3)
        )
        writer.add_concepts([ConceptRow("cake", 0, 2, 1.0, 1.0, 1.0, 0.5, 0.25, 0.125)])
        writer.add_probe(some_probe())
    writer.add_skipped([SkippedRow("bad.png", "from/bad.png", "it is cut short")])
    writer.add_directions(some_directions())
    writer.add_positions(some_positions())
    writer.add_centroids(some_centroids(), some_b_dec())


def make_store(folder: Path, truth: bool = True, **changes: object) -> Path:
    """Write and publish a store at `folder`."""
    with atomic(folder) as work, StoreWriter(work) as writer:
        fill(writer, truth)
        writer.finish(some_manifest(**changes))
    return folder


def make_store_of_format_2(folder: Path, **changes: object) -> Path:
    """The same store as a program wrote it that knew neither label entropy nor the map."""
    return to_format_2(make_store(folder, **changes))


def to_format_2(folder: Path) -> Path:
    """Take from a store what format 3 added."""
    with closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
        db.execute("ALTER TABLE neurons DROP COLUMN entropy")
        db.execute("DROP TABLE positions")
        db.execute("PRAGMA user_version = 2")
    path = folder / "manifest.json"
    text = json.loads(path.read_text())
    files = {name: facts_of(folder / name)._asdict() for name in text["files"]}
    path.write_text(json.dumps({**text, "format": 2, "files": files}))
    return folder
