"""Which image stands for each interval of a neuron's scores, since the strongest alone flatter a neuron.

The scores of a neuron fall into intervals of half an octave. For each of the ten below its peak one image
is kept: the one whose number has the lowest hash, which is a fair draw among those that came. Knows numpy
only.
"""

from __future__ import annotations

import numpy as np

from explorer.store.histogram import half_octaves
from index.stage.codes import Groups
from index.stage.places import Bids, Places

INTERVALS = 10
_TAGS = np.uint64(511)
_SLOTS = np.arange(512) % INTERVALS


def mix(numbers: np.ndarray) -> np.ndarray:
    """A hash of image numbers that no two share, uint32 (the finaliser of MurmurHash3)."""
    h = numbers.astype(np.uint32) + np.uint32(0x9E3779B9)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def bids(table: Places, groups: Groups, numbers: np.ndarray, detailed: np.ndarray) -> Bids:
    """The groups of a chunk that deserve a place of their interval. numbers [b]: of the chunk's images.

    detailed [b] bool: which of them take part. A higher half-octave that shares the row takes it over: the
    lower one is then out of the window anyway.
    """
    part = np.flatnonzero(detailed[groups.image])
    image = groups.image[part]
    tag = half_octaves(groups.score[part]).astype(np.uint64)
    key = (_TAGS - tag) << np.uint64(32)
    key |= mix(numbers).astype(np.uint64)[image]
    row = groups.neuron[part] * INTERVALS
    row += _SLOTS[tag.view(np.int64)]
    won = table.wanted(row, key, numbers[image])
    return won._replace(group=part[won.group])


def below_peak(table: Places, peaks: np.ndarray) -> np.ndarray:
    """For each place of the table [F * 10, 1] how many half-octaves it lies below the neuron's peak [F];
    -1 where nobody is, or out of the window: [F, 10] int64."""
    held = table.taken.reshape(-1, INTERVALS)
    tags = (_TAGS - (table.key.reshape(-1, INTERVALS) >> np.uint64(32))).astype(np.int64)
    top = np.where(peaks > 0, half_octaves(peaks).astype(np.int64), -1)
    below = top[:, None] - tags
    return np.where(held & (below >= 0) & (below < INTERVALS), below, -1)


def empty(n_neurons: int, n_patches: int) -> Places:
    """The table of a build that has seen nothing."""
    return Places(n_neurons * INTERVALS, 1, n_patches)
