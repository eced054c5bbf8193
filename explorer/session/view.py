"""One picture as the session saw it: what each click on the page asks for is arithmetic on this.

A view belongs to one visitor, holds CPU tensors only, and runs no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Activation, Grid
from explorer.sae import SparseCodes

Pool = Literal["mean", "max"]


@dataclass(frozen=True, eq=False)
class View:
    """A picture, its patches, and the neurons that fire there.

    image: upright RGB in natural pixels; grid: where its patches lie; fvu: fraction of the variance of
    its patches that the SAE leaves unexplained; n_neurons: how many the SAE has; hidden: output of the
    SAE's block, [tokens, d] float32, with the tokens that are no patches; codes: activations of the
    patches, whose tokens count from 0 row by row.
    """

    image: Image.Image
    grid: Grid
    fvu: float
    n_neurons: int
    hidden: Tensor = field(repr=False)
    codes: SparseCodes = field(repr=False)

    def top(self, k: int = 20, pool: Pool = "mean") -> list[Activation]:
        """The k neurons that are strongest over the whole picture, by mean or maximum over the patches."""
        if pool not in ("mean", "max"):
            raise ValueError(f"unknown pool {pool!r}; use 'mean' or 'max'")
        neurons, place = torch.unique(self.codes.neurons, return_inverse=True)
        pooled = torch.zeros(len(neurons), dtype=torch.float64)
        values = self.codes.values.double()
        if pool == "mean":
            pooled.index_add_(0, place, values / (self.grid.rows * self.grid.cols))
        else:
            pooled.scatter_reduce_(0, place, values, "amax")
        return _strongest(neurons, pooled, k)

    def top_at(self, row: int, col: int, k: int = 20) -> list[Activation]:
        """The k strongest neurons at one patch. Raises IndexError outside the grid."""
        self.grid.box_of(row, col)
        here = self.codes.tokens == row * self.grid.cols + col
        return _strongest(self.codes.neurons[here], self.codes.values[here], k)

    def map(self, neuron: int) -> np.ndarray:
        """Where a neuron fires: (rows, cols) float32. Raises EditError for a neuron that does not exist."""
        if not 0 <= neuron < self.n_neurons:
            raise EditError(f"there is no neuron {neuron}: this SAE has {self.n_neurons}, counted from 0")
        here = self.codes.neurons == neuron
        patches = np.zeros(self.grid.rows * self.grid.cols, dtype=np.float32)
        patches[self.codes.tokens[here].numpy()] = self.codes.values[here].numpy()
        return patches.reshape(self.grid.rows, self.grid.cols)


def _strongest(neurons: Tensor, values: Tensor, k: int) -> list[Activation]:
    """The k largest values, largest first; of equal ones the lower neuron first. `neurons` ascends."""
    order = torch.sort(values, descending=True, stable=True).indices[: max(k, 0)]
    return [Activation(int(neurons[i]), float(values[i])) for i in order]
