"""Where neurons fire, against ground truth per patch: sums over the patches of each concept.

Taken in chunk by chunk, sparse, exact. A patch whose concept is unknown (-2) counts nowhere, nor does an
image without ground truth. Knows numpy and patch truth; what the sums mean is for `index.meaning.concepts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from index.sources.base import PatchTruth
from index.stage.codes import Codes, run_starts
from index.stage.sums import ExactSum

UNKNOWN = -2
_COUNTS = ("on_fires", "reached", "on_patches", "objects", "patches")
_SUMS = ("on_total", "total")


class ConceptEvidence:
    """Sums over patches; 28 bytes per concept and neuron.

    on_total, on_fires, reached [C, F] and total [F]: activation on the concept's patches, patches and objects
    of the concept where the neuron fires, activation on all known patches; on_patches, objects [C], patches
    []: how many there were. An object is what one image shows of a concept under one number.
    """

    def __init__(self, n_concepts: int, n_neurons: int) -> None:
        self.on_total = ExactSum((n_concepts, n_neurons))
        self.on_fires = np.zeros((n_concepts, n_neurons), dtype=np.int64)
        self.reached = np.zeros((n_concepts, n_neurons), dtype=np.uint32)
        self.total = ExactSum(n_neurons)
        self.on_patches = np.zeros(n_concepts, dtype=np.int64)
        self.objects = np.zeros(n_concepts, dtype=np.int64)
        self.patches = np.zeros((), dtype=np.int64)

    def take(self, codes: Codes, truths: Sequence[PatchTruth | None]) -> None:
        """Take in a chunk: its activations and what the patches of each of its images show (None: not
        known)."""
        if all(truth is None for truth in truths):
            return
        concepts, objects = _maps(truths, codes.n_patches)
        self.patches += np.count_nonzero(concepts > UNKNOWN)
        self.on_patches += np.bincount(concepts[concepts >= 0], minlength=len(self.on_patches))
        place = codes.image.astype(np.int64) * (codes.n_patches + 1) + codes.token
        concept = concepts.ravel()[place]
        self._add_total(codes, concept > UNKNOWN)
        on = np.flatnonzero(concept >= 0)
        neuron = codes.neuron[on].astype(np.int64)
        self._add_patches(concept[on], neuron, codes.value[on])
        self._add_objects(concepts, objects, objects.ravel()[place[on]], neuron)

    def _add_total(self, codes: Codes, known: np.ndarray) -> None:
        """All activation on known patches. The entries come in a fixed order, so the sums are the same."""
        n_neurons = len(self.total.whole)
        values = np.where(known, codes.value, np.float32(0))
        sums = np.bincount(codes.neuron, weights=values, minlength=n_neurons)
        fired = np.flatnonzero(sums)
        self.total.add(fired, sums[fired])

    def _add_patches(self, concept: np.ndarray, neuron: np.ndarray, value: np.ndarray) -> None:
        """Activation and count of each (concept, neuron) in one sort of 64-bit numbers: cell, then value."""
        n_neurons = self.on_fires.shape[1]
        key = (concept * n_neurons + neuron).astype(np.uint64) << np.uint64(32)
        key |= value.view(np.uint32)
        key.sort()
        cell = (key >> np.uint64(32)).astype(np.int64)
        starts = run_starts(cell)
        if not len(starts):
            return
        values = key.astype(np.uint32).view(np.float32).astype(np.float64)  # the lower half of the key
        cells = np.unravel_index(cell[starts], self.on_fires.shape)
        self.on_total.add(cells, np.add.reduceat(values, starts))
        self.on_fires[cells] += np.diff(np.append(starts, len(cell)))

    def _add_objects(
        self, concepts: np.ndarray, objects: np.ndarray, of_entry: np.ndarray, neuron: np.ndarray
    ) -> None:
        """The objects of a chunk, and which neurons fire on them.

        concepts, objects [b, T + 1]: of each patch, objects numbered through the chunk; of_entry [n]: the
        object under each activation on a concept, -1 for none.
        """
        n_neurons = self.on_fires.shape[1]
        concept_of = np.zeros(int(objects.max(initial=-1)) + 1, dtype=np.int64)
        concept_of[objects[objects >= 0]] = concepts[objects >= 0]
        self.objects += np.bincount(concept_of, minlength=len(self.objects))
        fired = np.unique((of_entry * n_neurons + neuron)[of_entry >= 0])
        number, neuron = np.divmod(fired, n_neurons)
        np.add.at(self.reached, (concept_of[number], neuron), np.uint32(1))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        found = {f"{name}.{count}": getattr(self, count) for count in _COUNTS}
        for total in _SUMS:
            found |= getattr(self, total).arrays(f"{name}.{total}")
        return found

    def absorb(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Add other sums, given as their arrays; to empty sums this restores them."""
        for count in _COUNTS:
            mine = getattr(self, count)
            mine += arrays[f"{name}.{count}"]
        for total in _SUMS:
            getattr(self, total).absorb(f"{name}.{total}", arrays)


def _maps(truths: Sequence[PatchTruth | None], n_patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Concepts and objects of all patches [b, T + 1] int64; the last column stands for the CLS token.

    An object that bears several concepts is one object of each, so objects are numbered by both.
    """
    concepts = np.full((len(truths), n_patches + 1), UNKNOWN, dtype=np.int64)
    objects = np.full((len(truths), n_patches + 1), -1, dtype=np.int64)
    for i, truth in enumerate(truths):
        if truth is not None:
            concepts[i, :-1], objects[i, :-1] = truth.concepts, truth.objects
    named = (objects >= 0) & (concepts >= 0)
    image = np.broadcast_to(np.arange(len(truths))[:, None], objects.shape)[named]
    most = int(objects.max(initial=0)) + 1, int(concepts.max(initial=0)) + 1
    key = (image * most[0] + objects[named]) * most[1] + concepts[named]
    objects = np.full_like(objects, -1)
    objects[named] = np.unique(key, return_inverse=True)[1]
    return concepts, objects
