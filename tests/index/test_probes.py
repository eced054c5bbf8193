"""The linear read-out of concepts against discriminant analysis in full."""

from __future__ import annotations

import numpy as np
import pytest

from index.meaning.read_out import RIDGE, ReadOut
from index.sources.base import PatchTruth
from index.stage.probes import ProbeSums

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
    probe, groups = ReadOut(taken(images)).probe(NAMES), by_concept(images)
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
    contrasts, groups = ReadOut(taken(images)).contrasts(), by_concept(images)
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
    for name, column in one.arrays("p").items():
        assert column.tobytes() == two.arrays("p")[name].tobytes()
    merged = ProbeSums(C, D)
    for part in (images[25:], images[:10], images[10:25]):
        merged.absorb("p", taken(part).arrays("p"))
    for name, column in one.arrays("p").items():
        assert column.tobytes() == merged.arrays("p")[name].tobytes()
    ours, theirs = ReadOut(one).probe(NAMES), ReadOut(merged).probe(NAMES)
    assert ours.weight.tobytes() == theirs.weight.tobytes() and ours.bias.tobytes() == theirs.bias.tobytes()


def test_patches_of_unknown_concept_count_nowhere(images: Images) -> None:
    rng = np.random.default_rng(5)
    hidden = [(v, np.where(rng.random(T) < 0.3, -2, row)) for v, row in images]
    left = [(v[row > -2], row[row > -2]) for v, row in hidden]
    one, two = taken(hidden), taken([*left, (np.ones((4, D), np.float32), np.full(4, -2))])
    assert one.counts.tolist() == two.counts.tolist() and one.counts.sum() == sum(len(v) for v, _ in left)
    np.testing.assert_allclose(one.second.values(), two.second.values(), rtol=1e-9)
    np.testing.assert_allclose(one.sums.values(), two.sums.values(), rtol=1e-9)


def test_a_concept_never_seen_is_never_chosen(images: Images) -> None:
    read_out = ReadOut(taken(images))
    probe = read_out.probe(NAMES)
    assert probe.bias[NEVER] == -np.inf and np.isfinite(np.delete(probe.bias, NEVER)).all()
    far = 100 * np.random.default_rng(2).normal(size=(500, D)).astype(np.float32)
    assert NEVER not in probe.shown(far) and NEVER not in probe.shown(np.zeros((1, D), dtype=np.float32))


def test_sums_without_spread_or_images_stay_finite() -> None:
    empty = ReadOut(ProbeSums(C, D))
    assert not empty.contrasts().any() and (empty.probe(NAMES).bias == -np.inf).all()
    flat = ReadOut(taken([(np.full((T, D), 2.0, dtype=np.float32), np.arange(T) % 3)]))
    assert np.isfinite(flat.probe(NAMES).weight).all() and np.isfinite(flat.contrasts()).all()
