"""What all models share that read a picture in tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from explorer.errors import ModelError
from explorer.records import Box, Edit, Grid
from explorer.sae import SAE, ActivationRule
from explorer.session import Session, View
from explorer.vlm import tiled
from explorer.vlm.tiled import resampled
from tests.vlm.families.made import made, names
from tests.vlm.families.test_contract import picture, seen

TILED = [name for name in names() if name.split("/")[0] in ("llava_next", "idefics3", "internvl")]


def test_values_are_shared_out_by_area() -> None:
    fine, coarse = Grid(2, 4, 8, 4, Box(0, 0, 8, 4)), Grid(1, 2, 8, 4, Box(0, 0, 8, 4))
    values = torch.arange(8.0)[None]
    assert resampled(values, fine, coarse).tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7]]
    third = Grid(1, 3, 9, 4, Box(0, 0, 9, 4))
    half = Grid(1, 2, 9, 4, Box(0, 0, 9, 4))
    torch.testing.assert_close(
        resampled(torch.tensor([[1.0, 1.0, 4.0]]), third, half), torch.tensor([[1.5, 4.5]])
    )


def test_what_lies_beside_the_other_grid_goes_to_the_nearest_patch() -> None:
    source, target = Grid(1, 4, 8, 2, Box(-4, 0, 12, 2)), Grid(1, 2, 8, 2, Box(0, 0, 8, 2))
    assert resampled(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), source, target).tolist() == [[3.0, 7.0]]
    right, fine = Grid(1, 3, 8, 2, Box(0, 0, 12, 2)), Grid(1, 4, 8, 2, Box(0, 0, 8, 2))
    assert resampled(torch.tensor([[1.0, 2.0, 4.0]]), right, fine).tolist() == [[0.5, 0.5, 1.0, 5.0]]


@pytest.mark.parametrize("size", [(64, 64), (150, 70), (61, 133)])
@pytest.mark.parametrize("name", TILED)
def test_a_look_at_one_token_falls_where_that_token_sees(name: str, size: tuple[int, int]) -> None:
    """A feature changes with some patches of one tile; attention to it must lie over their pixel boxes."""
    lvlm = made(name).lvlm
    prepared, hidden = seen(lvlm, picture(1, size), lvlm.read_block)
    grids = [(prepared.grid, prepared.places), *prepared.scales]
    calm = lvlm.features(hidden, lvlm.read_block, prepared)
    push = torch.randn(hidden.shape[1], generator=torch.Generator().manual_seed(2))
    for grid, places in grids:
        for row, col in {(0, 0), (grid.rows // 2, grid.cols // 3), (grid.rows - 1, grid.cols - 1)}:
            moved = hidden.clone()
            moved[places[row * grid.cols + col]] += push
            changed = (lvlm.features(moved, lvlm.read_block, prepared) - calm).norm(dim=1) > 1e-4
            box = grid.box_of(row, col)
            if not changed.any():  # the margin around a picture is left out
                assert box.left < 0 or box.top < 0 or box.right > size[0] or box.bottom > size[1]
                continue
            look = changed[None].float()
            assert changed.sum() == 1
            laid = lvlm._over_patches(look, prepared)
            assert laid.shape == (1, prepared.grid.rows * prepared.grid.cols)
            torch.testing.assert_close(laid.sum(), torch.tensor(1.0))
            middle = prepared.grid.patch_at(
                min(max((box.left + box.right) / 2, 0), size[0] - 1),
                min(max((box.top + box.bottom) / 2, 0), size[1] - 1),
            )
            if middle is not None:
                assert laid[0, middle.row * prepared.grid.cols + middle.col] > 0


@pytest.mark.parametrize("name", TILED)
def test_the_squashed_view_alone_is_part_of_the_whole(name: str) -> None:
    """The form of an index sees what the main grid shows, and its patches have the same boxes.

    Idefics3 squashes what it has stretched to whole tiles before: in so small a picture that is seen.
    """
    lvlm = made(name).lvlm
    image = picture(2, (150, 75))
    whole, alone = lvlm.preprocess(image), lvlm.preprocess(image, fixed=True)
    assert alone.grid == whole.grid and not alone.scales and len(whole.scales) > 1
    block = lvlm.read_block
    ours = alone.patches(lvlm.tower(alone.pixel_values, block, alone)[0])
    theirs = whole.patches(lvlm.tower(whole.pixel_values, block, whole)[0])
    apart = 0.03 if name.startswith("idefics3") else 1e-5
    assert float((ours - theirs).norm() / theirs.norm()) < apart


@pytest.mark.parametrize("name", TILED)
def test_without_knowing_the_tiles_nothing_goes_on(name: str) -> None:
    lvlm = made(name).lvlm
    _, hidden = seen(lvlm, picture(3), lvlm.read_block)
    with pytest.raises(ModelError, match="cut into tiles"):
        lvlm.features(hidden, lvlm.read_block)
    with pytest.raises(ModelError, match="cut into tiles"):
        lvlm._over_patches(torch.ones(1, len(hidden)), None)


@pytest.mark.parametrize("name", TILED)
def test_pictures_cut_otherwise_do_not_share_a_batch(name: str) -> None:
    lvlm = made(name).lvlm
    wide, tall = lvlm.preprocess(picture(4, (150, 70))), lvlm.preprocess(picture(4, (70, 150)))
    assert not wide.alike(tall) and wide.alike(lvlm.preprocess(picture(5, (150, 70))))


@pytest.mark.parametrize("name", TILED)
def test_a_neuron_alone_is_a_feature_of_its_own(name: str) -> None:
    """All patches alike: what one vector becomes does not depend on how many patches there are."""
    lvlm, block = made(name).lvlm, made(name).lvlm.read_block // 2
    vectors = torch.randn(3, lvlm.width(block), generator=torch.Generator().manual_seed(1))
    like = lvlm.canvas(30)
    assert like.grid.rows * like.grid.cols >= 16
    more = lvlm.features(vectors[:, None].repeat(1, like.tokens, 1), block, like)[:, 0]
    torch.testing.assert_close(lvlm.alone(vectors, block), more, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TILED)
def test_many_tiles_go_through_the_tower_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lvlm = made(name).lvlm
    prepared = lvlm.preprocess(picture(6, (150, 70)))
    pixels = torch.cat([prepared.pixel_values, lvlm.preprocess(picture(7, (150, 70))).pixel_values])
    together = lvlm.tower(pixels, 1, prepared)
    ready, most = lvlm.features(together, 1, prepared), []
    monkeypatch.setattr(tiled, "TOGETHER", 2 * prepared.tokens // prepared.pixel_values.shape[1])
    handle = lvlm.vision_blocks[0].register_forward_pre_hook(lambda _, args: most.append(len(args[0])))
    try:
        apart = lvlm.tower(pixels, 1, prepared)
    finally:
        handle.remove()
    assert max(most) == 2 and sum(most) == pixels.shape[0] * pixels.shape[1]
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lvlm.features(together, 1, prepared), ready, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TILED)
def test_an_edit_of_a_region_acts_there_in_every_tile(name: str) -> None:
    """In each tile those patches move whose centre lies in a marked patch, and no others."""
    lvlm = made(name).lvlm
    width, draw = lvlm.width(0), torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(2 * width, width, generator=draw), dim=1)
    sae = SAE(rows.T.clone(), torch.zeros(2 * width), rows, torch.zeros(width), ActivationRule("topk", k=4))
    session = Session(lvlm, sae.eval().requires_grad_(False))
    view = session.look(picture(8, (150, 90)))
    mask = np.zeros((view.grid.rows, view.grid.cols), bool)
    mask[: view.grid.rows // 2, 1:3] = True
    moved = (session.steered(view, [Edit(0, 7.0, "add", mask)]).hidden - view.hidden).norm(dim=1) > 0
    assert moved[view.prepared.places].tolist() == mask.ravel().tolist()
    left = 0
    for scale in view.prepared.scales:
        for place, patch in enumerate(scale.places.tolist()):
            box = scale.grid.box_of(*divmod(place, scale.grid.cols))
            cell = view.grid.patch_at((box.left + box.right) / 2, (box.top + box.bottom) / 2)
            assert bool(moved[patch]) == (cell is not None and bool(mask[cell]))
            left += int(moved[patch])
    assert left > mask.sum() and not moved[~torch.isin(torch.arange(len(moved)), _patches(view))].any()


def _patches(view: View) -> torch.Tensor:
    """All of the tower's tokens that are patches."""
    return torch.cat([view.prepared.places, *(scale.places for scale in view.prepared.scales)])
