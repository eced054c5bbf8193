"""COCO: pictures with categories, the objects' outlines or boxes, and the words of their captions.

A patch shows the object that covers at least half of it; small objects lie over large ones. A region of
many objects ("crowd") is told by its box only: its patches are unknown, unless an object covers them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from explorer.errors import SourceError
from explorer.records import Grid
from index.sources import coco_files as files
from index.sources.base import NOTHING, UNKNOWN, Label, PatchTruth
from index.sources.files import FileSource, in_order, text_of
from index.sources.packed import PackedRows
from index.sources.truth import decided
from index.sources.words import kept_words, words_of

FINE = 12
"""Outlines are drawn with FINE x FINE points per patch."""

_OTHER_SHAPE = 0.03
"""A picture whose sides differ from the annotated ones by more than this share is another picture."""


class CocoSource(FileSource):
    """The pictures of an instances file, a captions file, or both.

    images: the folder that the file names start from. Ids are the file names. Raises SourceError for a file
    that is no COCO file, and when none of the pictures is there.
    """

    def __init__(
        self, images: str | Path, instances: str | Path | None = None, captions: str | Path | None = None
    ) -> None:
        folder = Path(images)
        given = [text_of(str(path)) for path in (instances, captions) if path is not None]
        if not given:
            raise SourceError("COCO needs an instances file, a captions file, or both")
        if not folder.is_dir():
            raise SourceError(f"there is no folder {text_of(str(folder))} (the folder of COCO's pictures)")
        told = _read_captions(Path(captions)) if captions is not None else {}
        objects, names, concepts = None, in_order(told), []
        if instances is not None:
            parsed = files.read_json(Path(instances), "category_id")
            listed = files.images_of(parsed, Path(instances))
            names = in_order({*told, *listed.files.values()})
            numbers = {name: number for number, name in enumerate(names)}
            concepts, places = files.categories_of(parsed, Path(instances))
            objects = files.objects_of(parsed, listed, numbers, places)
            sizes = [listed.sizes.get(name, (0.0, 0.0)) for name in names]
            self._sizes = np.array(sizes, dtype=np.float32)
            annotated = set(listed.files.values())
            self._annotated = np.array([name in annotated for name in names])
            del parsed
        self._objects = objects
        words = kept_words((words_of(texts) for texts in told.values()), len(names))
        self.concepts = tuple(concepts)
        self.vocabulary = (
            *(Label("category", name) for name in concepts),
            *(Label("word", word) for word in words),
        )
        place = {word: len(concepts) + number for number, word in enumerate(words)}
        self._labels = PackedRows.of(
            sorted(self._categories(number) | {place[w] for w in words_of(told.get(name, ())) if w in place})
            for number, name in enumerate(names)
        )
        whole = f"the folder {text_of(str(folder))} with the pictures of {' and '.join(given)}"
        called = " and ".join(Path(path).name for path in given)
        super().__init__(folder, names, whole, f"COCO pictures of {called}")

    def labels(self, number: int) -> tuple[int, ...]:
        """The picture's categories, those of crowds too, and the words of its captions."""
        return self._labels[number]

    def truth(self, number: int) -> Callable[[Grid], PatchTruth] | None:
        """What the patches show; None for pictures that only the captions file knows."""
        if self._objects is None or not self._annotated[number]:
            return None
        return partial(object_truth, self._objects, self._objects.of_image.array(number), self._sizes[number])

    def _categories(self, number: int) -> set[int]:
        """The categories of a picture's objects."""
        if self._objects is None:
            return set()
        return set(self._objects.category[self._objects.of_image.array(number)].tolist())


def _read_captions(path: Path) -> dict[str, list[str]]:
    """The captions of every picture that the file lists."""
    parsed = files.read_json(path, "caption")
    listed = files.images_of(parsed, path)
    return {name: [] for name in listed.files.values()} | files.captions_of(parsed, listed)


def object_truth(objects: files.Objects, here: np.ndarray, size: np.ndarray, grid: Grid) -> PatchTruth:
    """What the patches of a grid show.

    here: the objects of the picture; size: width and height of the annotated picture, zeros when not
    told. A picture of other proportions (turned, cropped) is not the annotated one: all is unknown.
    """
    width, height = size.tolist() if size.all() else (grid.width, grid.height)
    if abs(width * grid.height / (height * grid.width) - 1) > _OTHER_SHAPE:
        unknown = np.full(grid.rows * grid.cols, UNKNOWN, dtype=np.int64)
        return PatchTruth(unknown, np.full_like(unknown, NOTHING))
    scale = np.array([grid.width / width, grid.height / height])
    box = grid.covered
    corner = np.array([box.left, box.top])
    fine = np.array([grid.cols, grid.rows]) * FINE / (np.array([box.right, box.bottom]) - corner)

    def placed(points: np.ndarray) -> np.ndarray:
        """Annotated pixels [n, 2] -> points of the drawing, whose centres are at whole numbers."""
        return ((points.astype(np.float64) * scale - corner) * fine - 0.5).clip(-1e5, 1e5)

    # In the drawing 0 is unknown, 1 nothing, and n + 2 the n-th object that is no crowd.
    drawing = Image.new("I", (grid.cols * FINE, grid.rows * FINE), 1)
    pen = ImageDraw.Draw(drawing)
    for index in here[objects.crowd[here]]:
        if objects.box[index].any():
            _rectangle(pen, placed(objects.box[index].reshape(2, 2)), 0)
        else:
            drawing.paste(0, (0, 0, *drawing.size))
    single = here[~objects.crowd[here]]
    for place in np.argsort(-objects.area[single], kind="stable").tolist():
        outlines = objects.polygons(single[place])
        for outline in outlines:
            pen.polygon(placed(outline).ravel().tolist(), fill=place + 2)
        if not outlines and objects.box[single[place]].any():
            _rectangle(pen, placed(objects.box[single[place]].reshape(2, 2)), place + 2)
    return decided(np.asarray(drawing) - 2, grid.rows, grid.cols, objects.category[single])


def _rectangle(pen: ImageDraw.ImageDraw, corners: np.ndarray, fill: int) -> None:
    """Fill all points whose centres lie within two corners [2, 2]."""
    (left, top), (right, bottom) = np.ceil(corners).astype(int).tolist()
    if right > left and bottom > top:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=fill)
