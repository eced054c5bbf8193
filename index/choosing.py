"""Chooses neurons that together stand for a concept: each adds patches that those before it miss.

The neurons that fire most on a concept often fire on the same patches (one drawing style, the
middle of the thing). To turn a concept down, a few neurons must cover all of it and little else.
Knows numpy only.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from typing import NamedTuple

import numpy as np

from index.scores import ImageCodes
from index.sources import PatchTruth

MOST_OBJECTS = 200
"""Objects kept per concept."""
REMAINS = 0.4
"""What a patch still counts for, for each chosen neuron that fires on it already."""


class Seen(NamedTuple):
    """One object of the sample. key: its place in the sample's order; tokens, neurons [n]: the
    activations above 0 on its patches; n_patches: how many patches it has."""

    key: bytes
    tokens: np.ndarray
    neurons: np.ndarray
    n_patches: int


class Chosen(NamedTuple):
    """A neuron of a concept and what it adds to those chosen before it (selectivity x new patches)."""

    neuron: int
    gain: float


class ObjectSample:
    """For each concept the activations on a fixed number of its objects.

    Those with the smallest hash of (image id, object): any order of the images, and any merge of
    parts, gives the same sample, in bounded memory.
    """

    def __init__(self, n_concepts: int, most: int = MOST_OBJECTS) -> None:
        self.most = most
        self.kept: list[list[Seen]] = [[] for _ in range(n_concepts)]

    def take(self, image_id: str, codes: ImageCodes, truth: PatchTruth) -> None:
        """Take in the objects of one image."""
        for number in np.unique(truth.objects[truth.objects >= 0]).tolist():
            patches = truth.objects == number
            kept = self.kept[int(truth.concepts[patches.argmax()])]
            key = hashlib.blake2b(f"{image_id}\n{number}".encode(), digest_size=8).digest()
            if len(kept) == self.most and key > kept[-1].key:
                continue
            here = patches[codes.tokens]
            insort(kept, Seen(key, codes.tokens[here], codes.neurons[here], int(patches.sum())), key=_key)
            del kept[self.most :]


def _key(seen: Seen) -> bytes:
    return seen.key


def complementary(objects: list[Seen], selectivity: np.ndarray, most: int) -> list[Chosen]:
    """Up to `most` neurons for the concept of these objects, chosen greedily.

    selectivity [F]: share of each neuron's activation that falls on the concept. A neuron's gain is its
    selectivity times the share of the objects' patches where it fires (all objects count alike), patches
    that chosen neurons cover already counting less. Ties go to the lower neuron.
    """
    if not objects:
        return []
    neurons = np.unique(np.concatenate([seen.neurons for seen in objects]))
    fires = np.zeros((sum(seen.n_patches for seen in objects), len(neurons)), dtype=np.float32)
    weight = np.empty(len(fires))
    start = 0
    for seen in objects:
        rows = np.unique(seen.tokens, return_inverse=True)[1]
        fires[start + rows, np.searchsorted(neurons, seen.neurons)] = 1
        weight[start : start + seen.n_patches] = 1 / seen.n_patches / len(objects)
        start += seen.n_patches
    worth, chosen = selectivity[neurons], []
    for _ in range(min(most, len(neurons))):
        gains = worth * (weight @ fires)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        chosen.append(Chosen(int(neurons[best]), float(gains[best])))
        weight = np.where(fires[:, best] > 0, weight * REMAINS, weight)
        worth = np.where(np.arange(len(worth)) == best, 0.0, worth)
    return chosen
