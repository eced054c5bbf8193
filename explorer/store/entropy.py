"""How mixed the labels of a neuron's exemplars are: label entropy, after PatchSAE (arXiv 2412.05276).

Each exemplar's score counts for its label, as a share of all scores of the neuron's exemplars with labels;
the entropy of these shares, in nats, is 0 when all show one label, and log n when n show up alike.
PatchSAE's pictures have one class each. Here a picture may show several labels: then each has an equal part
of the score. A picture without labels counts for nothing; a neuron none of whose exemplars has a label is
unknown.
Numpy, and the tables `exemplars` and `images`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from explorer.store.database import Database


def label_entropies(
    neuron: np.ndarray, image: np.ndarray, score: np.ndarray, labels: Sequence[Sequence[str]], n_neurons: int
) -> np.ndarray:
    """The label entropy of each neuron, [n_neurons] float64, NaN where it is unknown.

    neuron, image, score [n]: the exemplars, by neuron and rank; labels: what each image shows. The order of
    an image's labels makes no difference.
    """
    shown = [sorted(set(row)) for row in labels]
    number = {name: place for place, name in enumerate(sorted({name for row in shown for name in row}))}
    counts = np.array([len(row) for row in shown], dtype=np.int64)
    flat = np.array([number[name] for row in shown for name in row], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    held = counts[image] if len(counts) else np.zeros(len(image), dtype=np.int64)
    row = np.repeat(np.arange(len(image)), held)
    within = np.arange(len(row)) - np.repeat(np.cumsum(held) - held, held)
    key = neuron[row].astype(np.int64) * max(len(number), 1) + flat[starts[image[row]] + within]
    pairs, which = np.unique(key, return_inverse=True)
    weight = np.bincount(which, score[row].astype(np.float64) / held[row], len(pairs))
    owner = pairs // max(len(number), 1)
    total = np.bincount(owner, weight, n_neurons)
    share = weight / total[owner]
    entropy = np.maximum(np.bincount(owner, -share * np.log(share), n_neurons), 0.0)
    return np.where(total > 0, entropy, np.nan)


def stored_entropies(database: Database, n_neurons: int) -> np.ndarray:
    """The label entropy of each neuron [n_neurons], from the exemplars and labels that a store holds."""
    rows = database.ask("SELECT neuron, image, score FROM exemplars ORDER BY neuron, rank")
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    labels = [json.loads(text) for (text,) in database.each("SELECT labels FROM images ORDER BY image")]
    neuron, image = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return label_entropies(neuron, image, columns[:, 2], labels, n_neurons)
