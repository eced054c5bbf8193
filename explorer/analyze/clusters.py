"""Groups of alike rows, and an order in which neighbours are alike, for heat maps.

Agglomerative clustering with average linkage (Sokal & Michener 1958, UPGMA) on the cosine distance, and the
order of its leaves that makes neighbours nearest among all the orders that the tree allows (Bar-Joseph,
Gifford & Jaakkola 2001). Numpy only, for some hundred rows; knows nothing of neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from explorer.errors import EditError

MOST_ROWS = 500
"""Beyond so many rows the cubic work would keep a person waiting."""


class Merge(NamedTuple):
    """Two clusters that became one: clusters below n are rows, n + i is what the i-th merge made.

    height: the mean distance between the rows of one and the rows of the other; size: rows in both.
    """

    left: int
    right: int
    height: float
    size: int


@dataclass(frozen=True, eq=False)
class Clustering:
    """Rows in groups. merges: n - 1 of them, in the order in which they were made, the closest first;
    order: [n] int, the rows as a heat map should show them; ids: [n] int, the group of each row, counted
    from 0 in that order."""

    merges: tuple[Merge, ...]
    order: np.ndarray
    ids: np.ndarray


def cosine_distances(rows: np.ndarray) -> np.ndarray:
    """1 - cosine between all pairs of rows [n, d]: [n, n] float64, 0 on the diagonal.

    A row of zeros has no direction and lies 1 away from every other.
    """
    rows = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    distances = np.clip(1.0 - units @ units.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def average_linkage(distances: np.ndarray) -> tuple[Merge, ...]:
    """Merge the two nearest clusters until one is left; of equally near ones the lowest numbers first.

    distances: [n, n], symmetric. The distance of a merged cluster is the mean over its pairs of rows, kept
    up by Lance and Williams' formula. Raises EditError for no rows or too many.
    """
    n = len(distances)
    if not 1 <= n <= MOST_ROWS:
        raise EditError(f"{n} rows cannot be clustered; give 1 to {MOST_ROWS}")
    table = np.array(distances, dtype=np.float64)
    np.fill_diagonal(table, np.inf)
    names, sizes = list(range(n)), np.ones(n)
    merges = []
    for step in range(n - 1):
        i, j = sorted(divmod(int(table.argmin()), n))
        size = int(sizes[i] + sizes[j])
        left, right = sorted((names[i], names[j]))
        merges.append(Merge(left, right, float(table[i, j]), size))
        merged = (sizes[i] * table[i] + sizes[j] * table[j]) / size
        merged[i] = np.inf
        table[i], table[:, i] = merged, merged
        table[j], table[:, j] = np.inf, np.inf
        names[i], sizes[i] = n + step, size
    return tuple(merges)


def leaf_order(merges: tuple[Merge, ...], distances: np.ndarray) -> np.ndarray:
    """The order of the rows, [n] int, with the least sum of distances between neighbours that any turning
    of the tree's branches can give.

    For every cluster the best sum is kept for each pair of rows that may stand at its two ends.
    """
    distances = np.asarray(distances, dtype=np.float64)
    nodes = [_Node.leaf(row) for row in range(len(distances))]
    for merge in merges:
        nodes.append(_joined(nodes[merge.left], nodes[merge.right], distances))
    root = nodes[-1]
    best = np.unravel_index(int(root.costs.argmin()), root.costs.shape)
    return np.array(_walk(root, int(best[0]), int(best[1])), dtype=np.int64)


def groups(merges: tuple[Merge, ...], n: int, threshold: float) -> np.ndarray:
    """The group of each of the n rows, [n] int: clusters whose mean distance is at most `threshold` are one.

    Numbered by their lowest row.
    """
    parent = list(range(n + len(merges)))
    for i, merge in enumerate(merges):
        if merge.height <= threshold:
            parent[merge.left] = parent[merge.right] = n + i
    tops = np.arange(n)
    for row in range(n):
        while parent[tops[row]] != tops[row]:
            tops[row] = parent[tops[row]]
    _, first, ids = np.unique(tops, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[ids]


def cluster(rows: np.ndarray, threshold: float = 0.5) -> Clustering:
    """Cluster rows [n, d] by the cosine between them.

    threshold: rows are one group while their mean cosine distance is at most this.
    Raises EditError for no rows, too many, or a threshold outside 0 to 2.
    """
    if not 0.0 <= threshold <= 2.0:
        raise EditError(f"the threshold {threshold} is no cosine distance; use 0 to 2")
    distances = cosine_distances(rows)
    merges = average_linkage(distances)
    order = leaf_order(merges, distances)
    found = groups(merges, len(distances), threshold)
    seen = {group: place for place, group in enumerate(dict.fromkeys(found[order].tolist()))}
    return Clustering(merges, order, np.array([seen[group] for group in found.tolist()], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class _Node:
    """A cluster in the search for the order of leaves.

    rows: its rows [k], those of the first child before those of the second; costs: [k, k], the least sum of
    distances between neighbours with these two rows at the ends, infinite where the tree does not allow it;
    children: none for a row.
    """

    rows: np.ndarray
    costs: np.ndarray
    children: tuple[_Node, _Node] | None = None
    between: np.ndarray | None = None

    @staticmethod
    def leaf(row: int) -> _Node:
        return _Node(np.array([row]), np.zeros((1, 1)))


def _joined(first: _Node, second: _Node, distances: np.ndarray) -> _Node:
    """The cluster of two. For ends i in one and j in the other the rows k and m that meet are searched in
    two steps, over k and then over m, so that the work is cubic."""
    between = distances[np.ix_(first.rows, second.rows)]
    reached = _least_sums(first.costs, between)
    across = _least_sums(reached, second.costs)
    size, cut = len(first.rows) + len(second.rows), len(first.rows)
    costs = np.full((size, size), np.inf)
    costs[:cut, cut:], costs[cut:, :cut] = across, across.T
    return _Node(np.concatenate([first.rows, second.rows]), costs, (first, second), between)


def _least_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """min over k of a[i, k] + b[k, j]: [i, j]."""
    return np.stack([(row[:, None] + b).min(axis=0) for row in a])


def _walk(node: _Node, start: int, end: int) -> list[int]:
    """The rows of a cluster in its best order from its `start`-th to its `end`-th row."""
    if node.children is None or node.between is None:
        return [int(node.rows[0])]
    first, second = node.children
    cut = len(first.rows)
    if start >= cut:
        return _walk(node, end, start)[::-1]
    sums = first.costs[start][:, None] + node.between + second.costs[:, end - cut][None]
    k, m = np.unravel_index(int(sums.argmin()), sums.shape)
    return _walk(first, start, int(k)) + _walk(second, int(m), end - cut)
