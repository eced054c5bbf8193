"""The same edits where a tower sees the picture once more, in tiles or larger: masks go by where things are.

Knows grids and edits; nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from explorer.records import Edit, Grid
from explorer.steer import RangeEdit


def elsewhere(edits: Sequence[Edit | RangeEdit], grid: Grid, other: Grid) -> tuple[Edit | RangeEdit, ...]:
    """The edits of a picture on `grid`, for another grid over the same picture.

    A patch of the other grid is marked when its centre lies in a marked patch.
    """
    where: np.ndarray | None = None
    moved = []
    for edit in edits:
        if isinstance(edit.patches, np.ndarray):
            where = _under(grid, other) if where is None else where
            inside = np.append(edit.patches.ravel(), False)[where]
            edit = replace(edit, patches=inside.reshape(other.rows, other.cols))
        moved.append(edit)
    return tuple(moved)


def _under(grid: Grid, other: Grid) -> np.ndarray:
    """For each patch of `other` the number of the patch of `grid` under its centre; the last for none."""
    none, found = grid.rows * grid.cols, []
    for row in range(other.rows):
        for col in range(other.cols):
            left, top, right, bottom = other.box_of(row, col)
            cell = grid.patch_at((left + right) / 2, (top + bottom) / 2)
            found.append(none if cell is None else cell.row * grid.cols + cell.col)
    return np.array(found)
