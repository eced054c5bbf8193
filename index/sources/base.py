"""What a source of pictures is: numbered pictures with stable ids, labels, and ground truth of patches.

Knows pictures and grids; nothing of models, neurons or stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image

from explorer.records import Grid

NOTHING, UNKNOWN = -1, -2
"""Marks of patch truth: a patch that shows none of the concepts; one that nobody can tell."""

LabelKind = Literal["concept", "category", "class", "word"]


class Label(NamedTuple):
    """One entry of a source's vocabulary: what a whole picture may show.

    kind: concept (drawn scenes), category (COCO), class (ImageNet and other class folders) or word
    (captions); name: as the data set spells it.
    """

    kind: LabelKind
    name: str


class PatchTruth(NamedTuple):
    """What the patches of a grid show, row by row: arrays [rows * cols] of int.

    concepts: index into the source's concepts, -1 for nothing, -2 for unknown (counted nowhere);
    objects: number of the object within the picture, -1 for none.
    """

    concepts: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """One readable picture of a source.

    number: its place in the source; image: upright RGB; labels: what the source says that it shows,
    ascending indices into the vocabulary; truth: what each patch of a grid shows, None when unknown.
    """

    number: int
    image_id: str
    origin: str
    image: Image.Image
    labels: tuple[int, ...] = ()
    truth: Callable[[Grid], PatchTruth] | None = None


class Source(Protocol):
    """Pictures by number, 0 to len - 1, in a fixed order. Small when pickled or forked."""

    @property
    def description(self) -> str:
        """Where the pictures come from, in words for the manifest."""

    @property
    def vocabulary(self) -> Sequence[Label]:
        """All labels that pictures may have; empty when nothing is known of them."""

    @property
    def concepts(self) -> Sequence[str]:
        """Names that patch truth uses, those of the first labels of the vocabulary; empty without truth."""

    def __len__(self) -> int: ...

    def image_id(self, number: int) -> str:
        """The stable id of a picture."""

    def origin(self, number: int) -> str:
        """Where the picture can be read again; `reopen.open_origin` understands it."""

    def read(self, number: int) -> Picture:
        """Read a picture.

        Raises ImageError when this picture cannot be read, SourceError when the source itself is gone.
        """

    def list_hash(self) -> str:
        """The sha256 of all ids, in hex."""


def list_hash(ids: Iterable[str]) -> str:
    """One sha256 over ids, each followed by a newline, whatever their order."""
    return ordered_hash(sorted(ids))


def ordered_hash(ids: Iterable[str]) -> str:
    """The same for ids that come in ascending order; a million of them need no list."""
    digest, last = hashlib.sha256(), ""
    for image_id in ids:
        assert last <= image_id, "ids out of order"
        digest.update(f"{image_id}\n".encode())
        last = image_id
    return digest.hexdigest()
