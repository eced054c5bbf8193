"""The map of directions: near ones lie near each other, nothing drifts off, and it is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import explorer.store
from explorer.store.vectors import unit_rows
from index.meaning import layout
from index.meaning.layout import FEWEST, NEAREST, positions


def clusters(n: int, groups: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Directions [n, d] in groups, and the group of each."""
    dice = np.random.default_rng(seed)
    group = dice.integers(0, groups, n)
    rows = dice.normal(size=(groups, width))[group] + 0.3 * dice.normal(size=(n, width))
    return unit_rows(rows), group


def test_groups_of_directions_are_groups_on_the_map() -> None:
    directions, group = clusters(600, 12, 40)
    found = positions(directions)
    assert found.shape == (600, 2) and found.dtype == np.float64
    away = ((found[:, None] - found[None]) ** 2).sum(-1)
    np.fill_diagonal(away, np.inf)
    nearest = np.argsort(away, axis=1)[:, :10]
    assert (group[nearest] == group[:, None]).mean() > 0.9


def test_it_fills_the_square_and_is_the_same_each_time() -> None:
    directions, _ = clusters(400, 9, 24, seed=3)
    found = positions(directions)
    assert np.abs(found).max() == pytest.approx(1)
    np.testing.assert_allclose(found.max(0) + found.min(0), 0, atol=1e-9)
    assert np.array_equal(found, positions(directions))
    assert np.quantile(np.abs(found), 0.5) > 0.2  # nobody far off makes the others small


def test_directions_of_length_0_have_no_place() -> None:
    directions, _ = clusters(60, 4, 8)
    directions[[0, 7, 59]] = 0
    found = positions(directions)
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [0, 7, 59]
    assert np.isnan(found[[0, 7, 59]]).all()
    others = np.delete(directions, [0, 7, 59], axis=0)
    assert np.array_equal(np.delete(found, [0, 7, 59], axis=0), positions(others))


@pytest.mark.parametrize("n", [1, 2, 3, FEWEST - 1, FEWEST, FEWEST + 1, 40])
@pytest.mark.parametrize("width", [1, 2, 7, 200])
def test_tiny_saes_have_a_map_too(n: int, width: int) -> None:
    found = positions(clusters(n, 3, width)[0])
    assert found.shape == (n, 2) and np.isfinite(found).all() and np.abs(found).max() <= 1


def test_a_few_lie_along_their_strongest_components() -> None:
    directions = np.eye(3, 5)
    directions[2] = [0, 1, 0, 0, 1e-3]
    found = positions(unit_rows(directions))
    assert np.linalg.norm(found[1] - found[2]) < 0.01 < np.linalg.norm(found[0] - found[1])


def test_equal_directions_are_no_trouble() -> None:
    found = positions(unit_rows(np.ones((50, 6))))
    assert np.isfinite(found).all() and np.abs(found).max() <= 1
    assert np.isnan(positions(np.zeros((4, 6), dtype=np.float32))).all()
    assert positions(np.zeros((0, 6), dtype=np.float32)).shape == (0, 2)


def test_the_search_in_lists_gives_the_same_map_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explorer.store.neighbours.EXACT", 500)
    monkeypatch.setattr(layout, "_STEPS", 40)
    directions, _ = clusters(1500, 20, 160)
    assert np.array_equal(positions(directions), positions(directions))


def test_the_format_tells_the_same_numbers() -> None:
    text = Path(explorer.store.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
    assert (
        f"The {NEAREST} nearest directions" in text and f"(up to {FEWEST - 1} directions stay there)" in text
    )
