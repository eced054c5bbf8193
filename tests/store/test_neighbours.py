"""The nearest directions: exact among some thousand, nearly all of them among more."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from explorer.store import neighbours as search
from explorer.store.neighbours import neighbours
from explorer.store.vectors import unit_rows


def some_units(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around some centres."""
    dice = np.random.default_rng(seed)
    centres = dice.normal(size=(max(n // 25, 1), width))
    return unit_rows(centres[dice.integers(0, len(centres), n)] + 0.4 * dice.normal(size=(n, width)))


@pytest.mark.parametrize("n", [2, 5, 300])
def test_they_are_those_of_all_pairs(n: int) -> None:
    units = some_units(n, 12)
    found = neighbours(units, 4)
    cosines = units.astype(np.float64) @ units.T
    np.fill_diagonal(cosines, -9)
    k = min(4, n - 1)
    assert found.rows.shape == found.cosines.shape == (n, k)
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, found.rows, 1), found.cosines, atol=1e-5)


def test_a_row_is_never_its_own_neighbour_even_among_equals() -> None:
    units = np.tile(unit_rows(np.ones((1, 3))), (20, 1))
    found = neighbours(units, 5)
    assert not (found.rows == np.arange(20)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found.rows.tolist())


def test_a_lone_row_has_none() -> None:
    assert neighbours(some_units(1, 4), 3).rows.shape == (1, 0)


def test_in_lists_nearly_all_are_found_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    units = some_units(6000, 24)
    exact = neighbours(units, 6)
    monkeypatch.setattr(search, "EXACT", 1000)
    threads = faiss.omp_get_max_threads()
    found, again = neighbours(units, 6), neighbours(units, 6)
    assert faiss.omp_get_max_threads() == threads
    assert np.array_equal(found.rows, again.rows) and np.array_equal(found.cosines, again.cosines)
    hits = [len(set(a) & set(b)) for a, b in zip(exact.rows.tolist(), found.rows.tolist(), strict=True)]
    assert np.mean(hits) > 0.95 * 6
