"""Labels of neurons and their average precision against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from meaning_maker import sample_of

from index.meaning import by_neuron as by_neuron_module
from index.meaning import labels as labels_module
from index.meaning.by_neuron import by_neuron
from index.meaning.concepts import BestConcepts
from index.meaning.labels import (
    BaseRates,
    NeuronLabels,
    Shown,
    average_precisions,
    best_labels,
    concept_precisions,
    names_of,
)

S, F, L, P = 9, 4, 5, 4
SCORES = hnp.arrays(np.float32, (S, F), elements=st.sampled_from([0.0, 0.0, 0.25, 1.0, 1.5, 3.0]))
LABELS = st.lists(st.sets(st.integers(0, L - 1)).map(sorted), min_size=S, max_size=S)
EXEMPLARS = hnp.arrays(np.int64, (F, P), elements=st.integers(-1, S - 1)).map(
    lambda table: np.array(
        [[i if i not in row[:p] else -1 for p, i in enumerate(row)] for row in table.tolist()]
    )
)


def naive_average_precision(scores: np.ndarray, shows: np.ndarray) -> float:
    """Of one neuron [s] and one label [s], image by image."""
    if shows.sum() < 2:
        return math.nan
    order = sorted(np.flatnonzero(scores).tolist(), key=lambda i: (-scores[i], i))
    found, total = 0, 0.0
    for depth, i in enumerate(order, start=1):
        if shows[i]:
            found += 1
            total += found / depth
    return (total + (shows.sum() - found) * shows.mean()) / shows.sum()


def shows_of(labels: list[list[int]]) -> np.ndarray:
    """[s, L] bool."""
    return np.array([[label in row for label in range(L)] for row in labels])


@settings(max_examples=60, deadline=None)
@given(SCORES, LABELS)
def test_average_precision_equals_plain_loops(scores: np.ndarray, labels: list[list[int]]) -> None:
    sample = sample_of(scores, labels=labels)
    neuron, label = (table.ravel() for table in np.meshgrid(np.arange(F), np.arange(L)))
    found = average_precisions(by_neuron(sample, F), sample, neuron, label)
    shows = shows_of(labels)
    expected = [
        naive_average_precision(scores[:, n], shows[:, k]) for n, k in zip(neuron, label, strict=True)
    ]
    np.testing.assert_allclose(found, expected)


def test_average_precision_in_small_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((50, 30)) * (rng.random((50, 30)) < 0.5)
    sample = sample_of(scores, labels=[np.flatnonzero(rng.random(40) < 0.2).tolist() for _ in range(50)])
    neuron, label = rng.integers(0, 30, 500), rng.integers(0, 40, 500)
    whole = average_precisions(by_neuron(sample, 30), sample, neuron, label)
    monkeypatch.setattr(labels_module, "_ENTRIES", 64)
    np.testing.assert_array_equal(average_precisions(by_neuron(sample, 30), sample, neuron, label), whole)
    assert np.isfinite(whole).mean() > 0.9


def test_a_neuron_that_finds_all_scores_one_and_one_that_never_fires_the_base_rate() -> None:
    scores = np.array([[3.0, 0, 0.5], [0, 0, 2], [1, 0, 3], [0, 0, 0]])
    sample = sample_of(scores, labels=[[0], [], [0], []])
    found = average_precisions(by_neuron(sample, 3), sample, np.arange(3), np.zeros(3, int))
    assert found.tolist() == pytest.approx([1.0, 0.5, (1 + 2 / 3) / 2])


@settings(max_examples=60, deadline=None)
@given(EXEMPLARS, LABELS, SCORES)
def test_best_labels_equal_plain_loops(
    exemplars: np.ndarray, labels: list[list[int]], scores: np.ndarray
) -> None:
    shows = shows_of(labels)
    rates = BaseRates(shows.sum(0), S + 3)
    sample = sample_of(scores, labels=labels)
    found = best_labels(exemplars, Shown.of(labels), rates, sample, by_neuron(sample, F))
    rows = []
    for n in range(F):
        held = [i for i in exemplars[n].tolist() if i >= 0]
        ranked = []
        for label in range(L):
            count = sum(shows[i, label] for i in held)
            p, b = count / max(len(held), 1), shows[:, label].sum() / (S + 3)
            if count >= 2 and p > b:
                kl = p * math.log(p / b) + ((1 - p) * math.log((1 - p) / (1 - b)) if p < 1 else 0)
                average = naive_average_precision(scores[:, n], shows[:, label])
                ranked.append((-round(len(held) * kl, 9), label, p, p / b, average))
        rows += [(n, r, *row[1:]) for r, row in enumerate(sorted(ranked)[:5])]
    assert list(zip(*(c.tolist() for c in found[:3]), strict=True)) == [row[:3] for row in rows]
    for column, place in ((found.precision, 3), (found.lift, 4), (found.average_precision, 5)):
        np.testing.assert_allclose(column, [row[place] for row in rows])


@settings(max_examples=50, deadline=None)
@given(EXEMPLARS, LABELS)
def test_concept_precision_counts_over_the_exemplars_there_are(
    exemplars: np.ndarray, labels: list[list[int]]
) -> None:
    concepts = np.array([3, -1, 0])
    found = concept_precisions(exemplars, Shown.of(labels), concepts)
    shows = shows_of(labels)
    for c, label in enumerate(concepts.tolist()):
        for n in range(F):
            held = [i for i in exemplars[n].tolist() if i >= 0]
            share = sum(shows[i, label] for i in held) / len(held) if held and label >= 0 else 0
            assert found[c, n] == pytest.approx(share)


def test_blocks_of_neurons_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = [np.flatnonzero(rng.random(60) < 0.1).tolist() for _ in range(80)]
    exemplars = np.stack([rng.permutation(80)[:16] for _ in range(50)])
    exemplars[rng.random(exemplars.shape) < 0.2] = -1
    sample = sample_of(rng.random((80, 50)), labels=labels)
    rates = BaseRates(np.bincount(sample.labels, minlength=60), 80)

    def columns() -> list[bytes]:
        found = best_labels(exemplars, Shown.of(labels), rates, sample, by_neuron(sample, 50))
        assert len(found.neuron) > 50 and found.rank.max() == 4
        return [column.tobytes() for column in found]

    whole = columns()
    monkeypatch.setattr(labels_module, "_EXEMPLARS", 48)
    assert columns() == whole


def test_names_prefer_what_patches_show_and_need_half_of_the_exemplars() -> None:
    columns = (
        np.array([0, 0, 1, 3]),
        np.array([0, 1, 0, 0]),
        np.array([4, 2, 1, 3]),
        np.array([0.4, 0.6, 0.9, 0.3]),
        np.array([9.0, 3.0, 2.0, 2.0]),
        np.array([0.5, 0.25, 0.75, 0.1]),
    )
    scores = np.array([[1.0, 1, 1, 0], [0, 1, 0, 0], [0, 2, 1, 0]])
    sample = sample_of(scores, labels=[[0], [], [0]])
    rates, concepts = BaseRates(np.array([2, 1, 1, 1, 1]), 4), np.array([0, 4])
    rest = (concepts, rates, sample, by_neuron(sample, 4))
    plain = names_of(NeuronLabels(*columns), 4, None, *rest)
    assert plain.label.tolist() == [2, 1, -1, -1] and plain.precision.tolist() == [0.6, 0.9, 0, 0]
    best = BestConcepts(np.array([-1, 0, 0, -1]), np.array([0, 0.5, 1.0, 0]))
    names = names_of(NeuronLabels(*columns), 4, best, *rest)
    assert names.label.tolist() == [2, 0, 0, -1] and names.precision.tolist() == [0.6, 0.5, 1.0, 0]
    assert names.lift.tolist() == [3.0, 1.0, 2.0, 0]
    assert names.average_precision[:3].tolist() == pytest.approx([0.25, 1.0, 1.0])


def test_a_source_without_labels_has_none() -> None:
    sample = sample_of(np.ones((3, 2)))
    scores = by_neuron(sample, 2)
    rates = BaseRates(np.zeros(0, np.int64), 3)
    found = best_labels(np.array([[0, 1], [2, -1]]), Shown.of([[], [], []]), rates, sample, scores)
    assert all(len(column) == 0 for column in found)
    names = names_of(found, 2, None, np.zeros(0, int), rates, sample, scores)
    assert names.label.tolist() == [-1, -1] and np.isnan(names.average_precision).all()


@settings(max_examples=60, deadline=None)
@given(SCORES, st.booleans())
def test_scores_by_neuron_are_sorted_however_they_are_packed(scores: np.ndarray, wide: bool) -> None:
    sample = sample_of(scores)
    with pytest.MonkeyPatch.context() as patch:
        if wide:
            patch.setattr(by_neuron_module, "KEY_BITS", 8)
        found = by_neuron(sample, F)
    for n in range(F):
        order = sorted(np.flatnonzero(scores[:, n]).tolist(), key=lambda i: (-scores[i, n], i))
        part = slice(found.starts[n], found.starts[n + 1])
        assert found.rows[part].tolist() == order
        assert found.values[part].tolist() == scores[order, n].tolist()
