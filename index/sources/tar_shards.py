"""WebDataset shards: pictures and their classes in tar files, read by place. Knows tar members and labels.

Members of one sample follow one another and share their key, the name up to the first dot of its last
part: n01440764_36.jpg and n01440764_36.cls. The class comes from .cls (a number or a name), or from
"cls", "class" or "label" in .json; .txt captions are not used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from explorer.errors import ImageError, SourceError
from explorer.images import load_image
from index.sources.base import Label, Picture, ordered_hash
from index.sources.class_names import ClassNames, unique_names
from index.sources.files import SUFFIXES, text_of
from index.sources.packed import PackedNames
from index.sources.patterns import tar_paths
from index.sources.tar_files import Member, TarReader, members_of

_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
_CLASS_FIELDS = ("cls", "class", "label")
_LARGEST_LABEL = 1 << 20


class Found(NamedTuple):
    """A picture of a shard. label: its class as written, "" for none."""

    image_id: str
    shard: int
    offset: int
    size: int
    label: str


class TarSource:
    """The pictures of tar shards, in the order of their ids: shard, "/", name within the shard.

    patterns: paths, folders, or patterns with * and {000..099}; a shard's name is its path below the
    folder that all have in common. names: what the classes are called. Raises SourceError for shards that
    are missing, packed or damaged, and when there are no pictures in them.
    """

    concepts: Sequence[str] = ()

    def __init__(self, patterns: Sequence[str], names: ClassNames | None = None) -> None:
        paths = tar_paths(patterns)
        self._reader = TarReader()
        self._paths = [str(path) for path in paths]
        root = os.path.commonpath([path.parent for path in paths])
        found = sorted(self._listed(root))
        if not found:
            raise SourceError(f"the {len(paths)} tar files of {' '.join(patterns)} hold no pictures")
        for one, other in pairwise(found):
            if one.image_id == other.image_id:
                raise SourceError(f"the shard {self._paths[one.shard]} holds two files {one.image_id!r}")
        self._ids = PackedNames(row.image_id for row in found)
        self._shard = np.array([row.shard for row in found], dtype=np.int32)
        self._offset = np.array([row.offset for row in found], dtype=np.int64)
        self._size = np.array([row.size for row in found], dtype=np.int64)
        keys = sorted({row.label for row in found} - {""}, key=_numbers_first)
        if names is not None and keys and not any(names.name(key) for key in keys):
            raise SourceError(
                f"{names.path} names none of the classes in the shards (the first: {keys[0]!r})"
            )
        place = {key: number for number, key in enumerate(keys)} | {"": -1}
        self.vocabulary = tuple(Label("class", name) for name in unique_names(keys, names))
        self._class = np.array([place[row.label] for row in found], dtype=np.int32)
        self._names = [text_of(os.path.relpath(path, root)) for path in self._paths]
        self.description = f"pictures of {len(paths)} tar shards of {text_of(os.path.basename(root))}"
        self._hash = ""

    def __len__(self) -> int:
        return len(self._ids)

    def image_id(self, number: int) -> str:
        """The shard's name, "/", and the picture's name within it."""
        return self._ids[number]

    def origin(self, number: int) -> str:
        """tar:<absolute path>!<name within the shard>."""
        shard = self._shard[number]
        return f"tar:{text_of(self._paths[shard])}!{self._ids[number][len(self._names[shard]) + 1 :]}"

    def list_hash(self) -> str:
        """The hash of all ids, computed once."""
        self._hash = self._hash or ordered_hash(self._ids)
        return self._hash

    def read(self, number: int) -> Picture:
        """Read one picture; see `Source.read`."""
        path = self._paths[self._shard[number]]
        data = self._reader.read(path, int(self._offset[number]), int(self._size[number]))
        image_id, label = self.image_id(number), int(self._class[number])
        try:
            image = load_image(data)
        except ImageError as error:
            raise ImageError(f"{image_id}: {error}") from error
        return Picture(number, image_id, self.origin(number), image, (label,) if label >= 0 else ())

    def _listed(self, root: str) -> Iterator[Found]:
        """The pictures of all shards."""
        for shard, path in enumerate(self._paths):
            name = os.path.relpath(path, root)
            keyed = ((_KEY.fullmatch(member.name), member) for member in members_of(Path(path)))
            samples = groupby(((found, member) for found, member in keyed if found), lambda pair: pair[0][1])
            for _, sample in samples:
                parts = {found[2].lower(): member for found, member in sample}
                picture = _picture_of(parts)
                if picture is not None:
                    label = self._label_of(path, parts)
                    yield Found(text_of(f"{name}/{picture.name}"), shard, picture.offset, picture.size, label)

    def _label_of(self, path: str, parts: dict[str, Member]) -> str:
        """The class of a sample as it is written, "" where there is none."""
        for kind in ("cls", "json"):
            if kind not in parts or parts[kind].size > _LARGEST_LABEL:
                continue
            member = parts[kind]
            text = self._reader.read(path, member.offset, member.size).decode("utf-8", "replace").strip()
            label = text if kind == "cls" else _class_in(text)
            if label:
                return label
        return ""


def _picture_of(parts: dict[str, Member]) -> Member | None:
    """The picture of a sample: by a plain suffix (jpg) if there is one, else by its last (input.jpg)."""
    plain = [kind for kind in parts if f".{kind}" in SUFFIXES]
    other = [kind for kind in parts if os.path.splitext(f".{kind}")[1] in SUFFIXES]
    kinds = sorted(plain) or sorted(other)
    return parts[kinds[0]] if kinds else None


def _class_in(text: str) -> str:
    """The class in a sample's JSON, "" where there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    for field in _CLASS_FIELDS if isinstance(found, dict) else ():
        value = found.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value).strip()
    return ""


def _numbers_first(key: str) -> tuple[bool, int, str]:
    """Class numbers by size, then names."""
    number = int(key) if key.isdecimal() else 0
    return not key.isdecimal(), number, key
