"""The strongest images of each neuron, taken in one image at a time.

The result does not depend on the order of the images. Memory is bounded by neurons x places.
Knows numpy and the store's way to quantise maps; nothing of models, pictures or SQL.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explorer.store.maps import scale_of, steps_of
from index.scores import ImageCodes, Scores

PLACES = 16
_NOBODY = -1


class Taken(NamedTuple):
    """What one image changed. placed: places it took; released: ids of images that lost their last one."""

    placed: int
    released: list[str]


class Holders:
    """The images that hold places, by small numbers that are used again once an image holds none."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._counts: list[int] = []
        self._free: list[int] = []

    def __getitem__(self, number: int) -> str:
        return self._ids[number]

    def __len__(self) -> int:
        return len(self._ids) - len(self._free)

    def add(self, image_id: str, places: int) -> int:
        """Enter an image that holds `places` places; returns its number."""
        if self._free:
            number = self._free.pop()
            self._ids[number], self._counts[number] = image_id, places
            return number
        self._ids.append(image_id)
        self._counts.append(places)
        return len(self._ids) - 1

    def lose(self, numbers: np.ndarray) -> list[str]:
        """Take one place from each mention of an image; returns the ids of those that have none left."""
        gone = []
        for number, times in zip(*np.unique(numbers, return_counts=True), strict=True):
            self._counts[number] -= int(times)
            if not self._counts[number]:
                gone.append(self._ids[number])
                self._free.append(int(number))
        return gone


class TopImages:
    """For each neuron the images with the highest scores, highest first; of equals the lower id goes first.

    scores [F, P] float32, 0 where a place is empty; holder [F, P]: number of the image in `holders`;
    maps [F, P, T] uint8 and scales [F, P] float32: patch maps, at the column that `slot` [F, P] names.
    """

    def __init__(self, n_neurons: int, n_patches: int, places: int = PLACES) -> None:
        self.n_patches = n_patches
        self.places = places
        self.scores = np.zeros((n_neurons, places), dtype=np.float32)
        self.holder = np.full((n_neurons, places), _NOBODY, dtype=np.int32)
        self.slot = np.tile(np.arange(places, dtype=np.uint8), (n_neurons, 1))
        self.maps = np.zeros((n_neurons, places, n_patches), dtype=np.uint8)
        self.scales = np.zeros((n_neurons, places), dtype=np.float32)
        self.holders = Holders()
        self._least = np.zeros(n_neurons, dtype=np.float32)
        self._at = np.full(n_neurons, _NOBODY, dtype=np.int32)

    def take(self, image_id: str, codes: ImageCodes, scores: Scores) -> Taken:
        """Take in one image. An id must come only once."""
        least = self._least[scores.neurons]
        wins = scores.values > least
        for i in np.flatnonzero(scores.values == least):
            wins[i] = image_id < self.holders[self.holder[scores.neurons[i], -1]]
        neurons, values = scores.neurons[wins], scores.values[wins]
        if not len(neurons):
            return Taken(0, [])
        number = self.holders.add(image_id, len(neurons))
        losers, slots = self._insert(neurons, values, number)
        self._draw_maps(codes, neurons, slots)
        return Taken(len(neurons), self.holders.lose(losers[losers != _NOBODY]))

    def _insert(self, neurons: np.ndarray, values: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Put one image into the rows of `neurons`; returns who fell out and whose map slot it inherits."""
        rows = self.scores[neurons]
        place = (rows > values[:, None]).sum(axis=1)
        for i in np.flatnonzero((rows == values[:, None]).any(axis=1)):
            place[i] = self._place_among_equals(neurons[i], values[i], int(place[i]), self.holders[number])
        losers, slots = self.holder[neurons, -1], self.slot[neurons, -1]
        column = np.arange(self.places)
        moved = column - (column > place[:, None])
        each = np.arange(len(neurons))
        for table, entry in ((self.scores, values), (self.holder, number), (self.slot, slots)):
            shifted = np.take_along_axis(table[neurons], moved, axis=1)
            shifted[each, place] = entry
            table[neurons] = shifted
        self._least[neurons] = self.scores[neurons, -1]
        return losers, slots

    def _place_among_equals(self, neuron: int, value: float, place: int, image_id: str) -> int:
        """The first place from `place` on that is not held by an equal score with a lower id."""
        while self.scores[neuron, place] == value and self.holders[self.holder[neuron, place]] < image_id:
            place += 1
        return place

    def _draw_maps(self, codes: ImageCodes, neurons: np.ndarray, slots: np.ndarray) -> None:
        """Quantise the maps of a few neurons straight from the sparse activations."""
        self._at[neurons] = np.arange(len(neurons), dtype=np.int32)
        at = self._at[codes.neurons]
        self._at[neurons] = _NOBODY
        wanted = np.flatnonzero(at >= 0)
        at, values = at[wanted], codes.values[wanted]
        peaks = np.zeros(len(neurons), dtype=np.float32)
        np.maximum.at(peaks, at, values)
        scales = scale_of(peaks)
        self.maps[neurons, slots] = 0
        self.maps[neurons[at], slots[at], codes.tokens[wanted]] = steps_of(values, scales[at])
        self.scales[neurons, slots] = scales
