"""A batch of pictures takes a bounded share of the memory: it goes through the tower in parts."""

from __future__ import annotations

import pytest
import torch

from explorer.vlm import seeing, tiled
from explorer.vlm.seeing import TOGETHER
from tests.vlm.families.made import made, names
from tests.vlm.families.test_contract import counted, picture


@pytest.mark.parametrize("name", names())
def test_a_batch_in_parts_is_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what later blocks need of earlier ones (Qwen3-VL's taps) of every picture."""
    lvlm = made(name).lvlm
    ready = [lvlm.preprocess(picture(seed), fixed=True) for seed in range(3)]
    pixels, like = torch.cat([one.pixel_values for one in ready]), ready[0].form()
    with counted(lvlm) as ran:
        together = lvlm.tower(pixels, lvlm.read_block, like)
    assert ran.count(0) == 1
    for module in (seeing, tiled):
        monkeypatch.setattr(module, "TOGETHER", 1)
    with counted(lvlm) as ran:
        apart = lvlm.tower(pixels, lvlm.read_block, like)
    assert ran.count(0) == 3
    torch.testing.assert_close(apart, together, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", names())
def test_the_batches_of_the_commands_fit_as_they_are(name: str) -> None:
    """32 pictures of the fixed form, as index and training read them, of the published sizes: 577 tokens
    of CLIP's, 1,024 of Qwen's, 1,025 of InternVL's."""
    lvlm = made(name).lvlm
    prepared = lvlm.preprocess(picture(), fixed=True)
    tokens = prepared.grid.rows * prepared.grid.cols
    if isinstance(lvlm, tiled.Tiled):
        assert lvlm._at_once(prepared.pixel_values) == TOGETHER // tokens
    else:
        assert tokens <= lvlm._tokens(prepared.pixel_values) <= tokens + 2 * prepared.grid.cols + 1
    assert 32 * 1024 <= TOGETHER
