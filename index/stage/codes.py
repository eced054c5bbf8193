"""The sparse activations of a chunk of images, and the same gathered by neuron and image.

Gathering is one sort of 64-bit numbers; everything after it is arithmetic on runs. Knows numpy only.
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
    """Activations in runs: one group per (neuron, image), ascending. n entries on patches, m groups.

    owner [n] int64, token [n] int32, value [n] float32: neuron, patch and activation of the entries;
    starts, ends [m] int64: where each group's entries lie; neuron, image [m] int64: whose it is; total
    [m] float64: the sum of its activations on patches; score [m] float32: the image's score for the
    neuron, above 0.
    """

    owner: np.ndarray
    token: np.ndarray
    value: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    neuron: np.ndarray
    image: np.ndarray
    total: np.ndarray
    score: np.ndarray


def gather(codes: Codes, how: Pooling, include_cls: bool = False) -> Groups:
    """Sort the activations by neuron, image and token, and pool each group to the image's score.

    how: the mean over all tokens that count (silent ones as 0), or the maximum. include_cls: whether the
    CLS token counts for the score; it is no patch, so a group may be left without entries. Groups whose
    score vanishes in float32 are left out.
    """
    key = codes.neuron.astype(np.uint64)
    key <<= np.uint64(32)
    key |= np.arange(len(key), dtype=np.uint64)
    key.sort()
    order = (key & np.uint64(0xFFFFFFFF)).view(np.int64)
    key >>= np.uint64(32)
    owner = key.view(np.int64)
    image, token, value = codes.image[order], codes.token[order], codes.value[order]
    new = run_marks(owner, image)
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(owner))
    group = np.cumsum(new) - 1
    total = np.bincount(group, weights=value)
    if how == "mean":
        score = (total / (codes.n_patches + include_cls)).astype(np.float32)
    else:
        score = np.maximum.reduceat(value, starts) if len(starts) else value
    neuron, image = owner[starts], image[starts].astype(np.int64)
    if include_cls:
        on = token < codes.n_patches
        owner, token, value, group = owner[on], token[on], value[on], group[on]
        total = np.bincount(group, weights=value, minlength=len(neuron))
        ends = np.cumsum(np.bincount(group, minlength=len(neuron)))
        starts = np.append(0, ends)[:-1]
    groups = Groups(owner, token, value, starts, ends, neuron, image, total, score)
    return groups if score.min(initial=np.inf) > 0 else select(groups, np.flatnonzero(score))


def select(groups: Groups, which: np.ndarray) -> Groups:
    """Some of the groups, by their places; the entries stay as they are."""
    return Groups(*groups[:3], *(column[which] for column in groups[3:]))


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
