"""Edits that act only where an activation lies in a range: NeuronLens, for neurons of an SAE.

Source: "Neurons Speak in Ranges" (arXiv 2502.06809), MuhammadUmairHaider/NeuronLens, utils.py and
models/lama.py. There a neuron is a signed coordinate of the residual stream; `fit` and `masked` are its
formulas as they stand. An SAE's neuron is 0 almost everywhere, so here mean and deviation are those of
its activations on one side of 0, and 0 is never touched. Below 0 are activations of signed SAEs, and what
earlier edits or a contrast left there. Knows tensors; nothing of models or stores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Edit
from explorer.steer.checks import LARGEST, number

Action = Literal["zero", "scale", "soft"]
Side = Literal["above", "below", "both"]
SOFTNESS = 0.125
"""What the soft variant leaves of an activation at the edge of its range; in the centre it leaves none."""


@dataclass(frozen=True, eq=False)
class RangeEdit:
    """What a person asks of one neuron where its activation lies in a range.

    neuron: index of the SAE's neuron.
    low, high: it acts where low <= z <= high, for z as earlier edits left it; may be infinite.
    action: "zero" sets z to 0, "scale" multiplies it by factor, "soft" by 0.125 times the distance from
        the centre of the range, in halves of its length (0 everywhere in a range without an end).
    patches: as those of an Edit: None for all, "active", or a (rows, cols) boolean mask.
    side: of 0 on which it acts: "above", "below" (of a signed SAE, say) or "both"; never on 0 itself.
    Raises EditError for an unknown action or side, a range that is none or lies beyond its side, or what an
    Edit would refuse.
    """

    neuron: int
    low: float
    high: float
    action: Action = "zero"
    factor: float = 0.0
    patches: np.ndarray | Literal["active"] | None = None
    side: Side = "above"

    def __post_init__(self) -> None:
        same = Edit(self.neuron, 0.0, "set", self.patches)
        object.__setattr__(self, "patches", same.patches)
        if self.action not in ("zero", "scale", "soft"):
            raise EditError(f"unknown action {self.action!r} of a range; use 'zero', 'scale' or 'soft'")
        low = number(f"neuron {self.neuron}: the low end", self.low, infinite=True)
        high = number(f"neuron {self.neuron}: the high end", self.high, infinite=True)
        if low > high:
            raise EditError(f"neuron {self.neuron}: the range {low:g} to {high:g} is none; low comes first")
        number(f"neuron {self.neuron}: the factor", self.factor, -LARGEST, LARGEST)
        if self.side not in get_args(Side):
            raise EditError(f"unknown side {self.side!r} of a range; use 'above', 'below' or 'both'")
        if (self.side == "above" and high <= 0) or (self.side == "below" and low >= 0):
            other = "below" if self.side == "above" else "above"
            raise EditError(
                f"neuron {self.neuron}: the range {low:g} to {high:g} holds nothing {self.side} 0, so it "
                f"would never act; for activations {other} 0 use side={other!r}"
            )


class Bounds(NamedTuple):
    """Ranges [low, high] of several coordinates, each [d]; inf to -inf for one that is left alone."""

    lower: Tensor
    upper: Tensor


def fitted_range(
    neuron: int,
    mean: float,
    std: float,
    tau: float = 2.0,
    action: Action = "zero",
    factor: float = 0.0,
    patches: np.ndarray | Literal["active"] | None = None,
) -> RangeEdit:
    """The edit of a neuron within tau deviations of the mean of its activations on one side of 0.

    mean, std: of the neuron's activations above 0, or, with a mean below 0, of those below 0; std with
    divisor n. The edit acts on that side. tau: above 0, infinity for wherever the neuron is active there
    (the released code has a NaN when std is 0). Raises EditError for others.
    """
    centre = number(f"neuron {neuron}: the mean", mean)
    spread = number(f"neuron {neuron}: the standard deviation", std, 0.0)
    reach = number("tau", tau, 0.0, above=True, infinite=True)
    half = math.inf if math.isinf(reach) else reach * spread
    side: Side = "below" if centre < 0 else "above"
    return RangeEdit(neuron, centre - half, centre + half, action, factor, patches, side)


def fit(activations: Tensor, percent: float = 0.3, tau: float = 2.0) -> Bounds:
    """NeuronLens' ranges of the most salient coordinates of activations [n, d] of one class.

    Salience is the mean of |a|; the int(percent * d) most salient get mean +- tau deviations (with
    divisor n), the others a range that holds nothing. Raises EditError for a percent outside 0 .. 1 or a
    tau that is not above 0.
    """
    share = number("percent", percent, 0.0, 1.0)
    reach = number("tau", tau, 0.0, above=True, infinite=True)
    mean, std = activations.mean(0), activations.std(0, correction=0)
    half = torch.full_like(std, math.inf) if math.isinf(reach) else reach * std
    chosen = torch.zeros_like(mean, dtype=torch.bool)
    salience = activations.abs().mean(0)
    chosen[salience.topk(int(share * len(salience))).indices] = True
    nowhere = torch.full_like(mean, math.inf)
    return Bounds(torch.where(chosen, mean - half, nowhere), torch.where(chosen, mean + half, -nowhere))


def masked(x: Tensor, lower: Tensor | float, upper: Tensor | float, soft: bool = False) -> Tensor:
    """x [..., d] with 0 where lower <= x <= upper, or the soft variant of it; lower, upper [d]."""
    return ranged(x, lower, upper, "soft" if soft else "zero")


def ranged(
    x: Tensor, lower: Tensor | float, upper: Tensor | float, action: Action, factor: float = 0.0
) -> Tensor:
    """x [...] with an action taken where lower <= x <= upper."""
    inside = (x >= lower) & (x <= upper)
    match action:
        case "zero":
            new = torch.zeros_like(x)
        case "scale":
            new = x * factor
        case "soft":
            half = (upper - lower) / 2
            distance = ((x - (upper + lower) / 2).abs() / (half + 1e-6)).clamp(0, 1)
            new = x * SOFTNESS * torch.nan_to_num(distance, nan=0.0)
    return torch.where(inside, new, x)


def edited(edit: RangeEdit, now: Tensor) -> Tensor:
    """A neuron's activations [T] after a range edit on every patch; those on the other side, and 0, stay."""
    match edit.side:
        case "above":
            acts = now > 0
        case "below":
            acts = now < 0
        case "both":
            acts = now != 0
    return torch.where(acts, ranged(now, edit.low, edit.high, edit.action, edit.factor), now)
