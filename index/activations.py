"""From pictures to sparse activations: the LVLM's tower up to the site, then the SAE, in batches.

Knows the LVLM and the SAE; nothing of exemplars or stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from explorer.records import Grid
from explorer.sae import SAE
from explorer.sae.quality import unexplained
from explorer.vlm.base import LVLM
from index.scores import ImageCodes
from index.sources import Picture


class Encoded(NamedTuple):
    """A picture with its grid, its activations, the share of its variance left unexplained, and its patch
    vectors [patches, d]."""

    picture: Picture
    grid: Grid
    codes: ImageCodes
    fvu: float
    patches: np.ndarray


def batches(items: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


@torch.inference_mode()
def encode(lvlm: LVLM, sae: SAE, block: int, pictures: Sequence[Picture]) -> list[Encoded]:
    """Run one batch of pictures through the tower and the SAE."""
    prepared = [lvlm.preprocess(picture.image) for picture in pictures]
    hidden = lvlm.tower(torch.cat([item.pixel_values for item in prepared]), block)
    patches = hidden[:, lvlm.patch_slice].float()
    n_images, n_patches, width = patches.shape
    codes = sae.encode_sparse(patches.reshape(-1, width))
    fvu = unexplained(sae, patches, codes)
    vectors = patches.cpu().numpy()
    tokens, neurons, values = (column.cpu().numpy() for column in codes)
    ends = torch.searchsorted(
        codes.tokens, torch.arange(n_images + 1, device=patches.device) * n_patches
    ).tolist()
    return [
        Encoded(
            picture,
            item.grid,
            ImageCodes(tokens[start:end] - i * n_patches, neurons[start:end], values[start:end], n_patches),
            fvu[i],
            vectors[i],
        )
        for i, (picture, item, start, end) in enumerate(zip(pictures, prepared, ends, ends[1:], strict=False))
    ]
