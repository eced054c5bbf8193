"""Chunks of a source, read and prepared for the tower, here or in worker processes.

Chunk j holds pictures j * batch to (j + 1) * batch, whoever prepares it. Pictures that cannot be read
leave their chunk smaller. Only pixels and small things cross processes. Knows sources and how a picture
is prepared; nothing of towers or neurons.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import torch
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.records import Grid
from explorer.store.writer import SkippedRow
from explorer.vlm.base import Prepared
from index.readers import made
from index.sources.base import PatchTruth, Source

THUMBNAIL_SIDE = 192
"""Longest side of a thumbnail in pixels."""


class Item(NamedTuple):
    """A picture without its pixels. thumbnail: JPEG of the part that the grid covers."""

    number: int
    image_id: str
    origin: str
    labels: tuple[int, ...]
    grid: Grid
    thumbnail: bytes
    truth: PatchTruth | None


class Chunk(NamedTuple):
    """One chunk.

    pixels: [b, ...] of its readable pictures, None where none is; items: the same b; like: their form.
    """

    index: int
    pixels: torch.Tensor | None
    items: list[Item]
    skipped: list[SkippedRow]
    like: Prepared | None = None


def chunk_count(n_images: int, batch: int) -> int:
    """How many chunks of `batch` hold all images."""
    return -(-n_images // batch)


def load_chunks(
    source: Source,
    preprocess: Callable[[Image.Image], Prepared],
    indices: Sequence[int],
    batch: int,
    workers: int = 0,
) -> Generator[Chunk, None, None]:
    """The chunks of these indices, in their order; the same whatever the number of workers.

    workers: processes that read and prepare, two chunks ahead each; 0: this process. They are gone when
    the iterator ends, fails or is closed. Raises SourceError when the source is gone, when the pictures
    of a chunk do not fit one batch, or when a worker dies.
    """
    if batch < 1 or workers < 0:
        raise SourceError(f"cannot load with batch {batch} and {workers} workers; use 1 and more, 0 and more")
    chunks = _Chunks(source, preprocess, batch)
    return made(chunks.load, indices, workers)


class _Chunks:
    """Chunks by index."""

    def __init__(self, source: Source, preprocess: Callable[[Image.Image], Prepared], batch: int) -> None:
        self._source, self._preprocess, self._batch = source, preprocess, batch

    def load(self, index: int) -> Chunk:
        """Read and prepare one chunk."""
        ready: list[Prepared] = []
        items: list[Item] = []
        skipped: list[SkippedRow] = []
        first = index * self._batch
        if not 0 <= first < len(self._source):
            raise IndexError(f"there is no chunk {index}")
        for number in range(first, min(first + self._batch, len(self._source))):
            try:
                picture = self._source.read(number)
                prepared = self._preprocess(picture.image)
            except ImageError as error:
                source = self._source
                skipped.append(SkippedRow(source.image_id(number), source.origin(number), str(error)))
                continue
            grid = prepared.grid
            if ready and not prepared.alike(ready[0]):
                raise SourceError(
                    f"{picture.image_id} has a {grid.rows} x {grid.cols} grid, {items[0].image_id} before it "
                    f"{items[0].grid.rows} x {items[0].grid.cols}; a store needs one grid for all"
                )
            truth = None if picture.truth is None else picture.truth(grid)
            small = thumbnail(picture.image, grid)
            items.append(Item(number, picture.image_id, picture.origin, picture.labels, grid, small, truth))
            ready.append(prepared)
        if not ready:
            return Chunk(int(index), None, items, skipped)
        pixels = torch.cat([prepared.pixel_values for prepared in ready])
        return Chunk(int(index), pixels, items, skipped, ready[0].form())


def thumbnail(image: Image.Image, grid: Grid) -> bytes:
    """A small JPEG of the part of a picture that its grid covers."""
    small = image.crop(tuple(round(edge) for edge in grid.covered))
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    return stream.getvalue()
