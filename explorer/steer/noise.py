"""Diffusion noise on a picture's pixel values: the schedule of VCD, which CNS takes over.

x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps, with eps ~ N(0, I), on the normalised pixel values, without
clamping. Source: DAMO-NLP-SG/VCD, vcd_utils/vcd_add_noise.py; CNS (arXiv 2602.00621), section 3. Knows
nothing of what the pixels show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.steer.checks import seed as checked_seed
from explorer.steer.checks import whole

STEPS = 1000
"""Steps of the schedule, counted from 0. Step 0 is nearly the picture itself, 999 nearly noise."""


class Mixture(NamedTuple):
    """What a noisy picture is made of: shares of the clean one and of noise; their squares sum to 1."""

    signal: float
    noise: float


def signal_and_noise(step: int) -> Mixture:
    """sqrt(abar) and sqrt(1 - abar) at a step 0 .. 999. Raises EditError for another one."""
    abar = _schedule()[whole("the noise step", step, 0, STEPS - 1)]
    return Mixture(float(abar.sqrt()), float((1 - abar).sqrt()))


def noisy_pixels(
    pixel_values: Tensor, step: int, seed: int, tied: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The pixel values of one picture with the noise of a step, in their shape, dtype and place.

    The noise is drawn once for the whole tensor, in float32 on the CPU, so that a seed gives the same
    noise on every device; give pictures one by one to have it not depend on their order. tied: see
    `explorer.vlm.base.LVLM.tied`. Raises EditError for a step outside 0 .. 999 or a seed that is none.
    """
    mixture = signal_and_noise(step)
    draw = torch.Generator().manual_seed(checked_seed("the noise seed", seed))
    eps = torch.randn(pixel_values.shape, generator=draw)
    eps = eps if tied is None else tied(eps)
    return (mixture.signal * pixel_values.float() + mixture.noise * eps.to(pixel_values.device)).to(
        pixel_values.dtype
    )


@cache
def _schedule() -> Tensor:
    """abar [STEPS] float32: how much of the picture's variance is left at each step."""
    beta = torch.sigmoid(torch.linspace(-6, 6, STEPS)) * (0.5e-2 - 1e-5) + 1e-5
    return torch.cumprod(1 - beta, dim=0)
