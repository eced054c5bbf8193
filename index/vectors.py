"""An endless stream of shuffled patch vectors for SAE training: pictures through the tower, in chunks.

A chunk is a run of consecutive pictures. Its vectors are shuffled together and used a few times, so
memory is bounded; batch number n is the same whatever batch the stream starts from, and resuming
costs no more than the chunk that it lands in. Knows pictures and towers; nothing of SAEs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from explorer.errors import ImageError, SourceError
from explorer.vlm.base import LVLM, Prepared
from explorer.world import draw
from index.loading import made
from index.sources import FolderSource


class Pictures(Protocol):
    """Pictures by number, from 0."""

    description: str

    def __len__(self) -> int: ...

    def image(self, number: int) -> Image.Image | None:
        """The picture, upright RGB; None where it cannot be read."""


class ScenePictures:
    """Drawn scenes of consecutive seeds; a share of them, evenly spread, is counterfactual."""

    def __init__(self, scenes: int, first_seed: int, counterfactual: float = 0.0) -> None:
        if scenes < 1 or first_seed < 0 or not 0 <= counterfactual <= 1:
            raise SourceError(
                f"cannot draw {scenes} scenes from seed {first_seed} with a share of {counterfactual} "
                "counterfactual ones"
            )
        self._scenes, self._first, self._share = scenes, first_seed, counterfactual
        last = first_seed + scenes - 1
        self.description = f"drawn scenes, seeds {first_seed} to {last}, {counterfactual:.0%} counterfactual"

    def __len__(self) -> int:
        return self._scenes

    def image(self, number: int) -> Image.Image | None:
        """Draw the scene."""
        odd = int((number + 1) * self._share) > int(number * self._share)
        return draw(self._first + number, "counterfactual" if odd else "ordinary").image


class FolderPictures:
    """The pictures below a folder in the order of their paths, or a part of them."""

    def __init__(self, folder: Path, part: slice = slice(None)) -> None:
        self._source = FolderSource(folder)
        self._numbers = range(len(self._source))[part]
        self.description = f"{len(self._numbers)} pictures of the folder {folder.name}"
        if not self._numbers:
            raise SourceError(
                f"the folder {folder} holds too few pictures to keep some for measuring; use a smaller "
                "--held-out"
            )

    def __len__(self) -> int:
        return len(self._numbers)

    def image(self, number: int) -> Image.Image | None:
        """Read the file."""
        try:
            return self._source.read(self._numbers[number]).image
        except ImageError:
            return None


@dataclass(frozen=True)
class StreamConfig:
    """How pictures become batches.

    chunk: pictures whose vectors are shuffled together; reuse: times that a chunk's vectors are used
    before the next chunk; tower_batch: pictures that go through the tower together; workers: processes
    that make pictures (0: this one); seed: of the shuffling.
    """

    chunk: int = 1024
    reuse: int = 4
    tower_batch: int = 32
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("chunk", "reuse", "tower_batch"):
            if getattr(self, name) < 1:
                raise SourceError(f"{name} = {getattr(self, name)}: it must be at least 1")


class _Pixels:
    """Lists of prepared pictures from number `start` on; numbers beyond the last begin again at 0."""

    def __init__(self, lvlm: LVLM, pictures: Pictures, start: int, amount: int, batch: int) -> None:
        self._lvlm, self._pictures = lvlm, pictures
        self._parts = [range(start, start + amount)[i : i + batch] for i in range(0, amount, batch)]

    def __len__(self) -> int:
        return len(self._parts)

    def load(self, part: int) -> tuple[Tensor, Prepared] | None:
        """Pixel values [b, ...] of the pictures that can be read, and their form; None where none can."""
        found = [self._pictures.image(number % len(self._pictures)) for number in self._parts[part]]
        ready = [self._lvlm.preprocess(image, fixed=True) for image in found if image is not None]
        return (torch.cat([one.pixel_values for one in ready]), ready[0].form()) if ready else None


@torch.no_grad()
def patch_vectors(
    lvlm: LVLM, block: int, pictures: Pictures, start: int, amount: int, config: StreamConfig
) -> Tensor:
    """The patch vectors [n, d] of `amount` pictures from number `start` on, float32, on the CPU.

    Raises SourceError when the source is gone, when none can be read, or when a worker dies.
    """
    pixels = _Pixels(lvlm, pictures, start, amount, config.tower_batch)
    parts = []
    with closing(made(pixels.load, range(len(pixels)), config.workers)) as arriving:
        for batch in arriving:
            if batch is not None:
                hidden, like = lvlm.tower(batch[0], block, batch[1]), batch[1]
                parts.append(like.patches(hidden).flatten(0, 1).float().cpu())
    if not parts:
        raise SourceError(f"none of {amount} pictures can be read ({pictures.description})")
    return torch.cat(parts)


def vectors_per_picture(lvlm: LVLM, pictures: Pictures) -> int:
    """How many patches the first readable picture has."""
    for number in range(len(pictures)):
        if (image := pictures.image(number)) is not None:
            grid = lvlm.preprocess(image, fixed=True).grid
            return grid.rows * grid.cols
    raise SourceError(f"none of the pictures can be read ({pictures.description})")


def batches(
    lvlm: LVLM, block: int, pictures: Pictures, batch: int, config: StreamConfig, first: int = 0
) -> Iterator[Tensor]:
    """Batches [batch, d] of shuffled patch vectors without end, from batch number `first` on.

    A chunk with unreadable pictures gives as many batches as the others, by using its vectors more often.
    """
    per_chunk = config.chunk * vectors_per_picture(lvlm, pictures) * config.reuse // batch
    if per_chunk < 1:
        raise SourceError(f"a chunk of {config.chunk} pictures does not fill a batch of {batch} vectors")
    begin, skip = divmod(first, per_chunk)
    for number in count(begin):
        vectors = patch_vectors(lvlm, block, pictures, number * config.chunk, config.chunk, config)
        dice = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        passes = -(-per_chunk * batch // len(vectors))
        order = torch.cat([torch.randperm(len(vectors), generator=dice) for _ in range(passes)])
        for i in range(skip if number == begin else 0, per_chunk):
            yield vectors[order[i * batch : (i + 1) * batch]]
