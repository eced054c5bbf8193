"""A fair sample of the images, kept whole enough for what needs pairs of images or of neurons.

Whether an image is in it depends on its number alone, so parts of a build agree. Knows numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from index.stage.codes import Codes, Groups
from index.stage.intervals import mix

PATCHES = 16
"""On how many patches of a sampled image the firing neurons are kept."""


class Sample(NamedTuple):
    """The sampled images, rows by ascending number.

    numbers [s] int64; embeddings [s, d] float32: mean patch vectors; score_starts [s + 1] int64,
    score_neurons int32 (ascending in a row), score_values float32: image scores above 0; patch_starts [s
    * 16 + 1] int64, patch_neurons int32 (ascending in a row): who fires on each chosen patch;
    label_starts [s + 1] int64, labels int32.
    """

    numbers: np.ndarray
    embeddings: np.ndarray
    score_starts: np.ndarray
    score_neurons: np.ndarray
    score_values: np.ndarray
    patch_starts: np.ndarray
    patch_neurons: np.ndarray
    label_starts: np.ndarray
    labels: np.ndarray


class Row(NamedTuple):
    """One sampled image; the columns are those of `Sample`, patch_counts [16] how many fire on each
    patch."""

    embedding: np.ndarray
    score_neurons: np.ndarray
    score_values: np.ndarray
    patch_counts: np.ndarray
    patch_neurons: np.ndarray
    labels: np.ndarray


def sampled(numbers: np.ndarray, rate: float) -> np.ndarray:
    """Which of these images belong to the sample: mask [b]."""
    return mix(numbers).astype(np.float64) < rate * 2.0**32


def chosen_patches(number: int, n_patches: int) -> np.ndarray:
    """The patches of an image that the sample looks at, ascending."""
    if n_patches <= PATCHES:
        return np.arange(n_patches)
    dice = mix(np.arange(n_patches) ^ mix(np.array([number])))
    return np.sort(np.argsort(dice)[:PATCHES])


class Sampler:
    """Collects the rows of sampled images."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows: dict[int, Row] = {}

    def take(
        self,
        which: np.ndarray,
        numbers: np.ndarray,
        labels: Sequence[Sequence[int]],
        codes: Codes,
        groups: Groups,
        embeddings: np.ndarray,
    ) -> None:
        """Keep the images at the places `which` of a chunk."""
        if not len(which):
            return
        wanted = np.zeros(codes.n_images, dtype=bool)
        wanted[which] = True
        kept = np.flatnonzero(wanted[groups.image])
        kept = kept[np.argsort(groups.image[kept], kind="stable")]
        edges = np.searchsorted(groups.image[kept], np.arange(codes.n_images + 1))
        ends = np.searchsorted(codes.image, np.arange(codes.n_images + 1, dtype=codes.image.dtype))
        for i in which.tolist():
            mine, entries = kept[edges[i] : edges[i + 1]], slice(ends[i], ends[i + 1])
            counts, neurons = self._on_patches(int(numbers[i]), codes, entries)
            self._rows[int(numbers[i])] = Row(
                embeddings[i].astype(np.float32),
                groups.neuron[mine].astype(np.int32),
                groups.score[mine].copy(),
                counts,
                neurons,
                np.asarray(labels[i], dtype=np.int32),
            )

    def _on_patches(self, number: int, codes: Codes, entries: slice) -> tuple[np.ndarray, np.ndarray]:
        """How many neurons fire on each chosen patch [16], and which."""
        chosen = chosen_patches(number, codes.n_patches)
        place = np.full(codes.n_patches + 1, -1)
        place[chosen] = np.arange(len(chosen))
        at = place[codes.token[entries]]
        on = np.flatnonzero(at >= 0)
        neurons = codes.neuron[entries][on].astype(np.int32)
        order = np.lexsort((neurons, at[on]))
        return np.bincount(at[on], minlength=PATCHES), neurons[order]

    def sample(self) -> Sample:
        """All rows so far, by number."""
        numbers = np.array(sorted(self._rows), dtype=np.int64)
        rows = [self._rows[number] for number in numbers.tolist()]
        embeddings = np.zeros((len(rows), self._width), dtype=np.float32)
        for i, row in enumerate(rows):
            embeddings[i] = row.embedding
        counts = [row.patch_counts for row in rows]
        return Sample(
            numbers,
            embeddings,
            _starts([len(row.score_neurons) for row in rows]),
            _joined([row.score_neurons for row in rows], np.int32),
            _joined([row.score_values for row in rows], np.float32),
            _starts(_joined(counts, np.int64)),
            _joined([row.patch_neurons for row in rows], np.int32),
            _starts([len(row.labels) for row in rows]),
            _joined([row.labels for row in rows], np.int32),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps: the columns of the sample."""
        return {f"sample.{name}": column for name, column in self.sample()._asdict().items()}

    def absorb(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add other sampled images, given as their arrays; to an empty sampler this restores them."""
        found = Sample(*(np.asarray(arrays[f"sample.{name}"]) for name in Sample._fields))
        for i, number in enumerate(found.numbers.tolist()):
            scores = slice(found.score_starts[i], found.score_starts[i + 1])
            edges = found.patch_starts[i * PATCHES : (i + 1) * PATCHES + 1]
            self._rows[number] = Row(
                found.embeddings[i],
                found.score_neurons[scores],
                found.score_values[scores],
                np.diff(edges),
                found.patch_neurons[edges[0] : edges[-1]],
                found.labels[found.label_starts[i] : found.label_starts[i + 1]],
            )


def _starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _joined(columns: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *columns]).astype(kind, copy=False)
