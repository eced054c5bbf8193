"""Edits: from what a person asks of some neurons to the new output of the SAE's block.

With activations z and edited activations z', the patches become `h + (z' - z) W_dec`, so that what
the SAE does not explain stays untouched and no edit means no change. `replace` gives `decode(z')`
instead, the form of the steering literature, which also injects the SAE's error.

Only the touched neurons are ever made dense. Knows vectors and neurons; nothing of models or stores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Edit, Grid
from explorer.sae import SAE, SparseCodes

LARGEST = 1e6
"""Largest size of an edit's value: beyond it nothing but noise would come out."""


def apply_edits(
    hidden: Tensor, codes: SparseCodes, sae: SAE, edits: Sequence[Edit], grid: Grid, replace: bool = False
) -> Tensor:
    """The edited patches [T, d] of the patches `hidden` [T, d], whose activations are `codes`.

    Edits of one neuron act one after another. "active" means the patches where the neuron fires in
    the untouched picture. Without `replace` and without any change the same tensor comes back.
    Raises EditError for a neuron that the SAE does not have, a value of absurd size, or a mask of another
    shape than the grid.
    """
    assert hidden.shape == (grid.rows * grid.cols, sae.width), f"{tuple(hidden.shape)} does not fit the grid"
    for edit in edits:
        _check(edit, sae.n_neurons, grid)
    neurons = sorted({int(edit.neuron) for edit in edits})
    before = _columns(codes, neurons, len(hidden))
    after = before.clone()
    for edit in edits:
        column = neurons.index(edit.neuron)
        after[:, column] = _changed(edit, after[:, column], before[:, column])
    change = after - before
    moved = change.any(dim=0)
    base = sae.decode_sparse(codes, len(hidden)).to(hidden) if replace else hidden
    if not moved.any():
        return base
    rows = sae.W_dec.detach()[torch.tensor(neurons)[moved.cpu()].to(sae.W_dec.device)]
    return base + change[:, moved].to(hidden) @ rows.to(hidden)


def column(codes: SparseCodes, neuron: int, n_tokens: int) -> Tensor:
    """The activations [n_tokens] of one neuron."""
    return _columns(codes, [neuron], n_tokens)[:, 0]


def _columns(codes: SparseCodes, neurons: list[int], n_tokens: int) -> Tensor:
    """The activations [n_tokens, len(neurons)] of the neurons, which are in ascending order."""
    dense = codes.values.new_zeros(n_tokens, len(neurons))
    for place, neuron in enumerate(neurons):
        here = codes.neurons == neuron
        dense[codes.tokens[here], place] = codes.values[here]
    return dense


def _changed(edit: Edit, now: Tensor, untouched: Tensor) -> Tensor:
    """One neuron's activations [T] after one more edit."""
    match edit.mode:
        case "set":
            new = torch.full_like(now, edit.value)
        case "add":
            new = now + edit.value
        case "scale":
            new = now * edit.value
    if edit.patches is None:
        return new
    if isinstance(edit.patches, str):
        where = untouched > 0
    else:
        where = torch.from_numpy(edit.patches.flatten()).to(now.device)
    return torch.where(where, new, now)


def _check(edit: Edit, n_neurons: int, grid: Grid) -> None:
    if edit.neuron >= n_neurons:
        raise EditError(f"there is no neuron {edit.neuron}: this SAE has {n_neurons}, counted from 0")
    if abs(edit.value) > LARGEST:
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
