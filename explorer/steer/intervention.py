"""Interventions: from what a person asks of the neurons to the new output of the SAE's block.

With activations z and changed activations z', the patches become `h + (z' - z) W_dec`, so that what
the SAE does not explain stays untouched and no change means the same tensor. An SAE that scales each vector
adds that in each patch's own scale. `replace` gives `decode(z')` instead, the form of the steering
literature, which also injects the SAE's error.

Contrast comes first, then the edits in their order. Only the columns of edited neurons are ever made
dense, and z' - z is decoded as sparse as it is. Knows vectors and neurons; nothing of models or stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Edit, Grid
from explorer.sae import SAE, SparseCodes
from explorer.steer.contrast import Contrast, contrasted, kept
from explorer.steer.edits import check, column, edited
from explorer.steer.ranges import RangeEdit


@dataclass(frozen=True)
class Intervention:
    """All that is asked of a picture's neurons.

    edits: one after another; contrast: what comes before them; replace: feed the SAE's decoding instead
    of adding the change. Raises EditError for something else in their place.
    """

    edits: tuple[Edit | RangeEdit, ...] = ()
    contrast: Contrast | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", tuple(self.edits))
        for edit in self.edits:
            if not isinstance(edit, Edit | RangeEdit):
                raise EditError(f"{edit!r} is no edit; use Edit(...) or RangeEdit(...)")
        if self.contrast is not None and not isinstance(self.contrast, Contrast):
            raise EditError(f"{self.contrast!r} is no contrast; use Contrast(...) or None")


class Steered(NamedTuple):
    """Patches after an intervention.

    patches: [T, d]; the very same tensor as before when nothing changed; change: [T, d], (z' - z) W_dec in
    the patches' own scale, or None when nothing changed.
    """

    patches: Tensor
    change: Tensor | None


@torch.no_grad()
def intervene(
    patches: Tensor,
    codes: SparseCodes,
    sae: SAE,
    grid: Grid,
    intervention: Intervention,
    noisy: SparseCodes | None = None,
    always_on: Sequence[int] = (),
) -> Steered:
    """The patches [T, d], whose activations are `codes`, after an intervention.

    noisy: the activations of the same patches under the contrast's noise; always_on: the neurons that it
    leaves alone. Edits of one neuron act one after another on what the contrast made of it; "active"
    means the patches where its activation is not 0 in the untouched picture. Raises EditError for a neuron
    that the SAE does not have, a value of absurd size, a mask of another shape than the grid, and a contrast
    without `noisy`.
    """
    assert patches.shape == (grid.rows * grid.cols, sae.width), f"{tuple(patches.shape)} does not fit"
    for edit in intervention.edits:
        check(edit, sae.n_neurons, grid)
    moved = None
    if intervention.contrast is not None:
        if noisy is None:
            raise EditError("a contrast needs the noisy picture's activations; look at it with noise first")
        assert not len(noisy.tokens) or noisy.tokens[-1] < len(patches), "noise on another picture"
        moved = contrasted(codes, noisy, intervention.contrast, sae.n_neurons, always_on)
    difference = _difference(codes, moved, intervention.edits, len(patches))
    base = sae.decode_sparse(codes, len(patches), patches).to(patches) if intervention.replace else patches
    if difference is None or not len(difference.values):
        return Steered(base, None)
    change = sae.decode_change(difference, len(patches), sae.scale(patches)).to(patches)
    return Steered(base + change, change)


def _difference(
    codes: SparseCodes, moved: SparseCodes | None, edits: Sequence[Edit | RangeEdit], n_tokens: int
) -> SparseCodes | None:
    """z' - z where it is not 0; None for nowhere. moved: what the contrast adds to z."""
    if not edits:
        return moved
    neurons = sorted({int(edit.neuron) for edit in edits})
    columns = []
    for neuron in neurons:
        untouched = column(codes, neuron, n_tokens)
        now = untouched if moved is None else untouched + column(moved, neuron, n_tokens)
        for edit in edits:
            if edit.neuron == neuron:
                now = edited(edit, now, untouched)
        columns.append(now - untouched)
    dense = torch.stack(columns, dim=1)
    names = torch.tensor(neurons, device=dense.device)
    tokens, places = dense.nonzero(as_tuple=True)
    difference = SparseCodes(tokens, names[places], dense[tokens, places])
    if moved is None:
        return difference
    others = kept(moved, ~torch.isin(moved.neurons, names))
    joined = SparseCodes(*(torch.cat(pair) for pair in zip(others, difference, strict=True)))
    return kept(joined, joined.tokens.argsort(stable=True))
