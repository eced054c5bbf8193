"""From patterns to paths: "train-{000000..000099}.tar", "a/*.tar", a folder. Knows file names only."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from explorer.errors import SourceError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


def expand_braces(pattern: str) -> Iterator[str]:
    """All texts that a pattern stands for: {000..012} counts, with leading zeros, {a,b} chooses."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    span = _RANGE.fullmatch(found[1])
    if span:
        first, last = int(span[1]), int(span[2])
        if not first <= last < first + _MOST:
            raise SourceError(f"{{{found[1]}}} in {pattern!r} counts from {first} to {last}")
        width = len(span[1]) if span[1].startswith("0") else 0
        choices = [f"{number:0{width}}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",")
    for choice in choices:
        yield from expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])


def tar_paths(patterns: Sequence[str]) -> list[Path]:
    """The tar files that paths, folders or patterns name, in order, each once.

    A folder stands for all *.tar below it. Raises SourceError for a name that stands for no file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        for name in [pattern] if os.path.exists(pattern) else expand_braces(pattern):
            if os.path.isdir(name):
                paths = sorted(glob.glob(os.path.join(glob.escape(name), "**", "*.tar"), recursive=True))
            elif glob.has_magic(name) and not os.path.exists(name):
                paths = sorted(glob.glob(name, recursive=True))
            else:
                paths = [name] if os.path.isfile(name) else []
            if not paths:
                raise SourceError(
                    f"there is no tar file {name}"
                    + (f" (of {pattern})" if name != pattern else "")
                    + '; give paths, a folder of .tar files, or a pattern such as "train-{000..099}.tar"'
                )
            found.update((Path(path).absolute(), None) for path in paths)
    return sorted(found)
