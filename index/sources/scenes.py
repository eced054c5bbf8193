"""Drawn scenes as a source, with ground truth for each patch. Knows the drawn world."""

from __future__ import annotations

from functools import partial

import numpy as np

from explorer.errors import SourceError
from explorer.records import Grid
from explorer.world import CONCEPTS, FAMILIES, Scene, draw
from index.sources.base import Label, PatchTruth, Picture, list_hash
from index.sources.truth import decided, sampled

LEAST_VISIBLE = 0.05
"""A scene shows a concept when at least this share of one such object is visible."""

_PLACE = {concept: place for place, concept in enumerate(CONCEPTS)}


class SceneSource:
    """Drawn scenes of consecutive seeds."""

    concepts = tuple(CONCEPTS)
    vocabulary = tuple(Label("concept", concept) for concept in CONCEPTS)

    def __init__(self, count: int, seed: int = 0, family: str = "ordinary") -> None:
        if count < 1:
            raise SourceError(f"cannot index {count} scenes; ask for at least 1")
        if seed < 0:
            raise SourceError(f"the first seed {seed} is below 0")
        if family not in FAMILIES:
            raise SourceError(f"unknown family of scenes {family!r}; use {' or '.join(FAMILIES)}")
        self._family, self._seeds = family, range(seed, seed + count)
        self._hash = ""
        self.description = f"{family} scenes, seeds {self._seeds[0]} to {self._seeds[-1]}"

    def __len__(self) -> int:
        return len(self._seeds)

    def image_id(self, number: int) -> str:
        """scene:<family>:<seed>."""
        return f"scene:{self._family}:{self._seeds[number]}"

    def origin(self, number: int) -> str:
        """The same as the id."""
        return self.image_id(number)

    def list_hash(self) -> str:
        """The hash of all ids, computed once."""
        self._hash = self._hash or list_hash(map(self.image_id, range(len(self))))
        return self._hash

    def read(self, number: int) -> Picture:
        """Draw one scene."""
        scene, image_id = draw(self._seeds[number], family=self._family), self.image_id(number)
        shown = {_PLACE[thing.concept] for thing in scene.objects if thing.visible >= LEAST_VISIBLE}
        truth = partial(scene_truth, scene)
        return Picture(number, image_id, image_id, scene.image, tuple(sorted(shown)), truth)


def scene_truth(scene: Scene, grid: Grid) -> PatchTruth:
    """What each patch of any grid over the scene shows."""
    kinds = np.array([_PLACE[thing.concept] for thing in scene.objects], dtype=np.int64)
    return decided(sampled(scene.owner, grid), grid.rows, grid.cols, kinds)
