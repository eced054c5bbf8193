"""Statistics, exact sums and the sample against naive oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_maker import (
    ACTIVATIONS,
    COLS,
    ROWS,
    chunks_of,
    codes_of,
    scores_of,
    shape_of,
    state_of,
    vectors_of,
)

from explorer.errors import ExplorerError
from explorer.store import histogram
from index.stage.codes import all_groups, pool
from index.stage.sample import PATCHES, chosen_patches, sampled
from index.stage.statistics import Highest
from index.stage.sums import ExactSum

TERMS = st.floats(-1e12, 1e12, allow_nan=False, allow_subnormal=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(TERMS, min_size=1, max_size=40), st.randoms(use_true_random=False), st.integers(0, 40))
def test_sums_do_not_depend_on_order_or_split(terms: list[float], random: object, cut: int) -> None:
    whole = ExactSum(1)
    for term in terms:
        whole.add([0], np.array([term]))
    random.shuffle(terms)
    parts = ExactSum(1), ExactSum(1)
    for i, term in enumerate(terms):
        parts[i < cut].add([0], np.array([term]))
    parts[0].absorb("x", parts[1].arrays("x"))
    assert parts[0].values() == whole.values()
    exact = sum(round(term * 2**40) for term in terms) / 2**40
    assert whole.values()[0] == pytest.approx(exact, rel=1e-15, abs=len(terms) * 2.0**-40)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_terms_that_cannot_be_summed_are_refused(bad: float) -> None:
    with pytest.raises(ExplorerError, match="not finite or too large"):
        ExactSum(2).add(slice(None), np.array([1.0, bad]))


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS, st.integers(1, 9), st.sampled_from(["mean", "max"]))
def test_facts_equal_the_oracle(dense: np.ndarray, batch: int, how: str) -> None:
    facts = state_of(shape_of(dense, score=how), chunks_of(dense, batch)).statistics.facts()
    scores = scores_of(dense, how)
    n_images, _, n_neurons = dense.shape
    np.testing.assert_allclose(facts.fires, (scores > 0).mean(0))
    np.testing.assert_allclose(facts.patch_fires, (dense > 0).mean((0, 1)))
    order = np.lexsort((np.arange(n_neurons) + 0 * scores.astype(int), -scores))
    in_top = np.zeros(n_neurons)
    for image in range(n_images):
        best = [f for f in order[image] if scores[image, f] > 0][:20]
        in_top[best] += 1 / n_images
    np.testing.assert_allclose(facts.in_top, in_top)
    for f in range(n_neurons):
        on, active = (
            scores[scores[:, f] > 0, f].astype(float),
            dense[:, :, f][dense[:, :, f] > 0].astype(float),
        )
        for values, mean, variance, peak, counts in (
            (on, facts.mean, facts.variance, facts.peak, facts.score_histogram),
            (active, facts.active_mean, facts.active_variance, facts.active_peak, facts.active_histogram),
        ):
            assert mean[f] == pytest.approx(values.mean() if len(values) else 0)
            assert variance[f] == pytest.approx(values.var() if len(values) else 0, rel=1e-6, abs=1e-9)
            assert peak[f] == values.max(initial=0)
            expected = np.histogram(values, bins=histogram.edges())[0]
            assert counts[f].tolist() == expected.tolist()


def test_quantiles_of_unexplained_variance_are_close() -> None:
    dense = np.ones((300, ROWS * COLS, 1), dtype=np.float32)
    chunks = chunks_of(dense, 8)
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(-3, 1, size=300)).astype(np.float32)
    chunks = [c._replace(fvu=values[8 * j : 8 * j + 8]) for j, c in enumerate(chunks)]
    found = state_of(shape_of(dense), chunks).statistics.fvu_quantiles()
    for q, value in found.items():
        exact = np.quantile(values, float(q), method="inverted_cdf")
        assert exact <= value <= exact * 1.006


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 8))
def test_highest_takes_the_lower_neuron_of_equals(seeds: list[int], n_neurons: int, k: int) -> None:
    """The cut that one chunk leaves behind must never change what the next one gives."""
    highest = Highest(k)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        dense = rng.integers(0, 4, size=(5, 1, n_neurons)).astype(np.float32) * 10.0 ** rng.integers(-2, 3)
        groups = all_groups(pool(codes_of(dense), dense.shape[2], "mean"))
        got = sorted((int(groups.image[g]), int(groups.neuron[g])) for g in highest(groups, 5))
        expected = []
        for image, column in enumerate(dense[:, 0]):
            order = np.argsort(-column, kind="stable")
            expected += [(image, int(f)) for f in order[:k] if column[f] > 0]
        assert got == sorted(expected)


@settings(max_examples=30, deadline=None)
@given(ACTIVATIONS, st.integers(1, 9), st.sampled_from([0.0, 0.4, 1.0]))
def test_the_sample_keeps_its_images_whole(dense: np.ndarray, batch: int, rate: float) -> None:
    labels = [tuple({n % 3, n % 5}) for n in range(len(dense))]
    state = state_of(shape_of(dense, sample_rate=rate, n_labels=5), chunks_of(dense, batch, labels=labels))
    sample, scores = state.sample, scores_of(dense, "mean")
    assert sample.numbers.tolist() == np.flatnonzero(sampled(np.arange(len(dense)), rate)).tolist()
    vectors = vectors_of(sample.numbers.tolist(), ROWS * COLS) if len(sample.numbers) else np.zeros((0, 1, 6))
    np.testing.assert_allclose(sample.embeddings, vectors.mean(1), rtol=1e-4, atol=1e-6)
    for row, n in enumerate(sample.numbers.tolist()):
        mine = slice(sample.score_starts[row], sample.score_starts[row + 1])
        assert sample.score_neurons[mine].tolist() == np.flatnonzero(scores[n]).tolist()
        assert sample.score_values[mine].tolist() == scores[n][scores[n] > 0].tolist()
        assert sample.labels[sample.label_starts[row] : sample.label_starts[row + 1]].tolist() == list(
            labels[n]
        )
        for p in range(PATCHES):
            edge = sample.patch_starts[row * PATCHES + p : row * PATCHES + p + 2]
            fires = np.flatnonzero(dense[n, p]).tolist() if p < ROWS * COLS else []
            assert sample.patch_neurons[edge[0] : edge[1]].tolist() == fires
    assert state.label_images.tolist() == [sum(label in shown for shown in labels) for label in range(5)]


def test_the_sample_is_a_fair_share() -> None:
    assert sampled(np.arange(100_000), 1.0).all() and not sampled(np.arange(100_000), 0.0).any()
    for rate in (0.01, 0.3):
        share = sampled(np.arange(100_000), rate)
        assert share.mean() == pytest.approx(rate, rel=0.1)
        assert share[:50_000].mean() == pytest.approx(rate, rel=0.15)


def test_chosen_patches_are_distinct_spread_and_differ_between_images() -> None:
    chosen = [chosen_patches(number, 576) for number in range(200)]
    assert all(len(set(c.tolist())) == PATCHES and c.max() < 576 and (np.diff(c) > 0).all() for c in chosen)
    counts = np.bincount(np.concatenate(chosen), minlength=576)
    assert counts.max() < 20 and (counts > 0).mean() > 0.95
    assert chosen_patches(3, 9).tolist() == list(range(9))
