"""From pictures to the vectors of the tower's tokens: the one place where the training asks a model for them.

Knows the LVLM; nothing of sources or SAEs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from explorer.errors import ModelError, SourceError
from explorer.vlm.base import LVLM, Prepared


class Eye(NamedTuple):
    """What is read of a model: the output of `block` on patches; with include_cls on the CLS token too."""

    lvlm: LVLM
    block: int
    include_cls: bool = False

    def check(self) -> None:
        """Raises ModelError for a block that cannot be read, or for include_cls without a CLS token."""
        self.lvlm.width(self.block)
        if self.include_cls and not self.lvlm.has_cls:
            raise ModelError(f"the tower of {self.lvlm.model_id} has no CLS token; leave out --include-cls")


class Batch(NamedTuple):
    """Pictures that go through the tower together.

    pixels: [b, ...]; like: the form that they have in common; numbers [b]: which pictures they are.
    """

    pixels: Tensor
    like: Prepared
    numbers: tuple[int, ...]


def prepare(lvlm: LVLM, image: Image.Image) -> Prepared:
    """A picture in the one form that all pictures of a training have. Raises ImageError as the model does."""
    return lvlm.preprocess(image, fixed=True)


def together(pictures: Sequence[Prepared], numbers: Sequence[int]) -> Batch | None:
    """Prepared pictures as one batch; None for none. Raises SourceError when they do not fit together."""
    if not pictures:
        return None
    like = pictures[0].form()
    for other in pictures[1:]:
        if not other.alike(like):
            grids = [f"{grid.rows} x {grid.cols}" for grid in (like.grid, other.grid)]
            raise SourceError(f"pictures with grids of {' and '.join(grids)} do not fit one batch")
    return Batch(torch.cat([picture.pixel_values for picture in pictures]), like, tuple(numbers))


@torch.no_grad()
def token_vectors(eye: Eye, batch: Batch) -> Tensor:
    """The vectors [b, t, d] of the tokens that are read, on the model's device and in its precision."""
    hidden = eye.lvlm.tower(batch.pixels, eye.block, batch.like)
    patches = batch.like.patches(hidden)
    return torch.cat([hidden[:, :1], patches], dim=1) if eye.include_cls else patches
