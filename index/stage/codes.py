"""The sparse activations of a chunk of images, and the same gathered by neuron and image.

Knows arrays only.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch

from index.loading import Item, SkippedRow

Pooling = Literal["mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("mean", "max")


class Codes(NamedTuple):
    """The activations above 0 of the b readable images of a chunk, by (image, token).

    image [n] int32: place within the chunk; token [n] int32: patch 0 .. n_patches - 1 row by row, n_patches
    for the CLS token where that counts; neuron [n] int32; value [n] float32.
    """

    image: np.ndarray
    token: np.ndarray
    neuron: np.ndarray
    value: np.ndarray
    n_images: int
    n_patches: int


class EncodedChunk(NamedTuple):
    """A chunk after the tower and the SAE.

    items: the b images; skipped: the others; fvu [b] float32: share of each image's variance that the SAE
    leaves unexplained; embeddings [b, d] float32: mean patch vectors; sketches [b, T, s] float32: patch
    vectors in the SAE's scale without its b_dec, projected; patches: patch vectors [T, d] of the sampled
    images whose patches have ground truth, by place.
    """

    items: list[Item]
    skipped: list[SkippedRow]
    codes: Codes
    fvu: np.ndarray
    embeddings: np.ndarray
    sketches: np.ndarray
    patches: dict[int, np.ndarray]


class Pools(NamedTuple):
    """The activations of a chunk, and what they add up to for each neuron and image.

    table [F << shift] float64: at cell = neuron << shift | image the sum, or the largest, of the neuron's
    activations there; the image's score is that divided by `divisor`. totals [F << shift] float64: their sums
    over patches. owner, cell [n] int64, token [n] int32, value [n] float32: neuron, cell, patch and
    activation of each activation on a patch, by image: those of image i lie at edges[i] to edges[i + 1].
    """

    table: np.ndarray
    totals: np.ndarray
    divisor: int
    shift: int
    owner: np.ndarray
    cell: np.ndarray
    token: np.ndarray
    value: np.ndarray
    edges: np.ndarray

    @property
    def n_neurons(self) -> int:
        """F."""
        return len(self.table) >> self.shift


class Groups(NamedTuple):
    """Pairs of a neuron and an image whose score is above 0, ascending: cell, neuron, image [m] int64, pooled
    [m] float64 (of the table), score [m] float32."""

    cell: np.ndarray
    neuron: np.ndarray
    image: np.ndarray
    pooled: np.ndarray
    score: np.ndarray


class Runs(NamedTuple):
    """Groups with their activations: those of group i lie at starts[i] to ends[i] of token and value, by
    token. image, score: of the groups."""

    image: np.ndarray
    score: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    token: np.ndarray
    value: np.ndarray


def pool(codes: Codes, n_neurons: int, how: Pooling, include_cls: bool = False) -> Pools:
    """Pool the activations of each neuron on each image.

    how: the mean over all tokens that count (silent ones as 0), or the maximum. include_cls: whether the
    CLS token counts; it is no patch. One dense table of neurons x images takes fewer passes than any sort.
    """
    shift = max(codes.n_images - 1, 0).bit_length()
    owner = codes.neuron.astype(np.int64)
    cell = owner << shift
    cell |= codes.image
    size = n_neurons << shift
    image, token, value = codes.image, codes.token, codes.value
    totals = table = _added(cell, value, size)
    if how == "max":
        table = np.zeros(size)
        np.maximum.at(table, cell, value.astype(np.float64))
    if include_cls:
        on = np.flatnonzero(token < codes.n_patches)
        owner, cell, image, token, value = owner[on], cell[on], image[on], token[on], value[on]
        totals = _added(cell, value, size)
    divisor = codes.n_patches + include_cls if how == "mean" else 1
    edges = np.searchsorted(image, np.arange(codes.n_images + 1, dtype=image.dtype))
    return Pools(table, totals, divisor, shift, owner, cell, token, value, edges)


def _added(cell: np.ndarray, value: np.ndarray, size: int) -> np.ndarray:
    """The sum of the values of each cell, in their order, [size] float64."""
    return np.bincount(cell, weights=value, minlength=size).astype(np.float64, copy=False)


def groups_at(pools: Pools, cells: np.ndarray) -> Groups:
    """The groups of these cells (ascending) whose score does not vanish in float32."""
    pooled = pools.table[cells]
    score = (pooled / pools.divisor).astype(np.float32)
    if not score.min(initial=np.inf) > 0:
        above = np.flatnonzero(score)
        cells, pooled, score = cells[above], pooled[above], score[above]
    return Groups(cells, cells >> pools.shift, cells & ((1 << pools.shift) - 1), pooled, score)


def select(groups: Groups, which: np.ndarray) -> Groups:
    """Some of the groups, by their places (ascending)."""
    return Groups(*(column[which] for column in groups))


def all_groups(pools: Pools) -> Groups:
    """Every neuron that fires on every image."""
    return groups_at(pools, np.flatnonzero(pools.table > 0))


def beating(pools: Pools, least: np.ndarray) -> Groups:
    """The groups whose score may reach the least one wanted of their neuron, [F] float32: few that do not."""
    bar = np.maximum(least.astype(np.float64) * (pools.divisor * (1 - 2.0**-22)), np.finfo(np.float64).tiny)
    table = torch.from_numpy(pools.table).view(len(bar), -1)
    return groups_at(pools, np.flatnonzero((table >= torch.from_numpy(bar)[:, None]).numpy()))


def runs_of(pools: Pools, groups: Groups) -> Runs:
    """Groups with their activations, found among all of the chunk."""
    if not len(groups.cell):
        nothing = np.zeros(0, dtype=np.int64)
        return Runs(groups.image, groups.score, nothing, nothing, pools.token[:0], pools.value[:0])
    hit = np.zeros(pools.n_neurons, dtype=bool)
    hit[groups.neuron] = True
    entries = np.flatnonzero(hit[pools.owner])
    at = np.searchsorted(groups.cell, pools.cell[entries])
    mine = np.flatnonzero(groups.cell[np.minimum(at, len(groups.cell) - 1)] == pools.cell[entries])
    entries, at = entries[mine], at[mine]
    order = np.argsort(at << 32 | pools.token[entries].astype(np.int64))
    counts = np.bincount(at, minlength=len(groups.cell))
    ends = np.cumsum(counts)
    entries = entries[order]
    return Runs(groups.image, groups.score, ends - counts, ends, pools.token[entries], pools.value[entries])


def run_marks(*columns: np.ndarray) -> np.ndarray:
    """Where runs of equal rows begin, in columns of one length n: mask [n]."""
    new = np.ones(len(columns[0]), dtype=bool)
    if len(new) > 1:
        np.not_equal(columns[0][1:], columns[0][:-1], out=new[1:])
        for column in columns[1:]:
            new[1:] |= column[1:] != column[:-1]
    return new


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Where runs of equal rows begin, in columns of one length: int64."""
    return np.flatnonzero(run_marks(*columns))


def ranks_in_runs(starts: np.ndarray, total: int) -> np.ndarray:
    """0, 1, 2 ... within each of the runs that begin at `starts`, [total] int64."""
    return np.arange(total) - np.repeat(starts, np.diff(np.append(starts, total)))


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of all runs one after the other: starts[0], starts[0] + 1, ... int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
