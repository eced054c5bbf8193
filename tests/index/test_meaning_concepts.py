"""The ranking of neurons for concepts, part by part."""

from __future__ import annotations

import numpy as np
import pytest

from index.meaning.concepts import (
    PER_CONCEPT,
    ConceptFacts,
    best_concepts,
    carried,
    concept_rows,
    rank_scores,
)


def test_ranking_prefers_neurons_that_fire_on_all_of_it_and_nowhere_else() -> None:
    facts = ConceptFacts(
        on_mean=np.array([[5.0, 5.0, 9.0, 0.0]]),
        off_mean=np.array([[0.0, 0.0, 6.0, 0.0]]),
        firing=np.array([[1.0, 0.5, 1.0, 0.0]]),
        reach=np.array([[1.0, 0.5, 1.0, 0.0]]),
        selectivity=np.array([[0.9, 1.0, 0.1, 0.0]]),
    )
    assert (-rank_scores(facts)).argsort()[0].tolist() == [0, 1, 2, 3]


def test_rows_of_a_concept_go_by_score_and_leave_out_what_has_none() -> None:
    facts = ConceptFacts(*(np.arange(10.0).reshape(2, 5) + 10 * i for i in range(5)))
    scores = np.array([[0.5, 0.0, 0.75, 0.5, -1.0], [0.0] * 5])
    rows = concept_rows(["cake", "fork"], facts, scores, np.arange(10.0).reshape(2, 5) / 10)
    # Of the two with 0.5 the lower neuron goes first; nothing stands for the fork.
    assert rows == [
        ("cake", 0, 2, 0.75, 0.2, 2.0, 12.0, 22.0, 32.0),
        ("cake", 1, 0, 0.5, 0.0, 0.0, 10.0, 20.0, 30.0),
        ("cake", 2, 3, 0.5, 0.3, 3.0, 13.0, 23.0, 33.0),
    ]
    many = ConceptFacts(*(np.ones((1, 2 * PER_CONCEPT)) for _ in range(5)))
    rows = concept_rows(["cake"], many, np.arange(2.0 * PER_CONCEPT)[None], np.ones((1, 2 * PER_CONCEPT)))
    assert [row.neuron for row in rows] == list(range(2 * PER_CONCEPT - 1, PER_CONCEPT - 1, -1))


def test_best_concepts_are_missing_where_nothing_fits() -> None:
    scores = np.array([[1.0, -1.0, 0.0], [3.0, -2.0, 0.0]])
    best = best_concepts(scores, np.array([[0.1, 0.2, 0.3], [0.7, 0.5, 0.6]]))
    assert best.concept.tolist() == [1, -1, -1]
    assert best.precision.tolist() == [0.7, 0.0, 0.0]
    assert best_concepts(scores, np.full((2, 3), 0.4)).concept.tolist() == [-1, -1, -1]


def test_evidence_goes_to_neurons_that_point_to_the_concept() -> None:
    contrasts = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    directions = np.array(
        [[0.6, 0.8, 0], [1, 0, 0], [0, 0, 1], [-1, 0, 0], [1, 0, 0], [1, 0, 0]], dtype=np.float32
    )
    ones = np.ones((2, 6))
    strength, shares = ones * [1, 1, 9, 9, 1, 2], ones * [0.5, 0.5, 1, 1, 0.25, 0.5]
    found = carried(ConceptFacts(strength, ones, ones, ones, shares), contrasts, directions)
    # Stronger, then better aimed, then shared with fewer; sideways or away counts for nothing.
    order = np.argsort(-found[0], kind="stable")
    assert order[:4].tolist() == [5, 1, 4, 0] and found[0, [2, 3]].tolist() == [0, 0]
    assert found[0, 5] == pytest.approx(2 * found[0, 1]) and found[0, 0] == pytest.approx(0.6 * found[0, 1])
    assert np.flatnonzero(found[1]).tolist() == [0]
    never = carried(ConceptFacts(*(np.ones((1, 6)) for _ in range(5))), np.zeros((1, 3)), directions)
    assert concept_rows(["zebra"], ConceptFacts(*(np.ones((1, 6)) for _ in range(5))), never, never) == []
