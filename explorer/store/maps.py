"""Patch maps as small bytes: 8-bit steps and a scale, packed with zlib. Knows numpy and nothing else."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError

STEPS = 255


class Quantised(NamedTuple):
    """Patch maps in 8-bit steps: activation = steps * scale. steps [n, T] uint8, scales [n] float32."""

    steps: np.ndarray
    scales: np.ndarray


def quantise(maps: np.ndarray) -> Quantised:
    """Round maps [n, T] of activations >= 0 to 255 steps below each map's own peak; error <= peak / 510."""
    maps = np.asarray(maps, dtype=np.float32)
    scales = scale_of(maps.max(axis=1))
    return Quantised(steps_of(maps, scales[:, None]), scales)


def scale_of(peaks: np.ndarray) -> np.ndarray:
    """What one step is worth, float32, for maps with these highest activations."""
    return (peaks / np.float32(STEPS)).astype(np.float32)


def steps_of(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Activations in uint8 steps of their maps' scales; arrays that fit each other."""
    safe = np.where(scales > 0, scales, np.float32(1))
    return np.clip(np.rint(values / safe), 0, STEPS).astype(np.uint8)


def pack(steps: np.ndarray) -> bytes:
    """The bytes that the store keeps for one map of uint8 steps."""
    return zlib.compress(np.ascontiguousarray(steps, dtype=np.uint8).tobytes(), 1)


def unpack(blob: bytes, scale: float, rows: int, cols: int) -> np.ndarray:
    """The activations (rows, cols) float32 behind the store's bytes. Raises StoreError if they do not fit."""
    try:
        steps = np.frombuffer(zlib.decompress(blob), dtype=np.uint8)
    except zlib.error as error:
        raise StoreError(f"a patch map of this store is damaged ({error}); build the store again") from error
    if steps.size != rows * cols:
        raise StoreError(
            f"a patch map of this store has {steps.size} patches, not {rows} x {cols}; build the store again"
        )
    return steps.reshape(rows, cols).astype(np.float32) * np.float32(scale)
