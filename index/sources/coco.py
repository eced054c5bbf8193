"""COCO: pictures with categories, the objects' outlines or boxes, and the words of their captions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from explorer.errors import SourceError
from explorer.records import Grid
from index.sources import coco_files as files
from index.sources.base import Label, PatchTruth
from index.sources.coco_truth import object_truth
from index.sources.files import FileSource, in_order, text_of
from index.sources.packed import PackedRows
from index.sources.words import kept_words, words_of


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
