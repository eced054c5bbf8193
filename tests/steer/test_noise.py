"""The noise schedule against values of the published code."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from explorer.errors import EditError
from explorer.steer import STEPS, noisy_pixels, signal_and_noise

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "vcd_noise.json").read_text())


@pytest.mark.parametrize("step", sorted(map(int, GOLDEN["schedule"])))
def test_the_schedule(step: int) -> None:
    expected, found = GOLDEN["schedule"][str(step)], signal_and_noise(step)
    assert found.signal == pytest.approx(expected["sqrt_alphas_bar"], abs=1e-6)
    assert found.noise == pytest.approx(expected["sqrt_one_minus_alphas_bar"], abs=1e-6)
    assert found.signal**2 == pytest.approx(expected["alphas_prod"], abs=1e-6)
    if step:
        beta = 1 - (found.signal / signal_and_noise(step - 1).signal) ** 2
        assert beta == pytest.approx(expected["beta"], abs=1e-6)


def test_noise_only_grows_and_the_squares_sum_to_one() -> None:
    noises = [signal_and_noise(step).noise for step in range(STEPS)]
    assert all(b > a for a, b in pairwise(noises))
    for step in range(0, STEPS, 111):
        assert sum(part**2 for part in signal_and_noise(step)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"t{case['t']}-{len(case['shape'])}d")
def test_noisy_pixels(case: dict) -> None:
    x = torch.tensor(case["x"]).view(case["shape"])
    found = noisy_pixels(x, case["t"], case["noise_seed"])
    assert torch.allclose(found, torch.tensor(case["y"]).view(case["shape"]), atol=1e-6)
    clean, noise = signal_and_noise(case["t"])
    assert torch.allclose((found - clean * x) / noise, torch.tensor(case["eps"]).view(x.shape), atol=2e-4)


def test_a_seed_repeats_and_another_differs_and_nothing_else_is_drawn() -> None:
    pixels = torch.ones(1, 3, 8, 8)
    state = torch.get_rng_state()
    first = noisy_pixels(pixels, 500, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, noisy_pixels(pixels, 500, 3)) and torch.equal(pixels, torch.ones(1, 3, 8, 8))
    assert not torch.equal(first, noisy_pixels(pixels, 500, 4))
    eps = (first - math.sqrt(0.7447987198829651)) / signal_and_noise(500).noise
    same = (noisy_pixels(pixels, 900, 3) - signal_and_noise(900).signal) / signal_and_noise(900).noise
    assert torch.allclose(eps, same, atol=1e-5), "one seed is one noise at every step"


def test_other_dtypes_come_back_as_they_were() -> None:
    pixels = torch.linspace(-2, 2, 48).view(1, 3, 4, 4)
    half = noisy_pixels(pixels.bfloat16(), 300, 0)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, noisy_pixels(pixels.bfloat16().float(), 300, 0).bfloat16())


@pytest.mark.parametrize("step", [-1, 1000, 499.5, float("nan"), float("inf"), True, "500", None])
def test_other_steps_are_refused(step: object) -> None:
    with pytest.raises(EditError, match=r"the noise step must be a whole number from 0 to 999, not "):
        signal_and_noise(step)
    with pytest.raises(EditError, match="the noise step"):
        noisy_pixels(torch.zeros(1, 3, 2, 2), step, 0)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None])
def test_other_seeds_are_refused(seed: object) -> None:
    with pytest.raises(EditError, match=r"the noise seed must be a whole number from 0 to 4294967295, not "):
        noisy_pixels(torch.zeros(1, 3, 2, 2), 500, seed)
