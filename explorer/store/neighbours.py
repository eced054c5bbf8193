"""The nearest of many directions to each of them: exact for some thousand, in lists for more. Knows FAISS."""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np

from explorer.store.vectors import one_thread

EXACT = 1 << 14
"""Up to so many rows all pairs are compared."""
_ROWS_PER_LIST = 128
_LISTS_SEARCHED = 12
_ROUNDS = 6
_SEED = 0


class Neighbours(NamedTuple):
    """The k rows nearest to each row, itself left out: rows [n, k] int64, cosines [n, k] float32.

    Where fewer were found the row is -1 and the cosine 0.
    """

    rows: np.ndarray
    cosines: np.ndarray


def neighbours(units: np.ndarray, k: int) -> Neighbours:
    """The k nearest others of each of the unit vectors [n, d] float32 by cosine, nearest first.

    Above `EXACT` rows some neighbours are missed: rows are put into lists by k-means, and only the nearest
    lists are searched. The same vectors give the same neighbours.
    """
    n, width = units.shape
    k = min(k, n - 1)
    if k < 1:
        return Neighbours(np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32))
    index = faiss.IndexFlatIP(width)
    with one_thread():
        if n > EXACT:
            index = _listed(index, units)
        index.add(units)
        cosines, rows = index.search(units, k + 1)
    return _without_themselves(rows, cosines, k)


def _listed(flat: faiss.IndexFlatIP, units: np.ndarray) -> faiss.IndexIVFFlat:
    """An empty index in lists, their centres found."""
    lists = len(units) // _ROWS_PER_LIST
    index = faiss.IndexIVFFlat(flat, units.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.spherical = _ROUNDS, _SEED, True
    index.cp.max_points_per_centroid = 64
    index.nprobe = _LISTS_SEARCHED
    index.train(units)
    return index


def _without_themselves(rows: np.ndarray, cosines: np.ndarray, k: int) -> Neighbours:
    """Leave out each row's match with itself, or its last match where others were as near."""
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    kept = ~own
    rows, cosines = rows[kept].reshape(-1, k), cosines[kept].reshape(-1, k)
    return Neighbours(rows, np.where(rows >= 0, cosines, np.float32(0)))
