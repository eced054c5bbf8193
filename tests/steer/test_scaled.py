"""Interventions on SAEs that scale each vector or have signed activations, against dense formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explorer.records import Box, Edit, Grid
from explorer.sae import SAE, ActivationRule, Scaling, SparseCodes
from explorer.steer import Contrast, Intervention, gauges, intervene
from explorer.steer.change import image_level, patch_level, pooled

ROWS, COLS, WIDTH, NEURONS = 2, 3, 6, 12
PATCHES = ROWS * COLS
GRID = Grid(ROWS, COLS, 30, 20, Box(0, 0, 30, 20))
SCALINGS = (
    Scaling(),
    Scaling("layer_norm", eps=0.2),
    Scaling("layer_norm", ddof=0),
    Scaling("constant_norm"),
    Scaling("constant_norm", norm=2.0),
)
RULES = (
    ActivationRule("relu"),
    ActivationRule("jumprelu", 0.5),
    ActivationRule("jumprelu", torch.linspace(-1, 1, NEURONS)),
    ActivationRule("topk", k=4),
    ActivationRule("topk", k=9, signed=True),
    ActivationRule("abstopk", k=4),
    ActivationRule("groupmax", k=4),
)
MASK = np.array([[True, False, True], [False, False, True]])


def make_sae(scaling: Scaling, rule: ActivationRule) -> SAE:
    draw = torch.Generator().manual_seed(0)
    shapes = [(WIDTH, NEURONS), (NEURONS,), (NEURONS, WIDTH), (WIDTH,)]
    weights = [torch.randn(shape, generator=draw) for shape in shapes]
    return SAE(*weights, rule, scaling=scaling).eval().requires_grad_(False)


def hidden(seed: int) -> Tensor:
    """Patches of very different lengths, with means that are not 0."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([0.3, 1.0, 4.0, 20.0, 2.0, 0.7])[:, None]
    return torch.randn(PATCHES, WIDTH, generator=draw) * lengths + 0.5


def factors(scaling: Scaling, h: Tensor) -> Tensor:
    """What one unit in the SAE's space is in each patch's, [T, 1], in plain words."""
    match scaling.kind:
        case "layer_norm":
            return h.std(dim=1, correction=scaling.ddof, keepdim=True)
        case "constant_norm":
            return h.norm(dim=1, keepdim=True) / (scaling.norm or WIDTH**0.5)
    return torch.ones(PATCHES, 1)


def naive(z: Tensor, noisy: Tensor, contrast: Contrast | None, edits: list[Edit]) -> Tensor:
    """z' [T, F], dense."""
    now = z if contrast is None else z + contrast.strength * (z - noisy)
    if contrast is not None and contrast.clamp:
        side = torch.where(z != 0, z, noisy).sign()
        now = torch.where(now.sign() == -side, torch.zeros(()), now)
    now = now.clone()
    for edit in edits:
        column = now[:, edit.neuron]
        new = {"set": torch.full_like(column, edit.value), "add": column + edit.value}
        new = new.get(edit.mode, column * edit.value)
        where = torch.ones(PATCHES, dtype=torch.bool)
        if isinstance(edit.patches, str):
            where = z[:, edit.neuron] != 0
        elif edit.patches is not None:
            where = torch.from_numpy(edit.patches.ravel())
        now[:, edit.neuron] = torch.where(where, new, column)
    return now


some_edits = st.lists(
    st.builds(
        Edit,
        neuron=st.integers(0, NEURONS - 1),
        value=st.integers(-16, 16).map(lambda n: n / 4),
        mode=st.sampled_from(["set", "add", "scale"]),
        patches=st.sampled_from([None, "active", MASK]),
    ),
    max_size=4,
)
contrasts = st.none() | st.builds(
    Contrast,
    strength=st.sampled_from([-1.0, 0.5, 2.0]),
    suppress_always_on=st.just(False),
    clamp=st.booleans(),
)


