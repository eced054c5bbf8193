"""Colours a patch map. Knows numpy arrays and picture bytes; nothing of pages.

The ramp runs from dark violet over teal to yellow: it grows steadily in lightness, so it reads the same
with any kind of colour vision and in grey.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from PIL import Image

RAMP = ((60, 16, 84), (56, 88, 140), (32, 144, 140), (108, 204, 92), (253, 231, 37))
"""RGB at 0, 1/4, 1/2, 3/4 and 1 of the scale."""

LEAST_ALPHA, MOST_ALPHA = 0.3, 0.8
"""How much of the picture the heat hides at 0 and at the maximum: quiet patches sink back, loud ones glow."""


def ramp_css() -> str:
    """The ramp as a CSS gradient, for legends."""
    return f"linear-gradient(90deg, {', '.join(f'rgb{color}' for color in RAMP)})"


def _colours() -> np.ndarray:
    """The ramp in 256 steps with its opacity, (256, 4) uint8."""
    share, stops = np.linspace(0.0, 1.0, 256), np.linspace(0.0, 1.0, len(RAMP))
    channels = [np.interp(share, stops, [color[i] for color in RAMP]) for i in range(3)]
    alpha = 255 * (LEAST_ALPHA + (MOST_ALPHA - LEAST_ALPHA) * share)
    return np.stack([*channels, alpha], -1).round().astype(np.uint8)


COLOURS = _colours()


def levels(values: np.ndarray, peak: float | None = None) -> np.ndarray:
    """A map as uint8 steps of the ramp, 0 for 0 and below; `peak` is the top of the scale, or its maximum."""
    values = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max()) if peak is None else peak
    share = np.clip(values / top, 0.0, 1.0) if top > 0 else np.zeros_like(values)
    return (255 * share).round().astype(np.uint8)


def heat_rgba(values: np.ndarray, peak: float | None = None) -> np.ndarray:
    """(rows, cols, 4) uint8 colours of a (rows, cols) map; `peak` is the top of the scale, or its maximum."""
    return COLOURS[levels(values, peak)]


def lay_over(picture: Image.Image, values: np.ndarray, peak: float | None = None) -> Image.Image:
    """An RGB picture with the smooth heat of a map that spans it laid over it."""
    smooth = Image.fromarray(levels(values, peak)).resize(picture.size, Image.Resampling.BILINEAR)
    colours = Image.fromarray(COLOURS[np.asarray(smooth)])
    heated = picture.copy()
    heated.paste(colours, (0, 0), colours)
    return heated


def png(rgba: np.ndarray) -> bytes:
    """A PNG of (rows, cols, 4) uint8, one pixel a patch; the browser enlarges it."""
    rows, cols = rgba.shape[:2]
    lines = np.zeros((rows, 1 + 4 * cols), np.uint8)
    lines[:, 1:] = rgba.reshape(rows, -1)
    header = struct.pack(">IIBBBBB", cols, rows, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(data: bytes) -> str:
    """Picture bytes as a data URI, its type told from the first bytes."""
    if data.startswith(b"\x89PNG"):
        kind = "png"
    elif data.startswith(b"RIFF"):
        kind = "webp"
    else:
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def heat_uri(values: np.ndarray, peak: float | None = None) -> str:
    """The coloured map as a data URI."""
    return data_uri(png(heat_rgba(values, peak)))
