"""Pictures as people have them, for every family: tiny ones, strips, other colours, turned by the camera."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from explorer.errors import ImageError
from explorer.images import load_image
from tests.vlm.families.made import made, names
from tests.vlm.families.test_contract import PROMPT, picture
from tests.vlm.families.test_half import session_of

SIZES = ((1, 1), (2, 1), (1, 100), (2000, 20), (7, 700), (13, 900))
MODES = ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F")


def of_size(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def in_mode(mode: str) -> Image.Image:
    plain = picture(1, (90, 60))
    if mode == "I;16":
        return Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    return plain.convert(mode)


def turned() -> bytes:
    """90 x 60 as stored, 60 x 90 as it is to be seen."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture(1, (90, 60)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("name", names())
def test_odd_pictures_are_seen_and_answered_about(name: str) -> None:
    """Of every size in every family; of every kind in one, since all are read by the same code first."""
    lvlm = made(name).lvlm
    session = session_of(lvlm)
    kinds = map(in_mode, MODES) if name == names()[0] else ()
    for given in (*map(of_size, SIZES), *kinds, turned()):
        view, image = session.look(given), load_image(given)
        assert (view.grid.width, view.grid.height) == image.size
        assert view.map(view.top(1)[0].neuron).shape == (view.grid.rows, view.grid.cols)
        assert session.answer(view, PROMPT, max_new_tokens=2) == lvlm.answer_plain(image, PROMPT, 2)
        assert lvlm.preprocess(image, fixed=True).alike(lvlm.preprocess(picture(), fixed=True))


@pytest.mark.parametrize("size", [(1, 2000), (4000, 20)])
def test_strips_without_a_grid_are_refused_in_plain_words(size: tuple[int, int]) -> None:
    session = session_of(made("llava/clip").lvlm)
    with pytest.raises(ImageError, match="too thin a strip"):
        session.look(of_size(size))


def test_a_turned_photograph_stands_upright() -> None:
    view = session_of(made("qwen/qwen2").lvlm).look(turned())
    assert (view.grid.width, view.grid.height) == (60, 90) and view.grid.rows > view.grid.cols