@settings(deadline=None, max_examples=150)
@given(
    scaling=st.sampled_from(SCALINGS),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 999),
    edits=some_edits,
    contrast=contrasts,
)
def test_an_intervention_is_the_dense_one_in_each_patchs_scale(
    scaling: Scaling, rule: ActivationRule, seed: int, edits: list[Edit], contrast: Contrast | None
) -> None:
    sae, h, other = make_sae(scaling, rule), hidden(seed), hidden(seed + 1)
    z, noisy = sae.encode(h), sae.encode(other)
    expected = naive(z, noisy, contrast, edits)
    change = (expected - z) @ sae.W_dec * factors(scaling, h)
    codes, under_noise = sae.encode_sparse(h), sae.encode_sparse(other)
    for replace in (False, True):
        found = intervene(h, codes, sae, GRID, Intervention(tuple(edits), contrast, replace), under_noise)
        goal = sae.decode(expected, h) if replace else h + change
        size = 2e-5 * max(1.0, float(change.abs().max()), float(goal.abs().max()))
        torch.testing.assert_close(found.patches, goal, atol=size, rtol=0)
        read = gauges(h, found, codes, sae)
        error = (h - sae.decode(z, h)).square().sum()
        assert read.error == pytest.approx(float(error / (h - h.mean(0)).square().sum()), rel=1e-3)
        assert read.error_kept == pytest.approx(0.0 if replace else 1.0, abs=1e-3)


@pytest.mark.parametrize("clamp", [False, True])
def test_a_signed_sae_with_signs_turned_round_is_contrasted_alike(clamp: bool) -> None:
    """z of some neurons, and their directions, times -1: the same SAE, so the same patches."""
    sae, h, other = make_sae(SCALINGS[0], ActivationRule("abstopk", k=4)), hidden(3), hidden(4)
    turned, signs = make_sae(SCALINGS[0], sae.rule), torch.ones(NEURONS)
    signs[::2] = -1.0
    turned.W_enc.mul_(signs), turned.b_enc.mul_(signs), turned.W_dec.mul_(signs[:, None])
    asked = Intervention(contrast=Contrast(strength=2.0, suppress_always_on=False, clamp=clamp))
    found = [
        intervene(h, one.encode_sparse(h), one, GRID, asked, one.encode_sparse(other)).patches
        for one in (sae, turned)
    ]
    assert not torch.equal(found[0], h)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_adding_one_changes_a_patch_by_its_factor_times_the_decoder_row(scaling: Scaling) -> None:
    sae, h = make_sae(scaling, RULES[0]), hidden(3)
    found = intervene(h, sae.encode_sparse(h), sae, GRID, Intervention((Edit(7, 1.0, "add"),)))
    for patch, factor in enumerate(factors(scaling, h)):
        moved = found.patches[patch] - h[patch]
        torch.testing.assert_close(moved, factor * sae.direction(7), atol=1e-5, rtol=1e-5)


def test_active_reaches_negative_activations_too() -> None:
    sae, h = make_sae(SCALINGS[1], ActivationRule("abstopk", k=4)), hidden(3)
    codes = sae.encode_sparse(h)
    neuron = int(codes.neurons[codes.values < 0][0])
    edits = (Edit(neuron, 0.0, "set", "active"),)
    found = intervene(h, codes, sae, GRID, Intervention(edits))
    z = sae.encode(h)
    assert (z[:, neuron] < 0).any()
    gone = -z[:, [neuron]] * sae.W_dec[neuron] * factors(SCALINGS[1], h)
    torch.testing.assert_close(found.change, gone, atol=1e-5, rtol=1e-4)


def test_a_picture_without_change_is_the_same_tensor() -> None:
    sae, h = make_sae(SCALINGS[1], RULES[4]), hidden(0)
    assert intervene(h, sae.encode_sparse(h), sae, GRID, Intervention()).patches is h


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    k=st.integers(1, NEURONS),
    active_only=st.booleans(),
    rule=st.sampled_from(RULES[4:6]),
)
def test_negative_activations_count_as_silent_in_change_ratios(
    seed: int, k: int, active_only: bool, rule: ActivationRule
) -> None:
    """As if the codes had only what is above 0."""
    sae = make_sae(Scaling(), rule)
    signed = [sae.encode_sparse(hidden(seed + more)) for more in (0, 1)]
    assert any((codes.values < 0).any() for codes in signed)
    above = [SparseCodes(*(part[codes.values > 0] for part in codes)) for codes in signed]
    found = patch_level(*signed, PATCHES, NEURONS, k, active_only)
    assert torch.equal(found, patch_level(*above, PATCHES, NEURONS, k, active_only))
    for pool in ("mean", "max"):
        assert torch.equal(
            pooled(signed[0], PATCHES, NEURONS, pool), pooled(above[0], PATCHES, NEURONS, pool)
        )
        ratios = [image_level(*codes, PATCHES, NEURONS, k, pool=pool) for codes in (signed, above)]
        assert ratios[0] == ratios[1]
