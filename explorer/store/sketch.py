"""Patch vectors made short, so that an exemplar can be kept as a few hundred numbers. Numpy only.

A sketch is (vector - b_dec) @ matrix. Up to 256 dimensions nothing is lost; above, random signs keep the
angles between vectors to within a few hundredths. The matrix is drawn bit by bit from PCG64's raw
output, so that it is the same with every numpy and on every machine.
"""

from __future__ import annotations

import numpy as np

SIDE = 256
SEED = 0


def side_of(width: int) -> int:
    """Numbers in the sketch of a vector of this width."""
    return min(width, SIDE)


def matrix(width: int, seed: int = SEED) -> np.ndarray:
    """The sketch matrix [width, min(width, 256)] float32: the identity, or signs / 16."""
    if width <= SIDE:
        return np.eye(width, dtype=np.float32)
    count = width * SIDE
    raw = np.random.PCG64(seed).random_raw((count + 63) // 64).astype("<u8")
    bits = np.unpackbits(raw.view(np.uint8), bitorder="little")[:count].reshape(width, SIDE)
    return np.where(bits, np.float32(1 / 16), np.float32(-1 / 16))
