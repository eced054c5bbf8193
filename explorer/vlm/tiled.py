"""Models whose tower sees a picture several times: squashed into one tile, and larger, cut into tiles.

All tiles are squares of one size and go through the tower side by side. The picture's main grid is the one
of the squashed view, which every picture has; each further tile is a scale of its own, so that its patches
have true pixel boxes whatever margin the tower leaves out at a tile's edge. Of the tower's output the tiles
are one sequence: [B, tiles * tokens, width].

Families say how pictures are cut and what becomes of the last block's output. Knows torch and grids;
nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import nn

from explorer.errors import ModelError
from explorer.records import Box, Grid
from explorer.vlm.adapter import Adapter
from explorer.vlm.base import Prepared, Scale
from explorer.vlm.hooks import capture
from explorer.vlm.seeing import TOGETHER


@dataclass(frozen=True, eq=False)
class Cut:
    """A picture cut into tiles.

    pixels [1, T, 3, S, S]: of all tiles, the squashed view among them; boxes: where the others lie in the
    picture, natural pixels, in the order of `pixels`; inputs: see `Prepared`.
    """

    pixels: torch.Tensor
    boxes: Sequence[Box] = ()
    inputs: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Tiled(Adapter):
    """An opened model that reads tiles.

    whole: the place of the squashed view among the tiles, 0 (first) or -1 (last).
    """

    whole = 0

    # What families override

    def _cut(self, image: Image.Image, fixed: bool) -> Cut:
        """The tiles of an upright RGB picture; fixed: the squashed view alone."""
        raise NotImplementedError

    @property
    def _patch(self) -> int:
        """Side of a patch in model pixels."""
        return int(self.model.config.vision_config.patch_size)

    @property
    def _merged(self) -> int:
        """How many patches along each side become one feature."""
        return 1

    def _step(self, block: nn.Module, state: torch.Tensor) -> torch.Tensor:
        """A block's output [n, tokens, width] of its input."""
        return block(state, None)

    def _projected(self, state: torch.Tensor) -> torch.Tensor:
        """Features [n, F, D] of n tiles from what the last block puts out, [n, tokens, width]."""
        raise NotImplementedError

    def _joined(self, tiles: torch.Tensor, like: Prepared) -> torch.Tensor:
        """What the language side is given, [B, N, D], of all tiles' features [B, T, F, D]."""
        return tiles.flatten(1, 2)

    def _shares(self, looks: torch.Tensor, like: Prepared) -> torch.Tensor:
        """Attention to the picture's tokens [W, N] as attention to each tile's patches [W, T, patches]."""
        merged, tiles = self._merged, 1 + len(like.scales)
        side = like.grid.rows // merged
        features = looks.reshape(len(looks), tiles, side, side)
        spread = features.repeat_interleave(merged, 2).repeat_interleave(merged, 3)
        return (spread / merged**2).flatten(2)

    # Looking

    def _preprocessing(self) -> str:
        """How pictures of the fixed form are made, in words."""
        blank = self.preprocess(Image.new("RGB", (64, 64), "gray"), fixed=True).pixel_values
        name = type(self.processor.image_processor).__name__
        return f"squash to {blank.shape[-1]} x {blank.shape[-2]}, no further tiles; {name}"

    def preprocess(self, image: Image.Image, fixed: bool = False) -> Prepared:
        """Pixel values [1, T, 3, S, S] and grids of an upright RGB picture; fixed: of the squashed view.

        Raises ModelError for tiles that do not fit the model.
        """
        cut = self._cut(image, fixed)
        tiles, length = 1 + len(cut.boxes), cut.pixels.shape[-1]
        assert cut.pixels.shape[1] == tiles, f"{cut.pixels.shape[1]} tiles, expected {tiles}"
        side = length // self._patch
        if side % self._merged:
            raise ModelError(
                f"{self.model_id} makes one feature of {self._merged} x {self._merged} patches, but the "
                f"tiles of its image processor have {side} x {side}: take the one that came with it"
            )
        seen, per, whole = side * self._patch / length, side**2 + self.has_cls, self.whole % tiles

        def grid(box: Box) -> Grid:
            right = box.left + seen * (box.right - box.left)
            bottom = box.top + seen * (box.bottom - box.top)
            return Grid(side, side, *image.size, Box(box.left, box.top, right, bottom))

        places = [torch.arange(side**2) + tile * per + self.has_cls for tile in range(tiles)]
        main = places.pop(whole)
        scales = tuple(Scale(grid(box), where) for box, where in zip(cut.boxes, places, strict=True))
        return Prepared(cut.pixels, grid(Box(0, 0, *image.size)), main, scales, cut.inputs, tiles * per)

    def canvas(self, patches: int) -> Prepared:
        """The form of a square picture of about so many patches, without further tiles."""
        side = self._merged * max(1, round(patches**0.5 / self._merged))
        grid = Grid(side, side, side, side, Box(0, 0, side, side))
        return Prepared(torch.zeros(0), grid, tokens=side**2 + self.has_cls)

    def _from_block(self, output: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """Outputs of all tiles [B * T, tokens, width] as [B, T * tokens, width]."""
        tiles = 1 if like is None else 1 + len(like.scales)
        return output.reshape(len(output) // tiles, -1, output.shape[-1])

    def _to_block(self, hidden: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """The way back."""
        tiles = 1 if like is None else 1 + len(like.scales)
        return hidden.reshape(len(hidden) * tiles, -1, hidden.shape[-1])

    def _at_once(self, pixels: torch.Tensor) -> int:
        """How many tiles of pixel values [..., S, S] go through the tower together."""
        return max(1, TOGETHER // (pixels.shape[-1] // self._patch) ** 2)

    @torch.no_grad()
    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """Output of `block`, [batch, T * tokens, width], of pixel values [batch, T, 3, S, S]."""
        self.width(block)
        pixels = pixel_values.to(self.model.device, self.model.dtype)
        found = []
        for part in pixels.flatten(0, 1).split(self._at_once(pixels)):
            with capture(self._blocks[block], stop=True) as captured:
                self._tower(pixel_values=part)
            assert captured.output is not None, f"block {block} did not run"
            found.append(captured.output)
        return torch.cat(found).reshape(len(pixels), -1, found[0].shape[-1])

    def _rest(self, hidden: torch.Tensor, block: int, like: Prepared | None) -> torch.Tensor:
        """Image features [B, N, D] of block outputs [B, T * tokens, width]: the later blocks one by one."""
        if like is None:
            raise ModelError(f"{self.model_id} needs to know how the picture was cut into tiles")
        found = []
        states = self._to_block(hidden, like)
        for state in states.split(max(1, TOGETHER // states.shape[1])):
            for later in self._blocks[block + 1 : self.read_block + 1]:
                state = self._step(later, state)
            found.append(self._projected(state))
        tiles = torch.cat(found)
        return self._joined(tiles.reshape(len(hidden), -1, *tiles.shape[1:]), like)

    @torch.no_grad()
    def alone(self, vectors: torch.Tensor, block: int) -> torch.Tensor:
        """The feature [n, D] of pictures of nothing but one patch vector each, [n, width]."""
        like = self.canvas(1)
        hidden = vectors[:, None].repeat(1, like.tokens, 1)
        return self.features(hidden, block, like)[:, 0].float()

    def _over_patches(self, looks: torch.Tensor, like: Prepared | None) -> torch.Tensor:
        """Attention to the picture's tokens [W, N] laid over the main grid [W, rows * cols].

        What a tile's patch is given falls to the main grid's patches by the area that they share.
        """
        if like is None:
            raise ModelError(f"{self.model_id} needs to know how the picture was cut into tiles")
        shares = list(self._shares(looks, like).unbind(1))
        whole = shares.pop(self.whole % len(shares))
        for share, scale in zip(shares, like.scales, strict=True):
            whole = whole + resampled(share, scale.grid, like.grid)
        return whole


def resampled(values: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """Values [n, rows * cols] on one grid shared out to another over the same picture: their sum is kept.

    Each patch's value goes to the patches that it overlaps, by the shared area; where it overlaps none, to
    the nearest.
    """
    box, other = source.covered, target.covered
    down = _overlap((box.top, box.bottom, source.rows), (other.top, other.bottom, target.rows))
    across = _overlap((box.left, box.right, source.cols), (other.left, other.right, target.cols))
    there = values.reshape(len(values), source.rows, source.cols)
    return (down.T.to(values) @ there @ across.to(values)).flatten(1)


def _overlap(source: tuple[float, float, int], target: tuple[float, float, int]) -> torch.Tensor:
    """Which share [a, b] of each of a lengths lies in each of b others; (start, end, count) of both."""
    edges = torch.linspace(*source[:2], source[2] + 1, dtype=torch.float64)
    others = torch.linspace(*target[:2], target[2] + 1, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], others[None, :-1])
    high = torch.minimum(edges[1:, None], others[None, 1:])
    shared = (high - low).clamp_min(0)
    apart = shared.sum(1) == 0
    middle = (edges[:-1] + edges[1:])[:, None] / 2
    nearest = (middle - (others[:-1] + others[1:])[None] / 2).abs().argmin(1)
    shared[apart, nearest[apart]] = 1.0
    return shared / shared.sum(1, keepdim=True)
