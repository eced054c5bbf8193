"""Edits of neurons: what they make of a neuron's activations, and whether they fit a picture and an SAE.

Knows columns of activations and the patches they act on; nothing of models or stores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Edit, Grid
from explorer.sae import SparseCodes
from explorer.steer import ranges
from explorer.steer.checks import LARGEST
from explorer.steer.ranges import RangeEdit


def column(codes: SparseCodes, neuron: int, n_tokens: int) -> Tensor:
    """The activations [n_tokens] of one neuron."""
    here = (codes.neurons == neuron).nonzero().squeeze(1)
    dense = codes.values.new_zeros(n_tokens)
    dense[codes.tokens[here]] = codes.values[here]
    return dense


def edited(edit: Edit | RangeEdit, now: Tensor, untouched: Tensor) -> Tensor:
    """One neuron's activations [T] after one more edit, from those before it and in the untouched picture."""
    new = ranges.edited(edit, now) if isinstance(edit, RangeEdit) else _edited(edit, now)
    if edit.patches is None:
        return new
    if isinstance(edit.patches, str):
        where = untouched != 0
    else:
        where = torch.from_numpy(edit.patches.flatten()).to(now.device)
    return torch.where(where, new, now)


def _edited(edit: Edit, now: Tensor) -> Tensor:
    match edit.mode:
        case "set":
            return torch.full_like(now, edit.value)
        case "add":
            return now + edit.value
        case "scale":
            return now * edit.value


def check(edit: Edit | RangeEdit, n_neurons: int, grid: Grid) -> None:
    """Raises EditError for a neuron that the SAE does not have, a value of absurd size, or a mask of
    another shape than the grid."""
    if edit.neuron >= n_neurons:
        raise EditError(f"there is no neuron {edit.neuron}: this SAE has {n_neurons}, counted from 0")
    if isinstance(edit, Edit) and abs(edit.value) > LARGEST:
        raise EditError(
            f"neuron {edit.neuron}: the value {edit.value:g} is outside -{LARGEST:g} .. {LARGEST:g}"
        )
    if edit.patches is None or isinstance(edit.patches, str):
        return
    if edit.patches.shape != (grid.rows, grid.cols):
        rows, cols = edit.patches.shape
        raise EditError(
            f"neuron {edit.neuron}: the mask has {rows} x {cols} patches, the picture "
            f"{grid.rows} x {grid.cols}; draw it on this picture's grid"
        )
