"""The strongest neurons over some patches of a view, against the plain sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.errors import EditError
from explorer.records import Box, Grid
from explorer.sae import SparseCodes
from explorer.session import View
from explorer.vlm import Prepared
from explorer.vlm.memory import Memory

ROWS, COLS, NEURONS = 3, 5, 12


@pytest.fixture
def view() -> View:
    rng = np.random.default_rng(5)
    dense = rng.random((ROWS * COLS, NEURONS)) * (rng.random((ROWS * COLS, NEURONS)) < 0.3)
    tokens, neurons = np.nonzero(dense)
    codes = SparseCodes(
        torch.from_numpy(tokens), torch.from_numpy(neurons), torch.from_numpy(dense[tokens, neurons]).float()
    )
    grid = Grid(ROWS, COLS, 50, 30, Box(0, 0, 50, 30))
    empty = torch.zeros(ROWS * COLS, 2)
    image = Image.new("RGB", (50, 30))
    return View(image, Prepared(torch.zeros(1, 3, 8, 8), grid), 0.1, NEURONS, empty, codes, Memory())


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_it_pools_the_maps_over_the_marked_patches(view: View, pool: str) -> None:
    mask = np.zeros((ROWS, COLS), np.bool_)
    mask[1, 1:4] = mask[2, 0] = True
    maps = np.stack([view.map(neuron)[mask] for neuron in range(NEURONS)])
    pooled = maps.mean(1) if pool == "mean" else maps.max(1)
    expected = [n for n in np.argsort(-pooled, kind="stable") if pooled[n] > 0][:6]
    found = view.top_among(mask, 6, pool)  # type: ignore[arg-type]
    assert [one.neuron for one in found] == expected
    assert [one.value for one in found] == pytest.approx(pooled[expected])


def test_one_patch_is_top_at_and_all_are_top(view: View) -> None:
    mask = np.zeros((ROWS, COLS), np.bool_)
    mask[2, 3] = True
    alone = view.top_at(2, 3, 9)
    assert [one.neuron for one in view.top_among(mask, 9)] == [one.neuron for one in alone]
    everywhere = view.top_among(np.ones((ROWS, COLS), np.bool_), 9)
    assert everywhere == view.top(9)


@pytest.mark.parametrize(
    "mask", [np.zeros((ROWS, COLS), np.bool_), np.ones((COLS, ROWS), np.bool_), np.ones((ROWS, COLS))]
)
def test_masks_that_do_not_fit_are_refused(view: View, mask: np.ndarray) -> None:
    with pytest.raises(EditError, match="mark some patches"):
        view.top_among(mask)
