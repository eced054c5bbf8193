"""Pixel boxes are true: paint inside one patch's box, and that patch's embedding is the one that moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from explorer.errors import ModelError
from explorer.records import Grid
from explorer.vlm import open_lvlm
from explorer.vlm.families.llava import Llava
from explorer.vlm.grid import Framing, framing_of, grid_of
from explorer.vlm.hooks import capture

SIZES = [
    (32, 32),
    (320, 320),
    (70, 40),
    (40, 70),
    (200, 33),
    (33, 200),
    (97, 96),
    (13, 17),
    (451, 318),
    (32, 133),
]


@pytest.fixture(scope="module")
def lvlm(tiny_lvlm_folder: Path) -> Llava:
    return open_lvlm(tiny_lvlm_folder)


def embeddings(lvlm: Llava, pixels: torch.Tensor) -> torch.Tensor:
    """Patch embeddings [rows * cols, width], before any attention mixes them."""
    embed = lvlm.model.model.vision_tower.embeddings
    with torch.no_grad(), capture(embed) as seen:
        embed(pixels)
    return seen.output[0, 1:]


def changes(lvlm: Llava, image: Image.Image, area: tuple[float, float, float, float]) -> np.ndarray:
    """How much each patch moves when the area (at least one pixel of it) is painted."""
    left, top, right, bottom = (round(edge) for edge in area)
    painted = image.copy()
    painted.paste((255, 0, 255), (left, top, max(right, left + 1), max(bottom, top + 1)))
    before = embeddings(lvlm, lvlm.preprocess(image).pixel_values)
    after = embeddings(lvlm, lvlm.preprocess(painted).pixel_values)
    return (after - before).norm(dim=1).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_painting_a_patchs_box_moves_that_patch(lvlm: Llava, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (60, 120, 60))
    grid = lvlm.preprocess(image).grid
    assert (grid.rows, grid.cols, grid.width, grid.height) == (4, 4, *size)
    for row in range(4):
        for col in range(4):
            moved = changes(lvlm, image, grid.box_of(row, col))
            assert moved.argmax() == row * 4 + col
            # Smooth resizing bleeds a little over the edge, never as much as half.
            assert np.sort(moved)[-2] < 0.6 * moved.max()


def test_at_model_size_nothing_else_moves(lvlm: Llava) -> None:
    image = Image.new("RGB", (32, 32), "grey")
    grid = lvlm.preprocess(image).grid
    for row, col in [(0, 0), (1, 3), (3, 2)]:
        moved = changes(lvlm, image, grid.box_of(row, col))
        assert np.flatnonzero(moved).tolist() == [row * 4 + col]


@pytest.mark.parametrize("size", [(90, 40), (40, 90)])
def test_the_margins_of_the_crop_are_unseen(lvlm: Llava, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "grey")
    grid = lvlm.preprocess(image).grid
    assert grid.patch_at(2, 2) is None and grid.patch_at(size[0] - 3, size[1] - 3) is None
    assert not changes(lvlm, image, (0, 0, 15, 15)).any()
    centre = grid.patch_at(size[0] / 2 + 1, size[1] / 2 + 1)
    assert centre == (2, 2)


def test_the_model_size_need_not_be_square(tiny_lvlm_folder: Path) -> None:
    wide = open_lvlm(tiny_lvlm_folder)
    wide.processor.image_processor.crop_size = {"height": 32, "width": 48}
    grid = wide.preprocess(Image.new("RGB", (64, 32))).grid
    assert (grid.rows, grid.cols, grid.covered) == (4, 6, (8, 0, 56, 32))


def paint_and_find(processor: object, size: tuple[int, int], patch: int) -> None:
    """The same check by pixel values alone, for processors that no tiny model uses."""
    image = Image.new("RGB", size, (60, 120, 60))

    def cells(picture: Image.Image) -> torch.Tensor:
        pixels = processor(images=[picture], return_tensors="pt")["pixel_values"][0]
        return pixels.unfold(1, patch, patch).unfold(2, patch, patch).sum(dim=(0, 3, 4))

    before = cells(image)
    rows, cols = before.shape
    grid = grid_of(*size, framing_of(processor), rows, cols, patch)
    for row in range(rows):
        for col in range(cols):
            box = [round(edge) for edge in grid.box_of(row, col)]
            inside = (max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1]))
            if inside[2] - inside[0] < 2 or inside[3] - inside[1] < 2:
                continue
            painted = image.copy()
            painted.paste((255, 0, 255), inside)
            moved = (cells(painted) - before).abs()
            assert int(moved.argmax()) == row * cols + col


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["squash", "pad", "squash and crop", "crop only"])
def test_other_framings(kind: str, size: tuple[int, int]) -> None:
    square = {"height": 32, "width": 32}
    processor = {
        "squash": CLIPImageProcessorPil(size=square, do_center_crop=False),
        "pad": LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size=square, do_pad=True),
        "squash and crop": CLIPImageProcessorPil(size={"height": 40, "width": 48}, crop_size=square),
        "crop only": CLIPImageProcessorPil(do_resize=False, crop_size=square),
    }[kind]
    paint_and_find(processor, size, 8)


@pytest.mark.parametrize(
    ("framing", "words"),
    [
        (Framing(fixed=(32, 48)), "squash to 48 x 32"),
        (Framing(shortest_edge=40, crop=(32, 48)), "shorter side to 40, crop the middle 48 x 32"),
        (Framing(True, 32, crop=(32, 32)), "pad to a square, shorter side to 32, crop the middle 32 x 32"),
    ],
)
def test_a_framing_in_words(framing: Framing, words: str) -> None:
    """Stores of pictures that were framed otherwise are told apart by it."""
    assert framing.words() == words


def test_a_processor_of_varying_size_is_refused() -> None:
    with pytest.raises(ModelError, match="varying size"):
        framing_of(CLIPImageProcessorPil(do_center_crop=False))
    with pytest.raises(ModelError, match="resizes to"):
        framing_of(CLIPImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_every_patch_is_found_at_its_own_centre(width: int, height: int) -> None:
    grid: Grid = grid_of(width, height, Framing(shortest_edge=112, crop=(112, 112)), 14, 14, 8)
    box = grid.covered
    assert (
        -1e-6 <= box.left and box.right <= width + 1e-6 and -1e-6 <= box.top and box.bottom <= height + 1e-6
    )
    for row, col in [(0, 0), (0, 13), (13, 0), (6, 7), (13, 13)]:
        left, top, right, bottom = grid.box_of(row, col)
        assert grid.patch_at((left + right) / 2, (top + bottom) / 2) == (row, col)
