"""Whether numbers that people give for an intervention are such numbers. Knows no tensor and no model."""

from __future__ import annotations

import math
import sys
from numbers import Integral, Real

from explorer.errors import EditError

LARGEST = 1e6
"""Largest size of an edit's value: beyond it nothing but noise would come out."""

LARGEST_SEED = 2**32 - 1
"""torch's generator on the CPU uses no more bits of a seed: larger ones would repeat smaller ones."""


def number(
    what: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    infinite: bool = False,
) -> float:
    """The value as a float in [low, high], or in (low, high] when it must lie `above` low.

    Raises EditError for anything else: no number, a bool, NaN, and infinity unless it is allowed.
    """
    ends = [f"{'above' if above else 'from'} {low:g}"] if low > -math.inf else []
    ends += [f"up to {high:g}"] if high < math.inf else []
    limits = " ".join(["a number or infinity" if infinite else "a finite number", *ends])
    if isinstance(value, bool) or not isinstance(value, Real):
        raise EditError(f"{what} must be {limits}, not {value!r}")
    inside = (low < value if above else low <= value) and value <= high
    if not inside or not (infinite or abs(value) <= sys.float_info.max):
        raise EditError(f"{what} must be {limits}, not {value!r}")
    return (
        float(value) if abs(value) <= sys.float_info.max else math.copysign(math.inf, 1 if value > 0 else -1)
    )


def whole(what: str, value: object, low: int, high: int | None = None) -> int:
    """The value as an int in low .. high; 500.0 counts as 500. Raises EditError for anything else."""
    limits = f"a whole number from {low}" + ("" if high is None else f" to {high}")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise EditError(f"{what} must be {limits}, not {value!r}")
    if not isinstance(value, Integral) and not float(value).is_integer():
        raise EditError(f"{what} must be {limits}, not {value!r}")
    if int(value) < low or (high is not None and int(value) > high):
        raise EditError(f"{what} must be {limits}, not {value!r}")
    return int(value)


def seed(what: str, value: object) -> int:
    """The value as a seed. Raises EditError when it is none."""
    return whole(what, value, 0, LARGEST_SEED)
