"""What a neuron sees in an image, in few numbers: the mean of the patch vectors where it fires, by
activation.

Eight-bit, of unit direction; centroids of a neuron's exemplars are made of these. Knows numpy and torch
only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from index.stage.codes import Runs, spans

_MOST = 1 << 20


def drawn(runs: Runs, sketches: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Sketches [w, s] int8 of some runs, from the projected patch vectors of the chunk [b, T, s].

    A sketch is the mean over the patches where the neuron fires, weighted by its activation, scaled so
    that the largest component is 127; 0 where it fires on no patch.
    """
    n_images, n_patches, side = sketches.shape
    table = torch.from_numpy(sketches.reshape(n_images * n_patches, side))
    found = np.zeros((len(which), side), dtype=np.int8)
    counts = runs.ends[which] - runs.starts[which]
    for begin, end in _parts(counts):
        some = which[begin:end]
        entries = spans(runs.starts[some], counts[begin:end])
        row = np.repeat(runs.image[some] * n_patches, counts[begin:end]) + runs.token[entries]
        mean = functional.embedding_bag(
            torch.from_numpy(row),
            table,
            torch.from_numpy(np.cumsum(counts[begin:end]) - counts[begin:end]),
            mode="sum",
            per_sample_weights=torch.from_numpy(runs.value[entries]),
        ).numpy()
        largest = np.maximum(mean.max(axis=1), -mean.min(axis=1))
        mean *= (np.float32(127) / np.where(largest > 0, largest, np.float32(1)))[:, None]
        found[begin:end] = np.rint(mean, out=mean)
    return found


def _parts(counts: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of groups of about _MOST entries together."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(_MOST, ends[-1] if len(ends) else 0, _MOST))
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
