"""A linear read-out of each concept from patch vectors: discriminant analysis from the sums of a pass.

It tells where in a picture a concept is, and which neurons carry the evidence for it. Knows numpy only.
"""

from __future__ import annotations

import numpy as np

from explorer.store.probe import Probe
from index.stage.probes import ProbeSums

RIDGE = 0.05
"""Share of the mean variance that is added to every direction before the spread is inverted."""
SMALLEST = 1e-6
"""Variance below which a direction counts as constant."""


class ReadOut:
    """What the patches of each concept look like, against the spread within concepts.

    counts [C + 1]; means [C + 1, d], zeros where nothing was seen, the last row for patches that show none;
    inverse [d, d]: of the covariance within concepts, with a ridge.
    """

    def __init__(self, sums: ProbeSums) -> None:
        self.counts, self._sums = sums.counts, sums.sums.values()
        self.means = self._sums / np.maximum(self.counts, 1)[:, None]
        counts, means = self.counts[:-1], self.means[:-1]
        within = sums.second.values() - (means * counts[:, None]).T @ means
        within /= max(1, int(counts.sum()))
        ridge = RIDGE * max(float(np.trace(within)) / len(within), SMALLEST)
        self.inverse = np.linalg.inv(within + ridge * np.eye(len(within)))

    def probe(self, concepts: tuple[str, ...]) -> Probe:
        """The linear classifier of patches: one row per concept, the last for none of them."""
        weight = self.means @ self.inverse
        bias = -0.5 * (weight * self.means).sum(1)
        bias[self.counts == 0] = -np.inf
        return Probe(concepts, weight.astype(np.float32), bias.astype(np.float32))

    def contrasts(self) -> np.ndarray:
        """[C, d] unit vectors: from the mean of all concepts' patches to each concept's, in the read-out."""
        centre = self._sums[:-1].sum(0) / max(1, int(self.counts[:-1].sum()))
        towards = (self.means[:-1] - centre) @ self.inverse
        towards[self.counts[:-1] == 0] = 0.0
        length = np.linalg.norm(towards, axis=1, keepdims=True)
        return towards / np.where(length > 0, length, 1.0)
