"""One picture as the session saw it: what each click on the page asks for is arithmetic on this.

A view belongs to one visitor, holds CPU tensors only (but for its memory), and runs no model.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Activation, Grid
from explorer.sae import SparseCodes
from explorer.session.scales import Everywhere, everywhere
from explorer.vlm import Prepared
from explorer.vlm.memory import Memory

Pool = Literal["mean", "max", "weighted"]

KEPT = 16
"""How many noisy versions of a picture a view keeps, at most."""

KEPT_BYTES = 1 << 29
"""How large they may be together; the last one stays whatever its size."""


class Draw(NamedTuple):
    """Which noise: the step of the diffusion schedule, and the seed of the draw."""

    step: int
    seed: int = 0


class Noisy(NamedTuple):
    """A picture (under noise) after the SAE's block.

    hidden [tokens, d] float32; codes: of its patches; further: of those at each further scale.
    """

    hidden: Tensor
    codes: SparseCodes
    further: tuple[SparseCodes, ...] = ()

    @property
    def nbytes(self) -> int:
        """Of all its tensors."""
        codes = [part.nbytes for codes in (self.codes, *self.further) for part in codes]
        return self.hidden.nbytes + sum(codes)


class Noise:
    """The noisy versions of one picture that were looked at last. Any thread may use it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Draw, Noisy] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, draw: Draw) -> Noisy | None:
        """What was kept of this draw."""
        with self._lock:
            if draw in self._kept:
                self._kept.move_to_end(draw)
            return self._kept.get(draw)

    def keep(self, draws: Iterable[Draw], noisy: Iterable[Noisy]) -> None:
        """Keep these; the ones used least recently make room."""
        with self._lock:
            self._kept.update(zip(draws, noisy, strict=True))
            size = sum(one.nbytes for one in self._kept.values())
            while len(self._kept) > KEPT or (len(self._kept) > 1 and size > KEPT_BYTES):
                size -= self._kept.popitem(last=False)[1].nbytes


@dataclass(frozen=True, eq=False)
class View:
    """A picture, its patches, and the neurons that fire there.

    image: upright RGB in natural pixels; prepared: the picture as the model takes it in; fvu: fraction of
    the variance of its patches that the SAE leaves unexplained; n_neurons: how many the SAE has; hidden:
    output of the SAE's block, [tokens, d] float32, with the tokens that are no patches; codes: activations
    of the patches, whose tokens count from 0 row by row (a signed SAE also has some below 0); memory: what
    generations leave for the next ones; further: activations at the picture's further scales; noise: its
    noisy versions, as far as looked at.
    """

    image: Image.Image
    prepared: Prepared = field(repr=False)
    fvu: float
    n_neurons: int
    hidden: Tensor = field(repr=False)
    codes: SparseCodes = field(repr=False)
    memory: Memory = field(repr=False)
    further: tuple[SparseCodes, ...] = field(default=(), repr=False)
    noise: Noise = field(default_factory=Noise, repr=False)

    @property
    def grid(self) -> Grid:
        """Where its patches lie."""
        return self.prepared.grid

    @cached_property
    def everywhere(self) -> Everywhere:
        """Its patches at all scales, for what counts whatever reaches the text."""
        return everywhere(self.prepared, self.hidden, self.codes, self.further)

    @property
    def firing(self) -> SparseCodes:
        """The activations above 0: where a neuron fires, as stores count it."""
        above = self.codes.values > 0
        return self.codes if bool(above.all()) else SparseCodes(*(part[above] for part in self.codes))

    @property
    def patches(self) -> Tensor:
        """The output of the SAE's block at the patches, [rows * cols, d], row by row."""
        return self.prepared.patches(self.hidden)

    def top(self, k: int = 20, pool: Pool = "mean", weights: np.ndarray | None = None) -> list[Activation]:
        """The k neurons that are strongest over the whole picture, by mean or maximum over the patches.

        "weighted" takes the mean with `weights` (rows, cols), such as a word's attention; their sum counts
        as 1. Raises EditError for weights of another shape, below 0, or all 0.
        """
        if pool not in ("mean", "max", "weighted"):
            raise ValueError(f"unknown pool {pool!r}; use 'mean', 'max' or 'weighted'")
        codes = self.firing
        neurons, place = torch.unique(codes.neurons, return_inverse=True)
        pooled = torch.zeros(len(neurons), dtype=torch.float64)
        values = codes.values.double()
        if pool == "weighted":
            pooled.index_add_(0, place, values * self._weights(weights)[codes.tokens])
        elif pool == "mean":
            pooled.index_add_(0, place, values / (self.grid.rows * self.grid.cols))
        else:
            pooled.scatter_reduce_(0, place, values, "amax")
        return _strongest(neurons, pooled, k)

    def _weights(self, weights: np.ndarray | None) -> Tensor:
        """Checked weights [T] float64 that sum to 1."""
        shape = (self.grid.rows, self.grid.cols)
        given = np.asarray([] if weights is None else weights, dtype=np.float64)
        if given.shape != shape or not np.isfinite(given).all() or given.min() < 0 or not given.any():
            raise EditError(
                f"weights must be finite numbers >= 0 of shape {shape}, not all 0; "
                f"these have the shape {given.shape}"
            )
        return torch.from_numpy(given.ravel() / given.sum())

    def top_at(self, row: int, col: int, k: int = 20) -> list[Activation]:
        """The k strongest neurons at one patch. Raises IndexError outside the grid."""
        self.grid.box_of(row, col)
        codes = self.firing
        here = codes.tokens == row * self.grid.cols + col
        return _strongest(codes.neurons[here], codes.values[here], k)

    def top_among(
        self, patches: np.ndarray, k: int = 20, pool: Literal["mean", "max"] = "mean"
    ) -> list[Activation]:
        """The k neurons that are strongest over some patches, by mean or maximum over them.

        patches: (rows, cols) bool. Raises EditError when it does not fit the grid or marks none.
        """
        if pool not in ("mean", "max"):
            raise ValueError(f"unknown pool {pool!r}; use 'mean' or 'max'")
        chosen = np.asarray(patches)
        if chosen.dtype != np.bool_ or chosen.shape != (self.grid.rows, self.grid.cols) or not chosen.any():
            raise EditError(
                f"mark some patches in a ({self.grid.rows}, {self.grid.cols}) boolean mask, "
                f"not {int(chosen.sum())} in one of {chosen.dtype} and shape {chosen.shape}"
            )
        codes = self.firing
        here = torch.from_numpy(chosen.ravel())[codes.tokens]
        neurons, place = torch.unique(codes.neurons[here], return_inverse=True)
        pooled, values = torch.zeros(len(neurons), dtype=torch.float64), codes.values[here].double()
        if pool == "mean":
            pooled.index_add_(0, place, values / int(chosen.sum()))
        else:
            pooled.scatter_reduce_(0, place, values, "amax")
        return _strongest(neurons, pooled, k)

    def map(self, neuron: int) -> np.ndarray:
        """A neuron's activations, 0 where it is silent: (rows, cols) float32.

        Raises EditError for a neuron that does not exist.
        """
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
