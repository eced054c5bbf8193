"""What the modules of the projects share: an SAE that was made, and how its numbers are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

STORED = (torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types that weights are stored in, as often as they stand here."""
UNIT = 0.5
"""Deviation of the numbers that parameters are drawn with, when they are biases."""


class Codes(NamedTuple):
    """What a project's own code makes of vectors [n, d]: z [n, F] and x_hat [n, d], float32."""

    z: Tensor
    x_hat: Tensor


class Made(NamedTuple):
    """A checkpoint that a project's code wrote.

    kind: its class and what sets it apart, for the table; path: what to open; width: d; run: the project's
    own encoding and decoding, with the weights as they are stored and in float32; hints: what its files do
    not say.
    """

    kind: str
    path: Path
    width: int
    run: Callable[[Tensor], Codes]
    hints: Mapping[str, object] = {}


class Peer(Protocol):
    """What a module of a project offers. PACKAGE: the name by which its package is imported."""

    PACKAGE: str

    def make(self, draw: Random, folder: Path) -> Made:
        """Write an SAE with random options to a folder. Raises ImportError where the package is missing."""


def sizes(draw: Random) -> tuple[int, int]:
    """A width d and a number of neurons F, at times below d and at times equal to it."""
    width = draw.randint(3, 24)
    return width, draw.choice(
        (width, draw.randint(2, width), width * draw.randint(2, 4) + draw.randint(0, 3))
    )


@torch.no_grad()
def fill(module: nn.Module, spread: float = UNIT) -> None:
    """Draw every parameter anew: matrices of about unit length along their rows, vectors of `spread`."""
    for parameter in module.parameters():
        deviation = spread if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
        parameter.copy_(torch.randn(parameter.shape) * deviation)


def cast(state: Mapping[str, Tensor], dtype: torch.dtype, wrapper: str = "") -> dict[str, Tensor]:
    """A state dict with its floats in another type, and something before each name."""
    return {
        wrapper + name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu()
        for name, tensor in state.items()
    }
