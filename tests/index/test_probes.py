"""The linear read-out of concepts against discriminant analysis in full, and the evidence of neurons."""

from __future__ import annotations

import numpy as np
import pytest

from index.labels import ConceptFacts, concept_rows
from index.probes import RIDGE, ProbeSums, evidence
from index.sources import PatchTruth

Images = list[tuple[np.ndarray, np.ndarray]]
NAMES = ("cake", "fork", "cat", "zebra")
C, D, T = len(NAMES), 7, 30
NEVER = 3
"""The zebra is in no image."""


@pytest.fixture(scope="module")
def images() -> Images:
    """(vectors [T, d], concept of each patch [T]); concepts have centres of their own and one spread."""
    rng = np.random.default_rng(0)
    centres, spread = 2 * rng.normal(size=(C + 1, D)), rng.normal(size=(D, D))
    shown = [rng.integers(-1, NEVER, size=T) for _ in range(40)]
    return [((centres[row] + rng.normal(size=(T, D)) @ spread).astype(np.float32), row) for row in shown]


def taken(images: Images) -> ProbeSums:
    sums = ProbeSums(C, D)
    for vectors, shown in images:
        sums.take(vectors, PatchTruth(shown, shown))
    return sums


def by_concept(images: Images) -> list[np.ndarray]:
    """All vectors of each concept, and of none of them."""
    vectors = np.concatenate([v for v, _ in images]).astype(np.float64)
    shown = np.concatenate([row for _, row in images])
    return [vectors[shown == c] for c in (*range(C), -1)]


def spread_within(groups: list[np.ndarray]) -> np.ndarray:
    """The covariance within concepts with its ridge, vector by vector; patches of nothing do not count."""
    total, count = np.zeros((D, D)), 0
    for group in groups[:-1]:
        for vector in group:
            off = vector - group.mean(0)
            total, count = total + np.outer(off, off), count + 1
    within = total / count
    return within + RIDGE * np.mean(np.diag(within)) * np.eye(D)


def test_probe_is_discriminant_analysis(images: Images) -> None:
    probe, groups = taken(images).probe(NAMES), by_concept(images)
    assert probe.concepts == NAMES and probe.weight.dtype == probe.bias.dtype == np.float32
    spread, seen = spread_within(groups), [0, 1, 2, C]
    distances = []
    for row in seen:
        mean = groups[row].mean(0)
        weight = np.linalg.solve(spread, mean)
        np.testing.assert_allclose(probe.weight[row], weight, rtol=1e-4, atol=1e-5)
        assert probe.bias[row] == pytest.approx(-weight @ mean / 2, rel=1e-4)
        vectors = np.concatenate([v for v, _ in images]) - mean
        distances.append((vectors * np.linalg.solve(spread, vectors.T).T).sum(1))
    nearest = np.array(seen)[np.argmin(distances, axis=0)]
    rows = probe.shown(np.concatenate([v for v, _ in images]))
    assert (rows == nearest).mean() > 0.999  # but for rounding, the nearest centre wins
    truth = np.concatenate([row for _, row in images])
    assert (rows == np.where(truth < 0, C, truth)).mean() > 0.7


def test_contrasts_point_from_all_concepts_to_each(images: Images) -> None:
    contrasts, groups = taken(images).contrasts(), by_concept(images)
    centre = np.concatenate(groups[:-1]).mean(0)
    for c in range(NEVER):
        towards = np.linalg.solve(spread_within(groups), groups[c].mean(0) - centre)
        np.testing.assert_allclose(contrasts[c], towards / np.linalg.norm(towards), atol=1e-5)
    assert not contrasts[NEVER].any()


def test_order_of_images_changes_no_bit(images: Images) -> None:
    order = np.random.default_rng(1).permutation(len(images))
    scales = 10 ** np.random.default_rng(4).uniform(-7, 2, size=len(images))  # plain sums would round
    images = [((v * s).astype(np.float32), row) for (v, row), s in zip(images, scales, strict=True)]
    one, two = taken(images), taken([images[i] for i in order])
    for ours, theirs in zip(
        (one.counts, one.sums, one.second, one.contrasts()),
        (two.counts, two.sums, two.second, two.contrasts()),
        strict=True,
    ):
        assert ours.tobytes() == theirs.tobytes()
    ours, theirs = one.probe(NAMES), two.probe(NAMES)
    assert ours.weight.tobytes() == theirs.weight.tobytes() and ours.bias.tobytes() == theirs.bias.tobytes()


def test_a_concept_never_seen_is_never_chosen(images: Images) -> None:
    sums = taken(images)
    probe = sums.probe(NAMES)
    assert probe.bias[NEVER] == -np.inf and np.isfinite(np.delete(probe.bias, NEVER)).all()
    far = 100 * np.random.default_rng(2).normal(size=(500, D)).astype(np.float32)
    assert NEVER not in probe.shown(far) and NEVER not in probe.shown(np.zeros((1, D), dtype=np.float32))
    directions = np.random.default_rng(3).normal(size=(9, D)).astype(np.float32)
    facts = ConceptFacts(*(np.ones((C, 9)) for _ in range(5)))
    carried = evidence(facts, sums.contrasts(), directions)
    assert not carried[NEVER].any()
    assert {row.concept for row in concept_rows(NAMES, facts, carried, np.ones((C, 9)))} == set(NAMES[:NEVER])


def test_sums_without_spread_or_images_stay_finite() -> None:
    empty = ProbeSums(C, D)
    assert not empty.contrasts().any() and (empty.probe(NAMES).bias == -np.inf).all()
    flat = taken([(np.full((T, D), 2.0, dtype=np.float32), np.arange(T) % 3)])
    assert np.isfinite(flat.probe(NAMES).weight).all() and np.isfinite(flat.contrasts()).all()


def test_evidence_prefers_neurons_that_point_to_the_concept() -> None:
    contrasts = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    directions = np.array(
        [[0.6, 0.8, 0], [1, 0, 0], [0, 0, 1], [-1, 0, 0], [1, 0, 0], [1, 0, 0]], dtype=np.float32
    )
    ones = np.ones((2, 6))
    strength, shares = ones * [1, 1, 9, 9, 1, 2], ones * [0.5, 0.5, 1, 1, 0.25, 0.5]
    found = evidence(ConceptFacts(strength, ones, ones, ones, shares), contrasts, directions)
    # Stronger, then better aimed, then shared with fewer; sideways or away counts for nothing.
    order = np.argsort(-found[0], kind="stable")
    assert order[:4].tolist() == [5, 1, 4, 0] and found[0, [2, 3]].tolist() == [0, 0]
    assert found[0, 5] == pytest.approx(2 * found[0, 1]) and found[0, 0] == pytest.approx(0.6 * found[0, 1])
    assert np.flatnonzero(found[1]).tolist() == [0]
