"""From a map of objects to what each patch shows. Knows grids and arrays; nothing of where maps come from."""

from __future__ import annotations

import numpy as np

from explorer.records import Grid
from index.sources.base import NOTHING, UNKNOWN, PatchTruth

LEAST = 0.5
"""A patch shows the object that covers at least this share of it, as in the drawn scenes."""

_ENOUGH, _MOST = 8, 16


def sampled(owner: np.ndarray, grid: Grid) -> np.ndarray:
    """Look at the map of a whole picture, owner [H, W], through a grid: [rows * a, cols * b].

    Every patch gets the same number of places, a x b; where patches have a whole number of pixels, not
    too many, the places are these pixels. Places outside the picture (padding) show nothing.
    """
    height, width = owner.shape
    box = grid.covered
    down = _places(box.top, box.bottom, grid.rows, height / grid.height)
    across = _places(box.left, box.right, grid.cols, width / grid.width)
    found = owner[np.ix_(down.clip(0, height - 1), across.clip(0, width - 1))]
    inside = np.ix_((down >= 0) & (down < height), (across >= 0) & (across < width))
    seen = np.full(found.shape, NOTHING, dtype=np.int64)
    seen[inside] = found[inside]
    return seen


def _places(start: float, stop: float, cells: int, scale: float) -> np.ndarray:
    """The pixels to look at between two natural pixels that span `cells` patches."""
    pixels = max(1, round((stop - start) * scale / cells))
    fine = pixels * -(-_ENOUGH // pixels) if pixels <= _MOST else _MOST
    middles = (np.arange(cells * fine) + 0.5) / (cells * fine)
    return np.floor((start + middles * (stop - start)) * scale + 1e-9).astype(np.int64)


def decided(fine: np.ndarray, rows: int, cols: int, concepts: np.ndarray) -> PatchTruth:
    """What each patch shows, from a map [rows * a, cols * b] of object numbers, -1 nothing, -2 unknown.

    concepts: [n] the concept of each object. A patch shows what covers at least half of it.
    """
    n_patches, kinds = rows * cols, len(concepts) + 1
    cells = fine.reshape(rows, fine.shape[0] // rows, cols, fine.shape[1] // cols).transpose(0, 2, 1, 3)
    cells = cells.reshape(n_patches, -1)
    shown = np.where(cells == UNKNOWN, kinds - 1, cells)  # unknown counts as one more object, the last
    patch, _ = np.nonzero(shown >= 0)
    counts = np.bincount(patch * kinds + shown[shown >= 0], minlength=n_patches * kinds)
    shares = counts.reshape(n_patches, kinds) / cells.shape[1]
    best = np.where(shares.max(1) >= LEAST, shares.argmax(1), kinds)
    known = np.append(concepts, [UNKNOWN, NOTHING]).astype(np.int64)
    return PatchTruth(known[best], np.where(best < len(concepts), best, NOTHING))
