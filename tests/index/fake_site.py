"""A tiny stand-in for a model's vision side, a random SAE, and sources made of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from explorer.errors import ModelError
from explorer.records import Box, Grid
from explorer.sae import SAE, ActivationRule
from explorer.store.writer import SkippedRow
from explorer.vlm.base import Prepared
from index.scores import ImageCodes
from index.sources import Picture

SIDE, PATCH, WIDTH = 32, 8, 6


class FakeLVLM:
    """Reads 32 x 32 px in 4 x 4 patches behind one CLS token; a patch is projected by fixed weights."""

    model_id = "fake@0123"
    preprocessing = "squash to 32 x 32"
    block_count = 3
    read_block = 1
    patch_slice = slice(1, None)

    def __init__(self, fail_after: int | None = None) -> None:
        rng = np.random.default_rng(5)
        self._weights = torch.tensor(rng.normal(size=(3 * PATCH * PATCH, WIDTH)), dtype=torch.float64)
        self._left = fail_after

    def width(self, block: int) -> int:
        """The same for all blocks that matter."""
        if block > self.read_block:
            raise ModelError(f"block {block} cannot matter: the text reads block {self.read_block}")
        return WIDTH

    def preprocess(self, image: Image.Image) -> Prepared:
        """Pixels between 0 and 1."""
        pixels = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float64) / 255
        grid = Grid(4, 4, image.width, image.height, Box(0, 0, image.width, image.height))
        return Prepared(torch.tensor(pixels).permute(2, 0, 1)[None], grid)

    def tower(self, pixel_values: torch.Tensor, block: int) -> torch.Tensor:
        """[B, 17, 6]; raises KeyboardInterrupt after `fail_after` calls."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        parts = pixel_values.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        flat = parts.permute(0, 2, 3, 1, 4, 5).reshape(len(pixel_values), 16, -1)
        rows = [(flat[i, t] @ self._weights).float() for i in range(len(flat)) for t in range(16)]
        patches = torch.stack(rows).reshape(len(flat), 16, WIDTH)
        return torch.cat([torch.full((len(flat), 1, WIDTH), 9.0), patches], dim=1)


def random_sae(neurons: int = 24, width: int = WIDTH, block: int | None = 1, seed: int = 0) -> SAE:
    """A top-3 SAE of random weights."""
    draw = torch.Generator().manual_seed(seed)
    encoder = torch.randn(width, neurons, generator=draw)
    bias = torch.zeros(neurons)
    bias[-2:] = -1e6  # two neurons that never fire
    rule = ActivationRule("topk", k=3)
    sae = SAE(encoder, bias, encoder.T.contiguous(), torch.zeros(width), rule, site_block=block)
    return sae.eval().requires_grad_(False)


class ListSource:
    """A source made of a list of pictures and rows for `skipped`."""

    description = "a list"

    def __init__(self, items: Sequence[Picture | SkippedRow], concepts: Sequence[str] = ()) -> None:
        self.items = list(items)
        self.concepts = concepts

    def ids(self) -> list[str]:
        """Ids in the list's order."""
        return [item.image_id for item in self.items]

    def __iter__(self) -> Iterator[Picture | SkippedRow]:
        return iter(self.items)


def noise_pictures(count: int, seed: int = 0) -> list[Picture]:
    """Pictures of coarse noise."""
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(count):
        pixels = rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((40, 40), Image.Resampling.NEAREST)
        pictures.append(Picture(f"noise/{i}", f"here/{i}", image, ("noise",)))
    return pictures


def codes_of(dense: np.ndarray) -> ImageCodes:
    """The sparse form of dense activations [T, F]."""
    tokens, neurons = np.nonzero(dense)
    return ImageCodes(tokens, neurons, dense[tokens, neurons].astype(np.float32), len(dense))
