"""Clusters against a naive oracle, and the order of leaves against every order that the tree allows."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from explorer.analyze.clusters import (
    MOST_ROWS,
    Merge,
    average_linkage,
    cluster,
    cosine_distances,
    groups,
    leaf_order,
)
from explorer.errors import EditError


def drawn(n: int, seed: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width))


def naive_linkage(distances: np.ndarray) -> list[tuple[frozenset[int], frozenset[int], float]]:
    """Every merge as the two sets of rows and the mean over all their pairs, recomputed at each step."""
    clusters = [frozenset([row]) for row in range(len(distances))]
    merges = []
    while len(clusters) > 1:
        pairs = [(a, b) for i, a in enumerate(clusters) for b in clusters[i + 1 :]]
        means = [np.mean([distances[i, j] for i in a for j in b]) for a, b in pairs]
        best = int(np.argmin(means))
        a, b = pairs[best]
        merges.append((a, b, float(means[best])))
        clusters = [c for c in clusters if c not in (a, b)] + [a | b]
    return merges


def members(merges: tuple[Merge, ...], n: int) -> list[frozenset[int]]:
    """The rows of every cluster by its number."""
    sets = [frozenset([row]) for row in range(n)]
    for merge in merges:
        sets.append(sets[merge.left] | sets[merge.right])
    return sets


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (2, 1), (5, 2), (13, 3), (30, 4)])
def test_average_linkage_agrees_with_the_naive_one(n: int, seed: int) -> None:
    distances = cosine_distances(drawn(n, seed))
    merges = average_linkage(distances)
    sets = members(merges, n)
    expected = naive_linkage(distances)
    assert len(merges) == n - 1
    for merge, (a, b, height) in zip(merges, expected, strict=True):
        assert {sets[merge.left], sets[merge.right]} == {a, b}
        assert merge.height == pytest.approx(height) and merge.size == len(a | b)
    assert all(one.height <= two.height + 1e-12 for one, two in pairwise(merges))


def every_order(merges: tuple[Merge, ...], n: int) -> list[list[int]]:
    """All orders that turning the branches of the tree can give."""
    orders = []
    for turns in product((False, True), repeat=len(merges)):
        nodes: list[list[int]] = [[row] for row in range(n)]
        for merge, turn in zip(merges, turns, strict=True):
            left, right = nodes[merge.left], nodes[merge.right]
            nodes.append(right + left if turn else left + right)
        orders.append(nodes[-1])
    return orders


def length(order: list[int] | np.ndarray, distances: np.ndarray) -> float:
    return float(sum(distances[a, b] for a, b in pairwise(order)))


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (2, 1), (3, 5), (6, 2), (9, 3)])
def test_the_order_of_leaves_is_the_best_that_the_tree_allows(n: int, seed: int) -> None:
    distances = cosine_distances(drawn(n, seed))
    merges = average_linkage(distances)
    order, allowed = leaf_order(merges, distances), every_order(merges, n)
    assert order.tolist() in allowed
    assert length(order, distances) == pytest.approx(min(length(one, distances) for one in allowed))


def test_alike_rows_stand_together_in_numbered_groups() -> None:
    centres = np.eye(4, 12)
    draw = np.random.default_rng(7)
    kinds = draw.permutation(np.repeat(np.arange(4), 10))
    rows = centres[kinds] * draw.uniform(0.5, 9, (40, 1)) + draw.normal(scale=0.02, size=(40, 12))
    found = cluster(rows, threshold=0.4)
    assert sorted(found.order.tolist()) == list(range(40))
    assert len(set(zip(kinds.tolist(), found.ids.tolist(), strict=True))) == 4 == found.ids.max() + 1
    in_order = found.ids[found.order]
    assert in_order.tolist() == sorted(in_order.tolist()) and in_order[0] == 0


def test_a_large_clustering_keeps_every_group_together() -> None:
    rows = drawn(150, 11, 8)
    found = cluster(rows, threshold=0.6)
    assert sorted(found.order.tolist()) == list(range(150))
    distances = cosine_distances(rows)
    plain = leaf_order(found.merges, np.ones_like(distances))
    assert length(found.order, distances) < length(plain, distances)
    in_order = found.ids[found.order]
    assert (np.diff(in_order) >= 0).all() and set(np.diff(in_order).tolist()) <= {0, 1}
    together = found.ids[:, None] == found.ids[None]
    assert distances[together].mean() < distances[~together].mean()


def test_a_tree_that_is_one_long_chain_can_be_walked() -> None:
    numbers = np.arange(MOST_ROWS)
    distances = np.abs(np.subtract.outer(1.5 ** (numbers / 9), 1.5 ** (numbers / 9)))
    merges = average_linkage(distances)
    assert max(merge.size for merge in merges[: MOST_ROWS // 2]) > MOST_ROWS // 4
    order = leaf_order(merges, distances).tolist()
    assert order in (numbers.tolist(), numbers[::-1].tolist())


def test_groups_end_where_the_heights_pass_the_threshold() -> None:
    merges = (Merge(1, 3, 0.1, 2), Merge(0, 4, 0.3, 3), Merge(2, 5, 0.9, 4))
    assert groups(merges, 4, 0.05).tolist() == [0, 1, 2, 3]
    assert groups(merges, 4, 0.1).tolist() == [0, 1, 2, 1]
    assert groups(merges, 4, 0.3).tolist() == [0, 0, 1, 0]
    assert groups(merges, 4, 2.0).tolist() == [0, 0, 0, 0]


def test_distances_of_opposite_equal_and_empty_rows() -> None:
    rows = np.array([[1.0, 0], [3, 0], [-2, 0], [0, 5], [0, 0]])
    expected = [[0, 0, 2, 1, 1], [0, 0, 2, 1, 1], [2, 2, 0, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 0]]
    assert np.allclose(cosine_distances(rows), expected)
    found = cluster(rows, threshold=0.5)
    assert found.ids[0] == found.ids[1] and len(set(found.ids.tolist())) == 4


@pytest.mark.parametrize("n", [0, MOST_ROWS + 1])
def test_no_rows_and_too_many_are_refused(n: int) -> None:
    with pytest.raises(EditError, match=rf"^{n} rows cannot be clustered; give 1 to {MOST_ROWS}"):
        cluster(np.ones((n, 2)))


@pytest.mark.parametrize("threshold", [-0.1, 2.5, float("nan")])
def test_a_threshold_that_is_no_distance_is_refused(threshold: float) -> None:
    with pytest.raises(EditError, match="is no cosine distance"):
        cluster(np.ones((2, 2)), threshold)
