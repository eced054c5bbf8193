"""Reads a picture again from its origin, as a store keeps it. Knows the forms of origins, not the stores."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote

from PIL import Image

from explorer.errors import ImageError, WorldError
from explorer.images import load_image
from explorer.world import draw
from index.sources.tar_files import TarReader, members_of

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def open_origin(origin: str) -> Image.Image:
    """The picture, upright RGB.

    origin: an absolute path, scene:<family>:<seed>, tar:<path>!<member> or hf:<where>?split=&image=&row=.
    Raises ImageError when it cannot be read, SourceError when its shard or data set is gone.
    """
    kind, _, rest = origin.partition(":")
    if kind == "scene":
        return _scene(origin, rest)
    if kind == "tar":
        return _member(origin, rest)
    if kind == "hf":
        return _row(origin, rest)
    return load_image(_existing(origin))


def _scene(origin: str, rest: str) -> Image.Image:
    """Draw it again."""
    family, _, seed = rest.rpartition(":")
    try:
        return draw(int(seed), family=family).image
    except (ValueError, WorldError) as error:
        raise ImageError(f"{origin!r} is no scene: {error}") from error


def _member(origin: str, rest: str) -> Image.Image:
    """Look for it in its shard. Both names may hold a "!"."""
    cuts = [found.start() for found in re.finditer("!", rest)]
    path, wanted = next(
        ((_existing(rest[:cut]), rest[cut + 1 :]) for cut in cuts if os.path.isfile(_existing(rest[:cut]))),
        ("", ""),
    )
    if not path:
        raise ImageError(f"the shard of {origin!r} is not there")
    names = {wanted, os.fsdecode(_unescaped(wanted))}
    for member in members_of(Path(path)):
        if member.name in names:
            return load_image(TarReader().read(path, member.offset, member.size))
    raise ImageError(f"the shard {path} holds no {wanted!r} any more")


def _row(origin: str, rest: str) -> Image.Image:
    """Open its data set."""
    from index.sources.hugging_face import open_cell

    where, _, query = rest.rpartition("?")
    facts = {key: values[0] for key, values in parse_qs(query).items()}
    if not {"split", "image", "row"} <= facts.keys() or not facts["row"].isdecimal():
        raise ImageError(f"{origin!r} names no row of a data set")
    return open_cell(unquote(where), facts["split"], facts["image"], int(facts["row"]))


def _existing(path: str) -> str:
    """The path; where only its unescaped form exists (a name that is no UTF-8), that."""
    if "\\x" in path and not os.path.exists(path):
        raw = os.fsdecode(_unescaped(path))
        return raw if os.path.exists(raw) else path
    return path


def _unescaped(path: str) -> bytes:
    """Undo how bytes that are no UTF-8 are written in ids and origins."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), path.encode())
