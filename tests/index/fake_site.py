"""A tiny stand-in for a model's vision side, a random SAE, sources made of lists, and a store's contents."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image

from explorer.errors import ImageError, ModelError
from explorer.records import Box, Grid
from explorer.sae import SAE, ActivationRule
from explorer.vlm.base import Prepared
from index.sources import Label, Picture, list_hash

SIDE, PATCH, WIDTH = 32, 8, 6
NOISE = Label("word", "noise")


class FakeLVLM:
    """Reads 32 x 32 px in 4 x 4 patches behind one CLS token; a patch is projected by fixed weights.

    fail_after: after so many batches it raises `failure`.
    """

    model_id = "fake@0123"
    preprocessing = "squash to 32 x 32"
    block_count = 3
    read_block = 1
    has_cls = True
    text_size = 0

    def __init__(
        self, fail_after: int | None = None, failure: type[BaseException] = KeyboardInterrupt
    ) -> None:
        rng = np.random.default_rng(5)
        self._weights = torch.tensor(rng.normal(size=(3 * PATCH * PATCH, WIDTH)), dtype=torch.float64)
        self._left, self._failure = fail_after, failure

    def width(self, block: int) -> int:
        """The same for all blocks that matter."""
        if block > self.read_block:
            raise ModelError(f"block {block} cannot matter: the text reads block {self.read_block}")
        return WIDTH

    def preprocess(self, image: Image.Image, fixed: bool = False) -> Prepared:
        """Pixels between 0 and 1."""
        pixels = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float64) / 255
        grid = Grid(4, 4, image.width, image.height, Box(0, 0, image.width, image.height))
        return Prepared(torch.tensor(pixels).permute(2, 0, 1)[None], grid)

    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """[B, 17, 6]; a black picture gives values that are not finite."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise self._failure("the fake model fails")
        parts = pixel_values.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        flat = parts.permute(0, 2, 3, 1, 4, 5).reshape(len(pixel_values), 16, -1)
        rows = [(flat[i, t] @ self._weights).float() for i in range(len(flat)) for t in range(16)]
        patches = torch.stack(rows).reshape(len(flat), 16, WIDTH)
        patches[flat.sum((1, 2)) == 0] = torch.nan
        return torch.cat([torch.full((len(flat), 1, WIDTH), 9.0), patches], dim=1)


def random_sae(neurons: int = 24, width: int = WIDTH, block: int | None = 1, seed: int = 0) -> SAE:
    """A top-3 SAE of random weights, whose last two neurons never fire."""
    draw = torch.Generator().manual_seed(seed)
    encoder = torch.randn(width, neurons, generator=draw)
    bias = torch.zeros(neurons)
    bias[-2:] = -1e6
    rule = ActivationRule("topk", k=3)
    sae = SAE(encoder, bias, encoder.T.contiguous(), torch.zeros(width), rule, site_block=block)
    return sae.eval().requires_grad_(False)


class ListSource:
    """A source made of a list of pictures, or errors that reading them raises."""

    description = "a list"

    def __init__(
        self,
        items: Sequence[Picture | Exception],
        concepts: Sequence[str] = (),
        vocabulary: Sequence[Label] = (NOISE,),
    ) -> None:
        self.items, self.concepts, self.vocabulary = list(items), concepts, vocabulary

    def __len__(self) -> int:
        return len(self.items)

    def image_id(self, number: int) -> str:
        """As the picture says."""
        item = self.items[number]
        return item.image_id if isinstance(item, Picture) else f"bad/{number}"

    def origin(self, number: int) -> str:
        """As the picture says."""
        item = self.items[number]
        return item.origin if isinstance(item, Picture) else f"bad/{number}"

    def read(self, number: int) -> Picture:
        """The picture, or its error."""
        item = self.items[number]
        if isinstance(item, Exception):
            raise item
        return item

    def list_hash(self) -> str:
        """As of all sources."""
        return list_hash(self.image_id(number) for number in range(len(self)))


def noise_image(rng: np.random.Generator, side: int = 40) -> Image.Image:
    """A picture of coarse noise."""
    pixels = rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def noise_pictures(count: int, seed: int = 0) -> list[Picture]:
    """Pictures of coarse noise; those with even numbers are labelled."""
    rng = np.random.default_rng(seed)
    return [
        Picture(i, f"noise/{i:05d}", f"here/{i}", noise_image(rng), (0,) if i % 2 == 0 else ())
        for i in range(count)
    ]


def noise_folder(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder of small PNG files of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        noise_image(rng).save(folder / f"{i:05d}.png")
    return folder


def unreadable(words: str = "it is empty") -> ImageError:
    """What reading a broken picture raises."""
    return ImageError(words)


def contents(folder: Path) -> dict[str, list]:
    """Everything in a store: the rows of all tables and the vectors of both indices; not the manifest."""
    db = sqlite3.connect(folder / "index.sqlite")
    names = [
        row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    ]
    kept = [name for name in names if not name.startswith(("sqlite_", "texts_"))]
    found: dict[str, list] = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in kept}
    db.close()
    for name in ("directions.faiss", "centroids.faiss"):
        index = faiss.read_index(os.fspath(folder / name))
        flat = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
        found[name] = flat.reconstruct_n(0, flat.ntotal).tolist()
    return found
