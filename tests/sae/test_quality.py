"""How much of each picture an SAE leaves unexplained, against the plain formula."""

from __future__ import annotations

import pytest
import torch

from explorer.sae import SAE, ActivationRule
from explorer.sae.quality import unexplained

DRAW = torch.Generator().manual_seed(3)
DIRECTIONS = torch.randn(24, 6, generator=DRAW)
SAE_ = SAE(
    DIRECTIONS.T, torch.zeros(24), DIRECTIONS, torch.zeros(6), ActivationRule("topk", k=3)
).requires_grad_(False)


def test_each_picture_is_measured_against_its_own_mean() -> None:
    patches = torch.randn(3, 5, 6, generator=DRAW) + torch.tensor([0.0, 4.0, -9.0])[:, None, None]
    found = unexplained(SAE_, patches, SAE_.encode_sparse(patches.reshape(-1, 6)))
    assert len(found) == 3
    for picture, share in zip(patches, found, strict=True):
        error = (picture - SAE_(picture)).square().sum()
        spread = (picture - picture.mean(0)).square().sum()
        assert share == pytest.approx(float(error / spread), rel=1e-4)
        alone = unexplained(SAE_, picture[None], SAE_.encode_sparse(picture))
        assert alone == pytest.approx([share], rel=1e-5)


def test_a_perfect_sae_leaves_nothing_and_a_silent_one_what_its_bias_leaves() -> None:
    both = torch.cat([torch.eye(4), -torch.eye(4)])
    patches = torch.randn(2, 7, 4, generator=DRAW)
    perfect = SAE(both.T, torch.zeros(8), both, torch.zeros(4), ActivationRule("relu"))
    codes = perfect.encode_sparse(patches.reshape(-1, 4))
    assert unexplained(perfect, patches, codes) == pytest.approx([0.0, 0.0], abs=1e-9)
    mean = patches[0].mean(0)
    silent = SAE(both.T, torch.full((8,), -1e6), both, mean, ActivationRule("relu"))
    codes = silent.encode_sparse(patches[0])
    assert unexplained(silent, patches[:1], codes) == pytest.approx([1.0], rel=1e-5)


def test_a_flat_picture_gives_a_number() -> None:
    flat = torch.zeros(1, 4, 6)
    assert unexplained(SAE_, flat, SAE_.encode_sparse(flat[0])) == [0.0]


def test_half_precision_patches_are_measured_in_float32() -> None:
    patches = torch.randn(2, 5, 6, generator=DRAW).half()
    codes = SAE_.encode_sparse(patches.reshape(-1, 6))
    assert unexplained(SAE_, patches, codes) == unexplained(SAE_, patches.float(), codes)
