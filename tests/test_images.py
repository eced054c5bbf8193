"""Pictures as people have them: turned, deep, transparent, moving, damaged, huge, or none at all."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ImageError
from explorer.images import load_image

RAMP = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
PICTURE = Image.fromarray(RAMP)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(tag: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def pixels(source: object) -> np.ndarray:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_path_bytes_and_pil_give_the_same_pixels(tmp_path: Path) -> None:
    data = encode(PICTURE, "PNG")
    path = tmp_path / "a picture with spaces.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), PICTURE):
        assert np.array_equal(pixels(source), RAMP)


def test_the_result_owns_its_pixels() -> None:
    image = PICTURE.copy()
    result = load_image(image)
    result.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) == tuple(RAMP[0, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = pixels(encode(PICTURE, "PNG", exif=exif))
    upright = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.transpose(1, 0, 2),
        6: np.rot90(RAMP, -1),
        7: RAMP[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RAMP, 1),
    }[orientation]
    assert np.array_equal(got, upright)


def test_a_turned_picture_is_not_turned_twice() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = load_image(encode(PICTURE, "JPEG", exif=exif))
    assert once.size == (23, 31)
    assert load_image(once).size == (23, 31)


def test_unreadable_exif_does_not_hide_the_picture() -> None:
    data = encode(PICTURE, "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert np.array_equal(pixels(data), RAMP)


def test_cmyk() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    for source in (red, encode(red, "JPEG", quality=95), encode(red, "TIFF")):
        assert np.abs(pixels(source)[8, 8].astype(int) - (200, 30, 40)).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    deep = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    got = pixels(encode(Image.fromarray(deep), kind))
    assert np.array_equal(got[..., 0].ravel(), np.arange(256))
    assert np.array_equal(got[..., 0], got[..., 2])


@pytest.mark.parametrize("peak", [255, 65535, 1_000_000])
def test_32_bit_integers_are_scaled_by_their_range(peak: int) -> None:
    values = np.linspace(0, peak, 256).round().astype(np.int32).reshape(16, 16)
    got = pixels(Image.fromarray(values, "I"))
    assert np.abs(got[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_floats_are_scaled_and_nan_is_black(peak: float) -> None:
    values = np.linspace(0, peak, 256, dtype=np.float32).reshape(16, 16)
    values[0, 5] = np.nan
    expected = np.arange(256)
    expected[5] = 0
    assert np.array_equal(pixels(Image.fromarray(values))[..., 0].ravel(), expected)


def test_16_bit_colour_png() -> None:
    row = b"\x00" + struct.pack(">3H", 0xFFFF, 0x8000, 0x0000) * 4
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 4))
        + chunk(b"IEND", b"")
    )
    assert tuple(pixels(data)[1, 1]) == (255, 128, 0)


def test_alpha_is_laid_over_white() -> None:
    image = Image.new("RGBA", (4, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (255, 0, 0, 128))
    got = pixels(encode(image, "PNG"))[0]
    assert tuple(got[0]) == (0, 0, 0)
    assert tuple(got[1]) == (255, 255, 255)
    assert got[2][0] == 255 and abs(int(got[2][1]) - 127) <= 1
    grey = Image.new("LA", (1, 1), (0, 0))
    assert tuple(pixels(grey)[0, 0]) == (255, 255, 255)


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    got = pixels(encode(image, "PNG", transparency=0))[0]
    assert tuple(got[0]) == (255, 255, 255)
    assert tuple(got[1]) == (200, 100, 50)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    assert pixels(white).min() >= 253


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.abs(pixels(data)[8, 8].astype(int) - (255, 0, 0)).max() <= 2


def test_empty_and_not_a_picture(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    for source in (b"", empty):
        with pytest.raises(ImageError, match="0 bytes"):
            load_image(source)
    for data in (
        b"hello, this is a text file",
        b"%PDF-1.7 ...",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    ):
        with pytest.raises(ImageError, match="not a picture"):
            load_image(data)


def test_missing_folder_and_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no file"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError):
        load_image("bad\0name.png")
    for wrong in (None, 7, [1, 2], RAMP):
        with pytest.raises(ImageError, match="cannot read a picture from"):
            load_image(wrong)


def hollow_png(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that are not there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ((50_000, 50_000), "2,500 megapixels"),
        ((10_000, 10_000), "10,000 x 10,000"),
        ((8_001, 8_000), "8,001 x 8,000"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_from_the_header(size: tuple[int, int], found: str) -> None:
    # There is no pixel data at all: had anything been decoded, the message would speak of damage.
    with pytest.raises(ImageError, match=found) as caught:
        load_image(hollow_png(*size))
    assert "64 megapixels" in str(caught.value)


def test_the_limit_itself_is_allowed_by_size() -> None:
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_image(hollow_png(8_000, 8_000))


@pytest.mark.parametrize("size", [(1, 101), (5_000, 3)])
def test_thin_strips_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="too thin"):
        load_image(Image.new("RGB", size))


def test_no_pixels() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        load_image(Image.new("RGB", (0, 5)))


FILES = {kind: encode(PICTURE, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")}


@pytest.mark.parametrize("kind", FILES)
def test_cut_short_is_refused_or_lost_nothing(kind: str) -> None:
    whole = pixels(FILES[kind])
    with pytest.raises(ImageError):
        load_image(FILES[kind][: len(FILES[kind]) // 2])
    for cut in range(1, len(FILES[kind]), max(1, len(FILES[kind]) // 40)):
        try:
            got = pixels(FILES[kind][:cut])
        except ImageError:
            continue
        assert np.array_equal(got, whole), f"{kind} cut to {cut} bytes was read with other pixels"


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=12),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_escape_as_another_error(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        assert load_image(bytes(data)).mode == "RGB"
    except ImageError as error:
        assert str(error)
