"""Which kind of neuron each one is, from how often it fires. Numpy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ALWAYS_SHARE = 1.0
"""Always-on neurons are in the image-level top-20 of at least this share of the images."""
RARE_SHARE = 0.001
"""Rare neurons fire in less than this share of the images."""


class ClassCounts(NamedTuple):
    """How many neurons each class has."""

    always_on: int
    image_specific: int
    rare: int
    dead: int


CLASSES: tuple[str, ...] = ClassCounts._fields


def classify(
    fires: np.ndarray, in_top: np.ndarray, always_share: float = ALWAYS_SHARE, rare_share: float = RARE_SHARE
) -> np.ndarray:
    """The class of each neuron, [F] str, from shares [F] of the images (see FORMAT.md, `class`).

    The first that holds: dead (never fires), always_on, rare, else image_specific.
    """
    return np.select(
        [fires == 0, in_top >= always_share, fires < rare_share],
        ["dead", "always_on", "rare"],
        "image_specific",
    )


def count(classes: np.ndarray) -> ClassCounts:
    """How many neurons have each class, from their classes [F]."""
    return ClassCounts(*(int((classes == name).sum()) for name in CLASSES))
