"""Where the patches of a picture lie: the arithmetic of padding, resizing and cropping, run backwards.

Knows the settings of CLIP-like image processors; nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from explorer.errors import ModelError
from explorer.records import Box, Grid


@dataclass(frozen=True)
class Framing:
    """How an image processor brings a picture to the model's size, in this order.

    pad_square: first put it in the middle of a square; shortest_edge: scale so that the shorter side
    has this length, or 0; fixed: (height, width) to squash to, or None; crop: (height, width) cut from
    the middle, or None. Lengths in model pixels.
    """

    pad_square: bool = False
    shortest_edge: int = 0
    fixed: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.crop is None and self.fixed is None and not (self.pad_square and self.shortest_edge):
            raise ModelError(
                "the image processor gives pictures of varying size; only fixed sizes are supported"
            )

    def words(self) -> str:
        """The framing as a short phrase."""
        steps = ["pad to a square"] if self.pad_square else []
        if self.fixed:
            steps.append(f"squash to {self.fixed[1]} x {self.fixed[0]}")
        elif self.shortest_edge:
            steps.append(f"shorter side to {self.shortest_edge}")
        if self.crop:
            steps.append(f"crop the middle {self.crop[1]} x {self.crop[0]}")
        return ", ".join(steps)


def framing_of(processor: object) -> Framing:
    """Read the framing from a transformers image processor."""
    get = lambda name: getattr(processor, name, None)  # noqa: E731
    shortest, fixed, crop = 0, None, None
    size = dict(get("size") or {})
    if get("do_resize"):
        if size.get("height") and size.get("width"):
            fixed = (int(size["height"]), int(size["width"]))
        elif size.get("shortest_edge") and not size.get("longest_edge"):
            shortest = int(size["shortest_edge"])
        else:
            raise ModelError(
                f"the image processor resizes to {size}; only a fixed size or a shortest edge will do"
            )
    if get("do_center_crop"):
        cut = dict(get("crop_size") or {})
        crop = (int(cut["height"]), int(cut["width"]))
    return Framing(bool(get("do_pad")), shortest, fixed, crop)


def grid_of(width: int, height: int, framing: Framing, rows: int, cols: int, patch: int) -> Grid:
    """The grid of a picture of width x height natural pixels whose patches are `patch` model pixels wide.

    The covered box reaches beyond the picture where the processor pads.
    """
    left, top, canvas_w, canvas_h = 0, 0, width, height
    if framing.pad_square:
        canvas_w = canvas_h = max(width, height)
        left, top = -((canvas_w - width) // 2), -((canvas_h - height) // 2)
    scaled_w, scaled_h = _scaled(canvas_w, canvas_h, framing)
    across, down = canvas_w / scaled_w, canvas_h / scaled_h
    crop_h, crop_w = framing.crop or (scaled_h, scaled_w)
    x, y = left + (scaled_w - crop_w) // 2 * across, top + (scaled_h - crop_h) // 2 * down
    covered = Box(x, y, x + cols * patch * across, y + rows * patch * down)
    return Grid(rows, cols, width, height, covered)


def _scaled(width: int, height: int, framing: Framing) -> tuple[int, int]:
    """Width and height after resizing, rounded as transformers does."""
    if framing.fixed:
        return framing.fixed[1], framing.fixed[0]
    if not framing.shortest_edge:
        return width, height
    short, long = min(width, height), max(width, height)
    longer = int(framing.shortest_edge * long / short)
    return (framing.shortest_edge, longer) if width <= height else (longer, framing.shortest_edge)
