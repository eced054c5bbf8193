"""The sparse activations of a chunk of images, and the same gathered by neuron and image.

Knows numpy only.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

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
    vectors without the SAE's b_dec, projected; patches: patch vectors [T, d] of the sampled images whose
    patches have ground truth, by place.
    """

    items: list[Item]
    skipped: list[SkippedRow]
    codes: Codes
    fvu: np.ndarray
    embeddings: np.ndarray
    sketches: np.ndarray
    patches: dict[int, np.ndarray]


class Groups(NamedTuple):
    """The activations of a chunk, and their pools: one group per (neuron, image), ascending.

    neuron, image [m] int64: whose the group is; total [m] float64: the sum of its activations on patches;
    score [m] float32: the image's score for the neuron, above 0. owner [n] int64, token [n] int32,
    value [n] float32: neuron, patch and activation of each entry, in no order; cell [n] int64:
    owner << shift | image.
    """

    neuron: np.ndarray
    image: np.ndarray
    total: np.ndarray
    score: np.ndarray
    owner: np.ndarray
    token: np.ndarray
    value: np.ndarray
    cell: np.ndarray
    shift: int


class Runs(NamedTuple):
    """Some groups with their entries: those of group i lie at starts[i] to ends[i] of token and value,
    by token."""

    image: np.ndarray
    score: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    token: np.ndarray
    value: np.ndarray


def gather(codes: Codes, n_neurons: int, how: Pooling, include_cls: bool = False) -> Groups:
    """Pool the activations of each neuron on each image to the image's score.

    how: the mean over all tokens that count (silent ones as 0), or the maximum. include_cls: whether the
    CLS token counts for the score; it is no patch. Groups whose score vanishes in float32 are left out.
    The pools are added up in one dense table of neurons x images, which takes fewer passes than any sort.
    """
    shift = max(codes.n_images - 1, 0).bit_length()
    owner = codes.neuron.astype(np.int64)
    cell = owner << shift
    cell |= codes.image
    size = n_neurons << shift
    token, value = codes.token, codes.value
    table = np.bincount(cell, weights=value, minlength=size)
    fired = np.zeros(size, dtype=bool)
    fired[cell] = True
    some = np.flatnonzero(fired)
    total = table[some]
    if how == "max":
        peaks = np.zeros(size, dtype=np.float32)
        np.maximum.at(peaks, cell, value)
        score = peaks[some]
    else:
        score = (total / (codes.n_patches + include_cls)).astype(np.float32)
    if include_cls:
        on = np.flatnonzero(token < codes.n_patches)
        owner, cell, token, value = owner[on], cell[on], token[on], value[on]
        total = np.bincount(cell, weights=value, minlength=size)[some]
    if not score.min(initial=np.inf) > 0:
        above = np.flatnonzero(score)
        some, total, score = some[above], total[above], score[above]
    image = some & ((1 << shift) - 1)
    return Groups(some >> shift, image, total, score, owner, token, value, cell, shift)


def runs_of(groups: Groups, which: np.ndarray, n_neurons: int) -> Runs:
    """The groups `which` [w] (ascending, no one twice) with their entries, found among all of the chunk."""
    cells = groups.neuron[which] << groups.shift | groups.image[which]
    hit = np.zeros(n_neurons, dtype=bool)
    hit[groups.neuron[which]] = True
    entries = np.flatnonzero(hit[groups.owner])
    at = np.searchsorted(cells, groups.cell[entries])
    mine = np.flatnonzero(cells[np.minimum(at, len(cells) - 1)] == groups.cell[entries])
    entries, at = entries[mine], at[mine]
    order = np.argsort(at << 32 | groups.token[entries].astype(np.int64))
    counts = np.bincount(at, minlength=len(which))
    ends = np.cumsum(counts)
    token, value = groups.token[entries[order]], groups.value[entries[order]]
    return Runs(groups.image[which], groups.score[which], ends - counts, ends, token, value)


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
