"""Small samples and naive oracles for the tests of what neurons mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.stage.sample import PATCHES, Sample


def sample_of(
    scores: np.ndarray,
    embeddings: np.ndarray | None = None,
    labels: Sequence[Sequence[int]] | None = None,
    patches: Sequence[Sequence[Sequence[int]]] | None = None,
) -> Sample:
    """A sample from dense scores [s, F], labels per image, and the neurons that fire on patches of each
    image."""
    n = len(scores)
    row, neuron = np.nonzero(scores)
    labels = [[]] * n if labels is None else labels
    on = [list(of_image) + [[]] * (PATCHES - len(of_image)) for of_image in patches or [[]] * n]
    flat = [list(fires) for of_image in on for fires in of_image]
    return Sample(
        np.arange(n, dtype=np.int64) * 3 + 1,
        np.zeros((n, 2), np.float32) if embeddings is None else embeddings.astype(np.float32),
        np.searchsorted(row, np.arange(n + 1)).astype(np.int64),
        neuron.astype(np.int32),
        scores[row, neuron].astype(np.float32),
        np.cumsum([0, *map(len, flat)], dtype=np.int64),
        np.array([n for fires in flat for n in fires], dtype=np.int32),
        np.cumsum([0, *map(len, labels)], dtype=np.int64),
        np.array([label for row in labels for label in row], dtype=np.int32),
    )
