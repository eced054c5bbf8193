"""Which neurons stand for which concept, from ground truth per patch. Knows numpy and the sums of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from explorer.store.rows import ConceptRow
from index.stage.evidence import ConceptEvidence

LEAST_PRECISION = 0.5
"""Share of its exemplars that must show a label for a neuron to be called by it."""
PER_CONCEPT = 32
"""How many neurons the store keeps for a concept."""
SELECTIVITY_POWER = 0.2
"""How much a neuron's selectivity counts in `carried` (see LOG.md)."""


class ConceptFacts(NamedTuple):
    """What the ranking may use, all [C, F] float64.

    on_mean: mean activation over the concept's patches; off_mean: over all other known patches;
    firing: share of the concept's patches where the neuron fires; reach: share of the concept's objects
    with at least one patch on which the neuron fires on some patch; selectivity: share of the neuron's
    whole activation that falls on the concept's patches.
    """

    on_mean: np.ndarray
    off_mean: np.ndarray
    firing: np.ndarray
    reach: np.ndarray
    selectivity: np.ndarray


class BestConcepts(NamedTuple):
    """The best concept of each neuron [F], -1 for none, and the share of its exemplars that show it [F]."""

    concept: np.ndarray
    precision: np.ndarray


def facts_of(sums: ConceptEvidence) -> ConceptFacts:
    """Means and shares; 0 for a concept that was never seen."""
    on_total, total = sums.on_total.values(), sums.total.values()
    on = np.maximum(sums.on_patches, 1)[:, None]
    off = np.maximum(sums.patches - sums.on_patches, 1)[:, None]
    objects = np.maximum(sums.objects, 1)[:, None]
    return ConceptFacts(
        on_total / on,
        (total - on_total) / off,
        sums.on_fires / on,
        sums.reached / objects,
        on_total / np.where(total > 0, total, 1.0),
    )


def rank_scores(facts: ConceptFacts) -> np.ndarray:
    """How well each neuron alone stands for each concept, [C, F], between 0 and 1.

    The share of the concept's patches where it fires, times the share of its activation that falls there:
    1 for a neuron that fires on all patches of the concept and nowhere else.
    """
    return facts.firing * facts.selectivity


def carried(facts: ConceptFacts, contrasts: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How much of the evidence for each concept each neuron carries, [C, F]; 0 for none.

    The neuron's mean activation on the concept's patches times how far its decoder direction [F, d] points
    towards the concept (contrasts [C, d]), times a weak power of its selectivity, so that of two equal
    neurons the one that is shared with fewer concepts goes first.
    """
    pull = np.maximum(contrasts @ directions.T.astype(np.float64), 0.0)
    return facts.on_mean * pull * facts.selectivity**SELECTIVITY_POWER


def best_concepts(scores: np.ndarray, precision: np.ndarray) -> BestConcepts:
    """The concept that each neuron stands for best, from scores and precision [C, F].

    A neuron of whose exemplars fewer than half show it goes without: it stands for something else.
    """
    best = scores.argmax(axis=0)
    each = np.arange(scores.shape[1])
    fits = (scores[best, each] > 0) & (precision[best, each] >= LEAST_PRECISION)
    return BestConcepts(np.where(fits, best, -1), np.where(fits, precision[best, each], 0.0))


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
