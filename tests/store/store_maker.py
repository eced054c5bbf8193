"""Writes a small store by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from explorer.records import NeuronSummary
from explorer.store import Manifest, Probe, StoreWriter, atomic
from explorer.store.maps import pack, quantise
from explorer.store.writer import ConceptRow, ExemplarRow, ImageRow, SkippedRow

N_NEURONS, N_IMAGES, WIDTH = 6, 4, 5
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


def some_probe() -> Probe:
    """A read-out of three concepts, of which the zebra was never seen."""
    weight = np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)
    bias = np.array([0.1, -2.5, -np.inf, -0.7], dtype=np.float32)
    return Probe(("wine_glass", "cake", "zebra"), weight, bias)


def fill(writer: StoreWriter, truth: bool = True) -> None:
    """Neuron n has n exemplars (at most 4), so neuron 0 is dead. truth: whether patches have truth."""
    writer.add_images(
        ImageRow(i, f"i{i}", f"from/i{i}", ROWS, COLS, bytes([i, 255]), ("cake", "fork")[: i % 3])
        for i in range(N_IMAGES)
    )
    rows = []
    for neuron in range(N_NEURONS):
        for rank in range(min(neuron, N_IMAGES)):
            steps, scales = quantise(some_map(neuron, rank)[None])
            rows.append(ExemplarRow(neuron, rank, rank, 9.0 - rank, float(scales[0]), pack(steps[0])))
    writer.add_exemplars(rows)
    writer.add_neurons(
        NeuronSummary(n, n / 10, [0.0, 1.0, 0.5, 1.0, 0.99, 0.2][n], n * 2.0, n * 3.0, "cake", 0.5)
        for n in range(N_NEURONS)
    )
    if truth:
        writer.add_concepts(
            ConceptRow("wine_glass", rank, 5 - rank, 4.0 - rank, 0.75, 1.0, 0.5, 0.25, 0.125)
            for rank in range(3)
        )
        writer.add_concepts([ConceptRow("cake", 0, 2, 1.0, 1.0, 1.0, 0.5, 0.25, 0.125)])
        writer.add_probe(some_probe())
    writer.add_skipped([SkippedRow("bad.png", "from/bad.png", "it is cut short")])
    writer.add_directions(some_directions())


def make_store(folder: Path, truth: bool = True, **changes: object) -> Path:
    """Write and publish a store at `folder`."""
    with atomic(folder) as work, StoreWriter(work) as writer:
        fill(writer, truth)
        writer.finish(some_manifest(**changes))
    return folder
