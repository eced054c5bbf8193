"""Themed, textured backgrounds, drawn at any size from a few random numbers.

The random numbers are drawn before the size matters, so one seed gives the same place at
every resolution. Knows nothing of what stands in front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

Color = tuple[float, float, float]
_GRAIN = 28


class Dice(NamedTuple):
    """All randomness of one background: u (12 uniforms) and a coarse noise field (28 x 28)."""

    u: np.ndarray
    noise: np.ndarray


def roll(rng: np.random.Generator) -> Dice:
    """Draw the randomness of one background."""
    return Dice(rng.random(12), rng.random((_GRAIN, _GRAIN), dtype=np.float32))


class Canvas:
    """A picture in the making, in unit coordinates (0..1 from the top left)."""

    def __init__(self, size: int, dice: Dice) -> None:
        field = Image.fromarray((dice.noise * 255).astype(np.uint8))
        self.size, self.u = size, dice.u
        self.noise = np.asarray(field.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255 - 0.5
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.y, self.x = axis[:, None], axis[None, :]
        self.pixels = np.zeros((size, size, 3), np.float32)

    def fill(self, color: Color, grain: float = 0.12) -> None:
        """Cover everything with a grained colour (components 0..1)."""
        self.pixels[:] = np.asarray(color, np.float32) * (1 + grain * self.noise[..., None])

    def band(self, top: float, bottom: float, color: Color, grain: float = 0.12) -> None:
        """A horizontal band of a grained colour."""
        a, b = round(max(0, top) * self.size), round(min(1, bottom) * self.size)
        shade = 1 + grain * self.noise[a:b, :, None]
        self.pixels[a:b] = np.asarray(color, np.float32) * shade

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """A plain rectangle."""
        s = self.size
        rows = slice(round(max(0, top) * s), round(min(1, bottom) * s))
        cols = slice(round(max(0, left) * s), round(min(1, right) * s))
        self.pixels[rows, cols] = color

    def tint(self, mask: np.ndarray, factor: float) -> None:
        """Multiply the brightness where the mask holds."""
        self.pixels[np.broadcast_to(mask, self.pixels.shape[:2])] *= factor


def _table(c: Canvas) -> None:
    wood = (0.55 + 0.2 * c.u[0], 0.36 + 0.14 * c.u[1], 0.2 + 0.1 * c.u[2])
    c.fill(wood, 0.25)
    planks = (c.x * (4 + int(3 * c.u[3])) + c.u[4]) % 1
    c.tint(planks < 0.05, 0.72)
    c.tint(np.sin((c.y * 9 + c.noise * 2) * 6.3) > 0.9, 0.92)


def _farm(c: Canvas) -> None:
    horizon = 0.22 + 0.2 * c.u[0]
    c.band(0, horizon, (0.55 + 0.2 * c.u[1], 0.78, 0.93), 0.05)
    c.band(horizon, 1, (0.42 + 0.15 * c.u[2], 0.62 + 0.1 * c.u[3], 0.26), 0.45)
    fence = (c.y > horizon - 0.05) & (c.y < horizon + 0.06)
    c.pixels[fence[:, 0]] = np.where(
        ((c.x * 14 + c.u[4]) % 1 < 0.18)[..., None], (0.5, 0.36, 0.24), c.pixels[fence[:, 0]]
    )
    c.tint((c.y > horizon) & (np.sin(c.y * 60 + c.noise * 9) > 0.85), 0.88)


def _court(c: Canvas) -> None:
    ground = ((0.24, 0.5, 0.36), (0.72, 0.42, 0.3), (0.25, 0.42, 0.62))[int(c.u[0] * 3)]
    c.fill(ground, 0.12)
    c.band(0, 0.08 + 0.14 * c.u[1], (0.3, 0.34, 0.38), 0.1)
    line = 0.9, 0.9, 0.88
    x, y = 0.1 + 0.25 * c.u[2], 0.32 + 0.2 * c.u[3]
    c.box(x, 0.2, x + 0.018, 1, line)
    c.box(1 - x, 0.2, 1 - x + 0.018, 1, line)
    c.box(0, y, 1, y + 0.018, line)
    c.box(0, 0.88, 1, 0.898, line)


def _street(c: Canvas) -> None:
    road = 0.55 + 0.15 * c.u[0]
    c.band(0, road, (0.7, 0.8 + 0.1 * c.u[1], 0.9), 0.05)
    left = 0.0
    for i in range(5):
        width, top = 0.14 + 0.12 * c.u[2 + i], 0.06 + 0.3 * c.u[(5 + i) % 12]
        tone = 0.45 + 0.3 * c.u[(7 + i) % 12]
        c.box(left, top, left + width, road, (tone, tone * 0.94, tone * 0.88))
        left += width
    windows = ((c.x * 16) % 1 < 0.4) & ((c.y * 14) % 1 < 0.4) & (c.y > 0.3) & (c.y < road - 0.05)
    c.tint(windows, 0.82)
    c.band(road - 0.05, road, (0.68, 0.67, 0.65), 0.15)
    c.band(road, 1, (0.36, 0.37, 0.4), 0.2)
    dash = (np.abs(c.y - (road + 1) / 2) < 0.012) & ((c.x * 5 + c.u[11]) % 1 < 0.55)
    c.pixels[dash] = (0.88, 0.86, 0.72)


def _living_room(c: Canvas) -> None:
    floor = 0.62 + 0.15 * c.u[0]
    wall = (0.75 + 0.2 * c.u[1], 0.72 + 0.15 * c.u[2], 0.62 + 0.25 * c.u[3])
    c.band(0, floor, wall, 0.06)
    c.tint((c.y < floor) & ((c.x * (6 + int(6 * c.u[4]))) % 1 < 0.5), 0.95)
    c.band(floor - 0.025, floor, (0.93, 0.92, 0.9), 0)
    c.band(floor, 1, (0.58 + 0.12 * c.u[5], 0.42, 0.3), 0.2)
    c.tint((c.y > floor) & (((c.y - floor) * 18) % 1 < 0.08), 0.8)


def _beach(c: Canvas) -> None:
    horizon, shore = 0.2 + 0.15 * c.u[0], 0.45 + 0.2 * c.u[1]
    c.band(0, horizon, (0.6 + 0.15 * c.u[2], 0.82, 0.96), 0.05)
    c.band(horizon, shore, (0.15, 0.5 + 0.12 * c.u[3], 0.68), 0.2)
    c.band(shore, 1, (0.88, 0.78 + 0.06 * c.u[4], 0.58), 0.16)
    foam = np.abs(c.y - shore - 0.02 * np.sin(c.x * 20 + 6 * c.u[5])) < 0.014
    c.pixels[foam] = (0.95, 0.97, 0.97)
    c.tint((c.y > horizon) & (c.y < shore - 0.03) & (np.sin(c.y * 90 + c.noise * 8) > 0.8), 1.18)


def _garden(c: Canvas) -> None:
    c.fill((0.3 + 0.1 * c.u[0], 0.5 + 0.1 * c.u[1], 0.24), 0.55)
    hedge = 0.16 + 0.18 * c.u[2]
    c.band(0, hedge, (0.17, 0.36 + 0.08 * c.u[3], 0.19), 0.8)
    c.tint((c.y > hedge) & (c.noise > 0.28), 1.25)
    left = 0.2 + 0.4 * c.u[4]
    path = (c.y > hedge) & (
        np.abs(c.x - left - 0.3 * (c.y - hedge) * (c.u[5] - 0.5)) < 0.05 + 0.1 * (c.y - hedge)
    )
    c.pixels[path] = np.asarray((0.68, 0.6, 0.5), np.float32) * (1 + 0.3 * c.noise[path][:, None])


def _wardrobe(c: Canvas) -> None:
    tone = 0.72 + 0.2 * c.u[0]
    c.fill((tone, tone * (0.86 + 0.1 * c.u[1]), tone * 0.75), 0.14)
    doors = (c.x * 3 + 0.5 * c.u[2]) % 1
    c.tint(doors < 0.03, 0.7)
    c.tint((doors > 0.12) & (doors < 0.92) & (c.y > 0.24) & (c.y < 0.9), 0.93)
    rail = 0.08 + 0.08 * c.u[3]
    c.box(0, rail, 1, rail + 0.022, (0.5, 0.5, 0.54))
    c.band(0.93, 1, (0.5, 0.36, 0.28), 0.2)


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "dining table": _table,
    "farm": _farm,
    "sports court": _court,
    "street": _street,
    "living room": _living_room,
    "beach": _beach,
    "garden": _garden,
    "wardrobe": _wardrobe,
}


def background(theme: str, size: int, dice: Dice) -> Image.Image:
    """The place of a scene as an RGB picture of size x size pixels."""
    canvas = Canvas(size, dice)
    PAINTERS[theme](canvas)
    canvas.pixels *= 0.88 + 0.24 * dice.u[11]
    return Image.fromarray((np.clip(canvas.pixels, 0, 1) * 255).astype(np.uint8))
