"""How much of each picture an SAE leaves unexplained, against the plain formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule
from explorer.sae.quality import Tally, unexplained

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


@given(st.integers(0, 10**6), st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_vectors_may_come_in_parts(seed: int, sizes: list[int]) -> None:
    """The figures of parts are those of the whole, by the formulas."""
    dice = torch.Generator().manual_seed(seed)
    weights, x = torch.randn(6, 9, generator=dice), 3 + torch.randn(sum(sizes), 6, generator=dice)
    sae = SAE(
        weights, torch.zeros(9), weights.T.clone(), x.mean(0), ActivationRule("topk", k=2), group_sizes=(2, 7)
    ).requires_grad_(False)
    tally = Tally(sae, chunk=50)
    for part in x.split(sizes):
        tally.add(part)
    found, z = tally.quality(), sae.encode(x)
    for share, end in zip(found.prefixes, (2, 9), strict=True):
        error = (x - z[:, :end] @ sae.W_dec[:end] - sae.b_dec).square().sum()
        spread = (x - x.mean(0)).square().sum()
        assert share == pytest.approx(float(1 - error / spread), rel=1e-3, abs=1e-3)
    assert found.l0 == pytest.approx(float((z > 0).sum()) / len(x))
    assert found.dead_share == pytest.approx(float((~(z > 0).any(0)).float().mean()))
    assert found.vectors == len(x) and found.explained_variance == found.prefixes[-1]


def test_no_vectors_are_no_measure() -> None:
    sae = SAE(torch.eye(3), torch.zeros(3), torch.eye(3), torch.zeros(3), ActivationRule())
    with pytest.raises(SAEError, match="no vectors to measure"):
        Tally(sae).quality()
