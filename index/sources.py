"""Where the images of an index come from: a folder of pictures, or drawn scenes.

A source has a fixed order and stable ids. It knows files and scenes; nothing of models or neurons.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.images import load_image
from explorer.store.writer import SkippedRow
from explorer.world import CONCEPTS, Scene, draw

SUFFIXES = frozenset((
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".ico",
))  # fmt: skip
LEAST_VISIBLE = 0.05
"""A scene shows a concept when at least this share of one such object is visible."""


class PatchTruth(NamedTuple):
    """What the patches of a grid show, row by row: arrays [rows * cols] of int, -1 for nothing.

    concepts: index into the source's concepts; objects: number of the object within the picture.
    """

    concepts: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of a source. labels: what the source says it shows; scene: its ground truth, if drawn."""

    image_id: str
    origin: str
    image: Image.Image
    labels: tuple[str, ...] = ()
    scene: Scene | None = None

    def truth(self, rows: int, cols: int) -> PatchTruth | None:
        """What each patch shows, or None when the source does not know."""
        return None if self.scene is None else scene_truth(self.scene, rows, cols)


class Source(Protocol):
    """Images in a fixed order. Iterating yields a row for `skipped` where one cannot be read."""

    @property
    def description(self) -> str:
        """Where the images come from, in words for the manifest."""

    @property
    def concepts(self) -> Sequence[str]:
        """The concepts that the ground truth of its patches names; empty when it has none."""

    def ids(self) -> list[str]:
        """The stable ids of all images, in order."""

    def __iter__(self) -> Iterator[Picture | SkippedRow]: ...


def list_hash(ids: Sequence[str]) -> str:
    """One sha256 over the ids of a source, whatever their order."""
    return hashlib.sha256("".join(f"{image_id}\n" for image_id in sorted(ids)).encode()).hexdigest()


class FolderSource:
    """All pictures below a folder, in the order of their ids: the path below the folder, with '/'.

    Pictures are known by their suffix; hidden files and folders are left out, links to folders not followed.
    """

    concepts: Sequence[str] = ()

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        self._folder = Path(folder).absolute()
        if not self._folder.is_dir():
            raise SourceError(f"there is no folder {folder}")
        found = sorted((_text(path), path) for path in _picture_paths(self._folder))
        if not found:
            raise SourceError(
                f"the folder {folder} holds no pictures (known suffixes: {' '.join(sorted(SUFFIXES))})"
            )
        self._pictures = found[:limit]

    @property
    def description(self) -> str:
        """The folder's name."""
        return f"pictures of the folder {_text(self._folder.name)}"

    def ids(self) -> list[str]:
        """Paths below the folder."""
        return [image_id for image_id, _ in self._pictures]

    def __iter__(self) -> Iterator[Picture | SkippedRow]:
        for image_id, path in self._pictures:
            full = self._folder / path
            origin = _text(str(full))
            try:
                image = load_image(full)
            except ImageError as error:
                yield SkippedRow(image_id, origin, str(error))
            else:
                yield Picture(image_id, origin, image)


class SceneSource:
    """Drawn scenes of consecutive seeds, with ground truth for each patch."""

    concepts: Sequence[str] = CONCEPTS

    def __init__(self, count: int, seed: int = 0, family: str = "ordinary", limit: int | None = None) -> None:
        if count < 1:
            raise SourceError(f"cannot index {count} scenes; ask for at least 1")
        if seed < 0:
            raise SourceError(f"the first seed {seed} is below 0")
        self._family = family
        self._seeds = range(seed, seed + count)[:limit]

    @property
    def description(self) -> str:
        """Family and seeds."""
        return f"{self._family} scenes, seeds {self._seeds[0]} to {self._seeds[-1]}"

    def ids(self) -> list[str]:
        """scene:<family>:<seed>."""
        return [f"scene:{self._family}:{seed}" for seed in self._seeds]

    def __iter__(self) -> Iterator[Picture | SkippedRow]:
        for image_id, seed in zip(self.ids(), self._seeds, strict=True):
            scene = draw(seed, family=self._family)
            shown = sorted({thing.concept for thing in scene.objects if thing.visible >= LEAST_VISIBLE})
            yield Picture(image_id, image_id, scene.image, tuple(shown), scene)


def scene_truth(scene: Scene, rows: int, cols: int) -> PatchTruth:
    """What each patch of a grid over the whole scene shows, for any grid."""
    side = scene.owner.shape[0]
    if side % rows or side % cols:
        fine = 8
        down = ((np.arange(rows * fine) + 0.5) * side / (rows * fine)).astype(int)
        across = ((np.arange(cols * fine) + 0.5) * side / (cols * fine)).astype(int)
        scene = replace(scene, owner=_square(scene.owner[np.ix_(down, across)], rows, cols))
    objects = scene.patch_objects(rows, cols).reshape(-1)
    return PatchTruth(scene.patch_concepts(rows, cols).reshape(-1), objects)


def _square(owner: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Repeat pixels so that a map of rows x cols equal cells becomes square; shares per cell stay."""
    return np.repeat(np.repeat(owner, cols, axis=0), rows, axis=1) if rows != cols else owner


def _picture_paths(folder: Path) -> Iterator[str]:
    """Paths below a folder, with '/', of files that look like pictures."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield (Path(where) / name).relative_to(folder).as_posix()


def _text(path: str) -> str:
    """A path as text that can be stored: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
