"""Sprites: loading, colour variants, and fitting one into a scene. Knows nothing of scenes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from explorer.errors import WorldError
from explorer.world.concepts import HUES

SPRITES = Path(__file__).parents[2] / "assets" / "sprites"
STYLES = ("noto", "fluent_flat")


@cache
def sprite(style: str, concept: str, color: str | None = None, brightness: float = 1.0) -> Image.Image:
    """The sprite of a concept in one style, recoloured when `color` is given, dimmed or lit, as RGBA.

    Raises WorldError when the style or the sprite does not exist.
    """
    if style not in STYLES:
        raise WorldError(f"unknown style {style!r}; the drawn world has {', '.join(STYLES)}")
    path = SPRITES / style / f"{concept}.png"
    if not path.is_file():
        raise WorldError(f"no sprite of {concept!r} in style {style!r}")
    image = Image.open(path).convert("RGBA")
    if color is not None:
        image = recolor(image, color)
    if brightness != 1.0:
        image = image.point([min(255, round(v * brightness)) for v in range(256)] * 3 + list(range(256)))
    return image


def recolor(image: Image.Image, color: str) -> Image.Image:
    """The sprite with its dominant hue turned to `color`; other hues (a leaf, a tyre) stay.

    Black and white are made by value instead of hue.
    """
    alpha = image.getchannel("A")
    hsv = np.array(image.convert("RGB").convert("HSV")).astype(np.float32) / 255
    hue, sat, val = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    vivid = (sat > 0.10) & (val > 0.2) & (np.asarray(alpha) > 40)
    weights = (sat * val)[vivid]
    bins = np.bincount((hue[vivid] * 24).astype(int) % 24, weights=weights, minlength=24)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    dominant = (float(smooth.argmax()) + 0.5) / 24
    distance = np.abs((hue - dominant + 0.5) % 1 - 0.5)
    part = vivid & (distance < 0.13)
    if color == "black":
        sat, val = np.where(part, sat * 0.25, sat), np.where(part, val * 0.26, val)
    elif color == "white":
        sat, val = np.where(part, sat * 0.08, sat), np.where(part, 0.55 + 0.43 * val, val)
    else:
        hue = np.where(part, HUES[color], hue)
        sat = np.where(part, 0.35 + 0.62 * sat, sat)
        val = np.where(part, 0.25 + 0.75 * val, val)
    turned = Image.fromarray((np.stack([hue, sat, val], -1) * 255 + 0.5).astype(np.uint8), "HSV")
    result = turned.convert("RGB").convert("RGBA")
    result.putalpha(alpha)
    return result


def fitted(source: Image.Image, side: int, mirror: bool, angle: float) -> Image.Image:
    """The sprite at a long side of `side` px, mirrored, turned by `angle` degrees."""
    scale = side / max(source.size)
    size = (max(1, round(source.width * scale)), max(1, round(source.height * scale)))
    image = source.resize(size, Image.Resampling.BILINEAR)
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        image = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    return image
