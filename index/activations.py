"""From pictures to sparse activations: the LVLM's tower up to the site, then the SAE, in batches.

Knows the LVLM and the SAE; nothing of exemplars or stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from explorer.errors import SAEError
from explorer.records import Grid
from explorer.sae import SAE, SparseCodes
from explorer.vlm.base import LVLM
from index.scores import ImageCodes
from index.sources import Picture


class Encoded(NamedTuple):
    """A picture with its grid, its activations, and the share of its variance left unexplained."""

    picture: Picture
    grid: Grid
    codes: ImageCodes
    fvu: float


def site_block(lvlm: LVLM, sae: SAE) -> int:
    """The block that the SAE reads: the one it names, else the one the model reads.

    Raises SAEError when the SAE does not fit the model there.
    """
    block = lvlm.read_block if sae.site_block is None else sae.site_block
    if block > lvlm.read_block:
        raise SAEError(
            f"the SAE is for block {block}, but {lvlm.model_id} reads block {lvlm.read_block}: "
            "what comes later never reaches the text"
        )
    if lvlm.width(block) != sae.width:
        raise SAEError(
            f"the SAE takes vectors of width {sae.width}, but block {block} of {lvlm.model_id} "
            f"gives {lvlm.width(block)}"
        )
    return block


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
        )
        for i, (picture, item, start, end) in enumerate(zip(pictures, prepared, ends, ends[1:], strict=False))
    ]


def reconstruct(sae: SAE, codes: SparseCodes, n_tokens: int) -> Tensor:
    """The SAE's reconstruction [T, d] from sparse activations, without a dense [T, F] in between."""
    starts = torch.searchsorted(codes.tokens, torch.arange(n_tokens, device=codes.tokens.device))
    summed = functional.embedding_bag(
        codes.neurons, sae.W_dec, starts, mode="sum", per_sample_weights=codes.values.to(sae.W_dec.dtype)
    )
    return summed + sae.b_dec


def unexplained(sae: SAE, patches: Tensor, codes: SparseCodes) -> list[float]:
    """For each image of patches [B, T, d]: squared error over the squared distance to the image's mean."""
    flat = patches.reshape(-1, patches.shape[-1])
    error = (flat - reconstruct(sae, codes, len(flat))).square().reshape(patches.shape).sum(dim=(1, 2))
    spread = (patches - patches.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
    return (error / spread.clamp_min(torch.finfo(spread.dtype).tiny)).tolist()
