"""Pictures that are files: their ids, reading them, and telling one missing file from a vanished folder.

The parent of the sources whose pictures are files of their own. Knows nothing of labels' meaning.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.images import load_image
from explorer.records import Grid
from index.sources.base import Label, PatchTruth, Picture, ordered_hash
from index.sources.packed import PackedNames

SUFFIXES = frozenset((
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".ico",
))  # fmt: skip
_NOT_THE_FILE = frozenset((
    errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN,
))  # fmt: skip
"""Errors of opening that say nothing of the picture: the machine or its network is in trouble."""

_FEW = 64


def text_of(path: str) -> str:
    """A path as text that can be stored: bytes that are no UTF-8 are written out."""
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def in_order(paths: Iterable[str]) -> PackedNames:
    """Paths in the order of their ids. Raises SourceError when two files would share one id."""
    found = sorted((text_of(path), path) for path in paths)
    for (one, _), (other, _) in pairwise(found):
        if one == other:
            raise SourceError(f"two files would both be called {one!r}; rename one of them")
    return PackedNames(path for _, path in found)


class FileSource:
    """Files below a root folder, known by their path below it, or by an absolute path.

    names: the paths, in the order of the pictures; root: what they are below of; whole: the source in
    words, for messages. Subclasses say which labels and which truth a picture has.
    Raises SourceError when none of the files is there.
    """

    vocabulary: Sequence[Label] = ()
    concepts: Sequence[str] = ()

    def __init__(self, root: Path, names: PackedNames, whole: str, description: str) -> None:
        self._root, self._names, self._whole = str(root.absolute()), names, whole
        self.description = description
        self._hash = ""
        self._landmarks = self._find_landmarks()

    def __len__(self) -> int:
        return len(self._names)

    def image_id(self, number: int) -> str:
        """The path below the root, as text."""
        return text_of(self._names[number])

    def origin(self, number: int) -> str:
        """The absolute path, as text."""
        return text_of(self.path(number))

    def path(self, number: int) -> str:
        """The absolute path, as the system wants it."""
        return os.path.join(self._root, self._names[number])

    def labels(self, number: int) -> tuple[int, ...]:
        """What the picture shows: ascending indices into the vocabulary."""
        return ()

    def truth(self, number: int) -> Callable[[Grid], PatchTruth] | None:
        """What the patches of the picture show."""
        return None

    def list_hash(self) -> str:
        """The hash of all ids, computed once."""
        self._hash = self._hash or ordered_hash(map(text_of, self._names))
        return self._hash

    def read(self, number: int) -> Picture:
        """Read one file; see `Source.read`."""
        return Picture(
            number,
            self.image_id(number),
            self.origin(number),
            self._load(number),
            self.labels(number),
            self.truth(number),
        )

    def _load(self, number: int) -> Image.Image:
        """The pixels of a picture."""
        path = self.path(number)
        try:
            return load_image(path)
        except ImageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NOT_THE_FILE:
                raise SourceError(f"cannot read {text_of(path)}: {cause.strerror}") from error
            if not os.path.isfile(path) and not any(os.path.isfile(mark) for mark in self._landmarks):
                raise SourceError(
                    f"{self._whole} is gone: neither {text_of(path)} nor files beside it are there any "
                    "more; bring it back and run the same command again"
                ) from error
            raise

    def _find_landmarks(self) -> tuple[str, ...]:
        """Up to three files that are there: the first, the middle and the last, or others near them.

        As long as one of them is there, the source is not gone.
        """
        count = len(self._names)
        likely = [0, count // 2, count - 1, *(i * count // _FEW for i in range(_FEW))]
        found = [path for path in map(self.path, dict.fromkeys(likely)) if os.path.isfile(path)][:3]
        if not found:
            found = [path for path in map(self.path, range(count)) if os.path.isfile(path)][:1]
        if not found:
            raise SourceError(
                f"none of the {count:,} files of {self._whole} is there (the first would be "
                f"{self.origin(0)}); check the folder"
            )
        return tuple(found)
