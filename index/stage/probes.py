"""Sums over patch vectors for a linear read-out of each concept, where the source knows what patches show.

Fed with the sampled images only; exact, so the order of the images does not matter. A patch whose concept is
unknown (-2) is left out. The read-out itself is made in `index.meaning.read_out`. Knows numpy and patch
truth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from index.sources.base import PatchTruth
from index.stage.evidence import UNKNOWN
from index.stage.sums import ExactSum

_SUMS = ("sums", "second")


class ProbeSums:
    """counts [C + 1] and sums [C + 1, d] of the patches of each concept, and of those that show none (the
    last row); second [d, d]: sum of the outer products of the vectors of all patches that show a concept."""

    def __init__(self, n_concepts: int, width: int) -> None:
        self.counts = np.zeros(n_concepts + 1, dtype=np.int64)
        self.sums = ExactSum((n_concepts + 1, width))
        self.second = ExactSum((width, width))

    def take(self, patches: np.ndarray, truth: PatchTruth) -> None:
        """Take in the vectors [T, d] of one image."""
        known = np.flatnonzero(truth.concepts > UNKNOWN)
        if not len(known):
            return
        row = truth.concepts[known] % len(self.counts)  # -1 is the last one
        order = np.argsort(row, kind="stable")
        vectors, row = patches[known[order]].astype(np.float64), row[order]
        rows, starts, counts = np.unique(row, return_index=True, return_counts=True)
        self.counts[rows] += counts
        self.sums.add(rows, np.add.reduceat(vectors, starts))
        shown = vectors[row < len(self.counts) - 1]
        if len(shown):
            self.second.add(..., shown.T @ shown)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        found = {f"{name}.counts": self.counts}
        for total in _SUMS:
            found |= getattr(self, total).arrays(f"{name}.{total}")
        return found

    def absorb(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Add other sums, given as their arrays; to empty sums this restores them."""
        self.counts += arrays[f"{name}.counts"]
        for total in _SUMS:
            getattr(self, total).absorb(f"{name}.{total}", arrays)
