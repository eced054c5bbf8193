"""All pictures below a folder, whatever its tree looks like. Knows files; nothing of classes or labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from explorer.errors import SourceError
from index.sources.files import SUFFIXES, FileSource, in_order, text_of
from index.sources.packed import PackedNames


class FolderSource(FileSource):
    """All pictures below a folder, in the order of their ids: the path below the folder, with '/'.

    Pictures are known by their suffix; hidden files and folders are left out, links to folders not followed.
    Raises SourceError when there is no such folder, or no picture in it.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        super().__init__(
            folder,
            pictures_below(folder),
            f"the folder {text_of(str(folder))}",
            f"pictures of the folder {text_of(folder.absolute().name)}",
        )


def pictures_below(folder: Path) -> PackedNames:
    """Paths below a folder, with '/', of files that look like pictures, in the order of their ids."""
    shown = text_of(str(folder))
    if not folder.is_dir():
        what = f"{shown} is a file, not a folder" if folder.exists() else f"there is no folder {shown}"
        raise SourceError(what)
    names = in_order(_walk(str(folder)))
    if not names:
        raise SourceError(
            f"the folder {shown} holds no pictures (known suffixes: {' '.join(sorted(SUFFIXES))})"
        )
    return names


def _walk(folder: str) -> Iterator[str]:
    """The pictures' paths, in the order that the system gives them.

    Raises SourceError for a folder that cannot be listed: a part of the pictures would be missing.
    """

    def refuse(error: OSError) -> None:
        raise SourceError(f"cannot list {text_of(str(error.filename))}: {error.strerror}") from error

    cut = len(os.path.join(folder, ""))
    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.join(where, "")[cut:].replace(os.sep, "/")
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield below + name
