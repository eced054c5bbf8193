"""A linear read-out of each concept from the site's patch vectors, where the source knows the truth.

Linear discriminant analysis from sums that can be taken in any order: which vectors a concept's
patches have, against the spread within concepts. It ranks a concept's neurons by how much of the
evidence they carry, and tells where in a picture a concept is. Knows numpy only.
"""

from __future__ import annotations

import numpy as np

from explorer.store.probe import Probe
from index.labels import ConceptFacts
from index.sources import PatchTruth
from index.statistics import exact

RIDGE = 0.05
"""Share of the mean variance that is added to every direction before the spread is inverted."""
SELECTIVITY_POWER = 0.2
"""How much a neuron's selectivity counts in `evidence` (see LOG.md)."""
SMALLEST = 1e-6
"""Variance below which a direction counts as constant."""


class ProbeSums:
    """Sums over patches [d] of each concept and of those that show none (the last row)."""

    def __init__(self, n_concepts: int, width: int) -> None:
        self.counts = np.zeros(n_concepts + 1, dtype=np.int64)
        self.sums = np.zeros((n_concepts + 1, width))
        self.second = np.zeros((width, width))

    def take(self, patches: np.ndarray, truth: PatchTruth) -> None:
        """Take in the vectors [patches, d] of one image."""
        vectors = patches.astype(np.float64)
        shown = truth.concepts >= 0
        for concept in np.unique(truth.concepts).tolist():
            here = truth.concepts == concept
            self.counts[concept] += int(here.sum())
            self.sums[concept] += exact(vectors[here].sum(0))
        self.second += exact(vectors[shown].T @ vectors[shown])

    def means(self) -> np.ndarray:
        """Mean vector of each row [C + 1, d]; zeros where nothing was seen."""
        return self.sums / np.maximum(self.counts, 1)[:, None]

    def inverse_spread(self) -> np.ndarray:
        """[d, d]: the inverse of the covariance within concepts, with a ridge."""
        counts, means = self.counts[:-1], self.means()[:-1]
        within = self.second - (means * counts[:, None]).T @ means
        within /= max(1, int(counts.sum()))
        ridge = RIDGE * max(float(np.trace(within)) / len(within), SMALLEST)
        return np.linalg.inv(within + ridge * np.eye(len(within)))

    def probe(self, concepts: tuple[str, ...]) -> Probe:
        """The linear classifier of patches: one row per concept, the last for none of them."""
        means = self.means()
        weight = means @ self.inverse_spread()
        bias = -0.5 * (weight * means).sum(1)
        bias[self.counts == 0] = -np.inf
        return Probe(concepts, weight.astype(np.float32), bias.astype(np.float32))

    def contrasts(self) -> np.ndarray:
        """[C, d] unit vectors: from the mean of all concepts' patches to each concept's, in the read-out."""
        centre = self.sums[:-1].sum(0) / max(1, int(self.counts[:-1].sum()))
        towards = (self.means()[:-1] - centre) @ self.inverse_spread()
        towards[self.counts[:-1] == 0] = 0.0
        length = np.linalg.norm(towards, axis=1, keepdims=True)
        return towards / np.where(length > 0, length, 1.0)


def evidence(facts: ConceptFacts, contrasts: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How much of the evidence for each concept each neuron carries, [C, F]; 0 for none.

    The neuron's mean activation on the concept's patches times how far its decoder direction [F, d] points
    towards the concept, times a weak power of its selectivity, so that of two equal neurons the one that
    is shared with fewer concepts goes first.
    """
    pull = np.maximum(contrasts @ directions.T.astype(np.float64), 0.0)
    return facts.on_mean * pull * facts.selectivity**SELECTIVITY_POWER
