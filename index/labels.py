"""Which neurons stand for which concept, from ground truth per patch.

Knows numpy and the source's patch truth; nothing of scenes, models or SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from explorer.store.writer import ConceptRow
from index.scores import ImageCodes
from index.sources import PatchTruth
from index.statistics import exact

LEAST_PRECISION = 0.5
"""Share of its exemplars that must show a concept for a neuron to be called by it."""
PER_CONCEPT = 32
"""How many neurons the store keeps for a concept."""


class ConceptFacts(NamedTuple):
    """What the ranking may use, all [C, F] float64.

    on_mean: mean activation over the concept's patches; off_mean: over all other patches;
    firing: share of the concept's patches where the neuron fires; reach: share of the concept's objects
    with at least one patch on which the neuron fires on some patch; selectivity: share of the neuron's
    whole activation that falls on the concept's patches.
    """

    on_mean: np.ndarray
    off_mean: np.ndarray
    firing: np.ndarray
    reach: np.ndarray
    selectivity: np.ndarray


class Labels(NamedTuple):
    """The best concept of each neuron [F], -1 for none, and the share of its exemplars that show it [F]."""

    concept: np.ndarray
    precision: np.ndarray


def rank_scores(facts: ConceptFacts) -> np.ndarray:
    """How well each neuron alone stands for each concept, [C, F], between 0 and 1.

    The share of the concept's patches where it fires, times the share of its activation that falls there:
    1 for a neuron that fires on all patches of the concept and nowhere else.
    """
    return facts.firing * facts.selectivity


class ConceptEvidence:
    """Sums over patches, taken in one image at a time; exact, so order does not matter.

    on_total, on_fires, reached [C, F] and total [F]: activation on the concept's patches, patches and
    objects where the neuron fires, activation on all patches; on_patches, objects [C]; patches: counts.
    """

    def __init__(self, n_concepts: int, n_neurons: int) -> None:
        self.on_total = np.zeros((n_concepts, n_neurons), dtype=np.float64)
        self.on_fires = np.zeros((n_concepts, n_neurons), dtype=np.int64)
        self.reached = np.zeros((n_concepts, n_neurons), dtype=np.int64)
        self.total = np.zeros(n_neurons, dtype=np.float64)
        self.on_patches = np.zeros(n_concepts, dtype=np.int64)
        self.objects = np.zeros(n_concepts, dtype=np.int64)
        self.patches = 0

    def take(self, codes: ImageCodes, truth: PatchTruth) -> None:
        """Take in the activations of one image and what its patches show."""
        n_neurons, n_objects = len(self.total), int(truth.objects.max(initial=-1)) + 1
        values = exact(codes.values)
        self.patches += codes.n_patches
        self.total += np.bincount(codes.neurons, weights=values, minlength=n_neurons)
        objects = truth.objects[codes.tokens]
        on = objects >= 0
        flat, shape = objects[on] * n_neurons + codes.neurons[on], (n_objects, n_neurons)
        totals = np.bincount(flat, weights=values[on], minlength=n_objects * n_neurons).reshape(shape)
        fires = np.bincount(flat, minlength=n_objects * n_neurons).reshape(shape)
        for number in range(n_objects):
            patches = np.flatnonzero(truth.objects == number)
            if len(patches):
                concept = truth.concepts[patches[0]]
                self.objects[concept] += 1
                self.on_patches[concept] += len(patches)
                self.on_total[concept] += totals[number]
                self.on_fires[concept] += fires[number]
                self.reached[concept] += fires[number] > 0

    def facts(self) -> ConceptFacts:
        """Means and shares; 0 for a concept that was never seen."""
        on = np.maximum(self.on_patches, 1)[:, None]
        off = np.maximum(self.patches - self.on_patches, 1)[:, None]
        objects = np.maximum(self.objects, 1)[:, None]
        selectivity = self.on_total / np.where(self.total > 0, self.total, 1.0)
        return ConceptFacts(
            self.on_total / on,
            (self.total - self.on_total) / off,
            self.on_fires / on,
            self.reached / objects,
            selectivity,
        )


def precisions(shows: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
    """Share of each neuron's exemplars that show each concept, [C, F]; 0 for a dead neuron.

    shows [images, C] bool: what each image shows; exemplars [F, P]: images, -1 for an empty place.
    """
    held = exemplars >= 0
    padded = np.vstack([shows, np.zeros((1, shows.shape[1]), dtype=bool)])
    counts = np.stack([padded[:, concept][exemplars].sum(axis=1) for concept in range(shows.shape[1])])
    return counts / np.maximum(held.sum(axis=1), 1)


def best_labels(scores: np.ndarray, precision: np.ndarray) -> Labels:
    """The concept that each neuron stands for best, from scores and precision [C, F].

    A neuron of whose exemplars fewer than half show it goes without a name: it stands for something else.
    """
    best = scores.argmax(axis=0)
    each = np.arange(scores.shape[1])
    fits = (scores[best, each] > 0) & (precision[best, each] >= LEAST_PRECISION)
    return Labels(np.where(fits, best, -1), np.where(fits, precision[best, each], 0.0))


def concept_rows(
    concepts: Sequence[str], facts: ConceptFacts, scores: np.ndarray, precision: np.ndarray
) -> list[ConceptRow]:
    """The best neurons of each concept, best first; of equal scores [C, F] the lower neuron goes first."""
    rows = []
    for c, concept in enumerate(concepts):
        order = np.argsort(-scores[c], kind="stable")[:PER_CONCEPT]
        for rank, neuron in enumerate(order[scores[c, order] > 0].tolist()):
            measured = (table[c, neuron] for table in (scores, precision, *facts[:4]))
            rows.append(ConceptRow(concept, rank, neuron, *map(float, measured)))
    return rows
