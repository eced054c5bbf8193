"""Concept evidence against plain loops, and the ranking's parts."""

from __future__ import annotations

import numpy as np
import pytest
from fake_site import codes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index.labels import (
    PER_CONCEPT,
    ConceptEvidence,
    ConceptFacts,
    best_labels,
    concept_rows,
    precisions,
    rank_scores,
)
from index.scores import pool
from index.sources import PatchTruth
from index.statistics import Statistics, exact

T, F, C, OBJECTS = 6, 4, 3, 3

IMAGES = st.lists(
    st.tuples(
        hnp.arrays(np.float32, (T, F), elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.25])),
        hnp.arrays(np.int64, T, elements=st.integers(-1, OBJECTS - 1)),
        st.lists(st.integers(0, C - 1), min_size=OBJECTS, max_size=OBJECTS),
    ),
    min_size=1,
    max_size=6,
)


def truth_of(objects: np.ndarray, kinds: list[int]) -> PatchTruth:
    """Patch truth where object o is of concept kinds[o]."""
    return PatchTruth(np.where(objects >= 0, np.array(kinds)[objects], -1), objects)


@settings(max_examples=100, deadline=None)
@given(IMAGES)
def test_evidence_equals_plain_loops(images: list[tuple]) -> None:
    evidence = ConceptEvidence(C, F)
    on: dict[int, list[np.ndarray]] = {c: [] for c in range(C)}
    off: dict[int, list[np.ndarray]] = {c: [] for c in range(C)}
    hits: dict[int, list[np.ndarray]] = {c: [] for c in range(C)}
    for dense, objects, kinds in images:
        truth = truth_of(objects, kinds)
        evidence.take(codes_of(dense), truth)
        for t in range(T):
            for c in range(C):
                (on if truth.concepts[t] == c else off)[c].append(dense[t])
        for o in set(objects.tolist()) - {-1}:
            hits[kinds[o]].append((dense[objects == o] > 0).any(axis=0))
    facts = evidence.facts()

    def mean(rows: list[np.ndarray]) -> np.ndarray:
        return np.mean(rows, axis=0, dtype=np.float64) if rows else np.zeros(F)

    for c in range(C):
        np.testing.assert_allclose(facts.on_mean[c], mean(on[c]))
        np.testing.assert_allclose(facts.off_mean[c], mean(off[c]))
        np.testing.assert_allclose(facts.firing[c], mean([row > 0 for row in on[c]]))
        np.testing.assert_allclose(facts.reach[c], mean(hits[c]))
        whole = np.sum([*on[c], *off[c]], axis=0, dtype=np.float64)
        part = np.sum(on[c], axis=0, dtype=np.float64) if on[c] else np.zeros(F)
        np.testing.assert_allclose(facts.selectivity[c] * whole, part, atol=1e-9)


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


def test_precision_counts_over_the_exemplars_there_are() -> None:
    shows = np.array([[True, False], [True, True], [False, False]])
    exemplars = np.array([[0, 1, 2], [1, -1, -1], [-1, -1, -1]])
    np.testing.assert_allclose(precisions(shows, exemplars), [[2 / 3, 1, 0], [1 / 3, 1, 0]])


def test_best_labels_are_empty_where_nothing_fits() -> None:
    scores = np.array([[1.0, -1.0, 0.0], [3.0, -2.0, 0.0]])
    labels = best_labels(scores, np.array([[0.1, 0.2, 0.3], [0.7, 0.5, 0.6]]))
    assert labels.concept.tolist() == [1, -1, -1]
    assert labels.precision.tolist() == [0.7, 0.0, 0.0]
    assert best_labels(scores, np.full((2, 3), 0.4)).concept.tolist() == [-1, -1, -1]


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(0, 1000, width=32)), st.randoms())
def test_exact_sums_do_not_depend_on_order(values: np.ndarray, random: object) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    one = two = 0.0
    for value in exact(values):
        one += value
    for value in exact(values[order]):
        two += value
    assert one == two
    assert one == pytest.approx(values.sum(dtype=np.float64), abs=len(values) * 2**-25)


def test_statistics_in_any_order_are_equal() -> None:
    rng = np.random.default_rng(0)
    dense = rng.exponential(size=(40, 5, 60)).astype(np.float32) * (rng.random((40, 5, 60)) < 0.4)
    taken = []
    for order in (range(40), rng.permutation(40)):
        statistics = Statistics(60)
        for i in order:
            statistics.take(pool(codes_of(dense[i]), 60, "mean"), float(i) / 40)
        taken.append(statistics)
    for one, two in zip(taken[0].facts(), taken[1].facts(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert taken[0].fvu_quantiles() == taken[1].fvu_quantiles()
    assert taken[0].fvu_quantiles()["0.5"] == pytest.approx(19.5 / 40)
    assert taken[0].facts().in_top.sum() == pytest.approx(20)
    assert Statistics(3).facts().mean.tolist() == [0, 0, 0]
