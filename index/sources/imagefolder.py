"""Folders whose first level are classes, as ImageNet's: <wnid>/<picture>. Knows files and class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from explorer.errors import SourceError
from index.sources.base import Label
from index.sources.class_names import ClassNames, unique_names
from index.sources.files import FileSource, text_of
from index.sources.folder import pictures_below


class ImageFolderSource(FileSource):
    """All pictures below a folder; the first folder on the way to a picture is its class.

    names: what the classes are called; a class that they leave out, and every class without them, keeps its
    folder's name. Pictures beside the class folders have no class. Raises SourceError when there are no
    class folders, or when `names` knows none of them.
    """

    def __init__(self, folder: str | Path, names: ClassNames | None = None) -> None:
        folder = Path(folder)
        shown = text_of(str(folder))
        paths = pictures_below(folder)
        keys = sorted({text_of(path.split("/", 1)[0]) for path in paths if "/" in path})
        if not keys:
            raise SourceError(
                f"the folder {shown} has no class folders (expected {shown}/<class>/<picture>); index a "
                "folder without classes with --images"
            )
        if names is not None and not any(names.name(key) for key in keys):
            raise SourceError(
                f"{names.path} names none of the {len(keys)} folders of {shown} (the first: {keys[0]!r})"
            )
        place = {key: number for number, key in enumerate(keys)}
        self.vocabulary = tuple(Label("class", name) for name in unique_names(keys, names))
        classes = (place[text_of(path.split("/", 1)[0])] if "/" in path else -1 for path in paths)
        self._classes = np.fromiter(classes, dtype=np.int32, count=len(paths))
        super().__init__(
            folder,
            paths,
            f"the folder {shown}",
            f"pictures of {len(keys)} class folders of {text_of(folder.absolute().name)}",
        )

    def labels(self, number: int) -> tuple[int, ...]:
        """The picture's class."""
        found = int(self._classes[number])
        return (found,) if found >= 0 else ()
