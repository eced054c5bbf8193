"""A picture whose pixels say where they are, and how far a tile's patches are from where they should be."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from explorer.records import Grid


def ramp(width: int, height: int) -> Image.Image:
    """Red grows from left to right and green from top to bottom, from 40 to 250."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(40, 250, width).round()[None, :]
    pixels[..., 1] = np.linspace(40, 250, height).round()[:, None]
    return Image.fromarray(pixels)


def astray(values: torch.Tensor, grid: Grid, patch: int, processor: object) -> float:
    """The largest difference, in grey levels, between a tile's patches and what their boxes promise.

    values [3, S, S]: normalised by the image processor. Patches wholly outside the picture must be black,
    those partly outside are left out.
    """
    levels = values.numpy() * np.array(processor.image_std)[:, None, None]
    levels = (levels + np.array(processor.image_mean)[:, None, None]) * 255
    levels = levels[:, : grid.rows * patch, : grid.cols * patch]
    mean = levels.reshape(3, grid.rows, patch, grid.cols, patch).mean((2, 4))
    worst = 0.0
    for row in range(grid.rows):
        for col in range(grid.cols):
            box = grid.box_of(row, col)
            found = mean[:2, row, col]
            x, y = (box.left + box.right) / 2 - 0.5, (box.top + box.bottom) / 2 - 0.5
            promised = 40 + 210 * np.array([x / max(grid.width - 1, 1), y / max(grid.height - 1, 1)])
            near = 1e-6
            if box.right < near or box.bottom < near:
                promised = np.zeros(2)
            elif box.left > grid.width - near or box.top > grid.height - near:
                promised = np.zeros(2)
            elif box.left < -near or box.top < -near:
                continue
            elif box.right > grid.width + near or box.bottom > grid.height + near:
                continue
            worst = max(worst, float(abs(found - promised).max()))
    return worst
