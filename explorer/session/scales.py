"""Where a tower sees the picture once more, in tiles or larger: edits and activations go by where things are.

Knows grids, edits and activations; nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explorer.records import Edit, Grid
from explorer.sae import SparseCodes
from explorer.steer import RangeEdit
from explorer.vlm import Prepared


def elsewhere(edits: Sequence[Edit | RangeEdit], grid: Grid, other: Grid) -> tuple[Edit | RangeEdit, ...]:
    """The edits of a picture on `grid`, for another grid over the same picture.

    A patch of the other grid is marked when its centre lies in a marked patch.
    """
    where: np.ndarray | None = None
    moved = []
    for edit in edits:
        if isinstance(edit.patches, np.ndarray):
            where = under(grid, other) if where is None else where
            inside = np.append(edit.patches.ravel(), False)[where]
            edit = replace(edit, patches=inside.reshape(other.rows, other.cols))
        moved.append(edit)
    return tuple(moved)


def under(grid: Grid, other: Grid) -> np.ndarray:
    """For each patch of `other` the number of the patch of `grid` under its centre; -1 for none."""
    box, seen = other.covered, grid.covered
    x = box.left + (np.arange(other.cols) + 0.5) * (box.right - box.left) / other.cols
    y = box.top + (np.arange(other.rows) + 0.5) * (box.bottom - box.top) / other.rows
    col = np.floor((x - seen.left) / (seen.right - seen.left) * grid.cols).astype(np.int64)
    row = np.floor((y - seen.top) / (seen.bottom - seen.top) * grid.rows).astype(np.int64)
    inside = ((0 <= row) & (row < grid.rows))[:, None] & ((0 <= col) & (col < grid.cols))[None]
    return np.where(inside, row[:, None] * grid.cols + col[None], -1).ravel()


class Everywhere(NamedTuple):
    """A picture's patches at all scales in a row, those of its main grid first.

    codes: their activations; patches [T, d]: the output of the SAE's block; cells [T] int64: which patch of
    the main grid lies under the centre of each, -1 for none.
    """

    codes: SparseCodes
    patches: Tensor
    cells: Tensor


def everywhere(
    prepared: Prepared, hidden: Tensor, codes: SparseCodes, further: Sequence[SparseCodes]
) -> Everywhere:
    """All scales of a picture. hidden [tokens, d]; codes: of its main grid; further: of the other scales."""
    grid = prepared.grid
    patches, cells = [prepared.patches(hidden)], [torch.arange(grid.rows * grid.cols)]
    parts, begin = [codes], grid.rows * grid.cols
    for scale, here in zip(prepared.scales, further, strict=True):
        parts.append(here._replace(tokens=here.tokens + begin))
        patches.append(hidden[scale.places])
        cells.append(torch.from_numpy(under(grid, scale.grid)))
        begin += len(scale.places)
    joined = SparseCodes(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return Everywhere(joined, torch.cat(patches), torch.cat(cells))
