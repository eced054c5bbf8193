"""Reads a picture the way a person sees it: upright, RGB, 8 bits, first frame, alpha over white.

Whatever cannot be read so is refused with an `ImageError` in plain words. Knows nothing of models.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from explorer.errors import ImageError

MAX_MEGAPIXELS = 64
"""Larger pictures are refused from their header, before any pixel is decoded."""

MAX_RATIO = 100
"""Longest over shortest side: a thinner strip has no grid of patches worth looking at."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO")
"""What is read. Others are left out on purpose: some run outside programs, some take any bytes."""

ImageInput = str | Path | bytes | Image.Image

# What Pillow's readers raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def load_image(source: ImageInput) -> Image.Image:
    """The picture as an upright 8-bit RGB image that owns its pixels.

    source: a path, the bytes of an image file, or a PIL image (which is left as it is).
    Raises ImageError when it is missing, empty, damaged, cut short, too large, or no picture.
    """
    if isinstance(source, Image.Image):
        _check_size(source.size)
        return _upright_rgb(source, "the picture")
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        if not data:
            raise ImageError("the picture is empty (0 bytes); choose another file")
        return _decode(io.BytesIO(data), "the picture")
    if isinstance(source, (str, Path)):
        return _read(source)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}; give a path, the bytes of a file or a PIL image"
    )


def _read(source: str | Path) -> Image.Image:
    path, name = Path(source), f"'{Path(source).name}'"
    try:
        if path.is_dir():
            raise ImageError(f"'{path}' is a folder; give the path of one picture")
        if not path.is_file():
            raise ImageError(f"there is no file '{path}'")
        if path.stat().st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes); choose another file")
        with path.open("rb") as file:
            return _decode(file, name)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot open {name}: {error}") from error


def _decode(file: BinaryIO, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except _BOMB as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(f"{int(found[1]) / 1e6:,.0f} megapixels" if found else "far more") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture, or is too damaged to tell; use PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from error
    except _DAMAGE as error:
        raise _damaged(name, error) from error
    with image:
        _check_size(image.size)
        return _upright_rgb(image, name)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"the picture has no pixels ({width} x {height})")
    megapixels = width * height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise _too_large(f"{width:,} x {height:,} pixels ({megapixels:,.0f} megapixels)")
    if max(size) > MAX_RATIO * min(size):
        raise ImageError(
            f"the picture is {width:,} x {height:,} pixels: too thin a strip "
            f"(at most {MAX_RATIO} to 1); crop it first"
        )


def _too_large(found: str) -> ImageError:
    return ImageError(
        f"the picture is {found}; the limit is {MAX_MEGAPIXELS} megapixels: scale it down first"
    )


def _damaged(name: str, error: BaseException) -> ImageError:
    return ImageError(f"{name} is damaged or cut short and cannot be read ({error}); choose another file")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        eight_bit = _eight_bit(_transposed(image))
        if eight_bit.has_transparency_data:
            colours = eight_bit.convert("RGBA")
            paper = Image.new("RGBA", colours.size, "white")
            result = Image.alpha_composite(paper, colours).convert("RGB")
        else:
            result = eight_bit.convert("RGB")
    except _BOMB as error:
        raise _too_large("larger inside than its header says") from error
    except _DAMAGE as error:
        raise _damaged(name, error) from error
    if result is image:
        result = image.copy()
    result.info = {}
    return result


def _transposed(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation asks; unreadable EXIF is as good as none."""
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Modes with more than 8 bits, scaled to 8 by the range of the values; other modes as they are.

    16-bit modes have the range 0..65535. For 32-bit integers and floats it is the smallest usual
    range (1 for floats, 255, 65535) that holds all values, else their own maximum.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        peak = float(values.max())
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        top = next((limit for limit in usual if peak <= limit), peak)
    scaled = np.clip(values * np.float32(255.0 / top) + np.float32(0.5), 0, 255)
    return Image.fromarray(scaled.astype(np.uint8), "L")
