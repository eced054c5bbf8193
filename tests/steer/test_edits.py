"""Edit arithmetic against a naive dense oracle, and what must hold of every edit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import EditError
from explorer.records import Box, Edit, Grid
from explorer.sae import SAE, ActivationRule
from explorer.steer import Intervention, intervene

ROWS, COLS, WIDTH, NEURONS = 3, 4, 6, 24
GRID = Grid(ROWS, COLS, 40, 30, Box(0, 0, 40, 30))


def make_sae(seed: int = 0) -> SAE:
    draw = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(shape, generator=draw)
        for shape in [(WIDTH, NEURONS), (NEURONS,), (NEURONS, WIDTH), (WIDTH,)]
    ]
    return SAE(*weights, rule=ActivationRule("topk", k=5)).requires_grad_(False)


def make_patches(seed: int = 1) -> torch.Tensor:
    return torch.randn(ROWS * COLS, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2


SAE_ = make_sae()
HIDDEN = make_patches()
CODES = SAE_.encode_sparse(HIDDEN)
Z = SAE_.encode(HIDDEN)


def edited(edits: list[Edit], replace: bool = False, sae: SAE = SAE_) -> torch.Tensor:
    """The patches after the edits."""
    return intervene(HIDDEN, CODES, sae, GRID, Intervention(tuple(edits), replace=replace)).patches


def oracle(edits: list[Edit]) -> torch.Tensor:
    """z' [T, F], edit after edit and patch after patch, on the whole dense z."""
    z = Z.clone()
    for edit in edits:
        for patch in range(ROWS * COLS):
            if isinstance(edit.patches, str) and not Z[patch, edit.neuron] > 0:
                continue
            if isinstance(edit.patches, np.ndarray) and not edit.patches[patch // COLS, patch % COLS]:
                continue
            now = float(z[patch, edit.neuron])
            z[patch, edit.neuron] = {"set": edit.value, "add": now + edit.value, "scale": now * edit.value}[
                edit.mode
            ]
    return z


masks = st.lists(st.booleans(), min_size=ROWS * COLS, max_size=ROWS * COLS).map(
    lambda bits: np.array(bits).reshape(ROWS, COLS)
)
one_edit = st.builds(
    Edit,
    neuron=st.integers(0, NEURONS - 1),
    value=st.floats(-100, 100, width=32),
    mode=st.sampled_from(["set", "add", "scale"]),
    patches=st.one_of(st.none(), st.just("active"), masks),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(one_edit, max_size=6))
def test_edits_match_the_dense_oracle(edits: list[Edit]) -> None:
    before, z = HIDDEN.clone(), oracle(edits)
    kept = edited(edits)
    replaced = edited(edits, replace=True)
    size = max(1.0, float(z.abs().max()))
    assert torch.allclose(kept, HIDDEN + (z - Z) @ SAE_.W_dec, atol=1e-5 * size)
    assert torch.allclose(replaced, SAE_.decode(z), atol=1e-5 * size)
    assert torch.equal(HIDDEN, before), "the input was written to"


@settings(deadline=None, max_examples=50)
@given(st.lists(one_edit, min_size=1, max_size=5), st.permutations(range(5)))
def test_only_the_order_within_a_neuron_matters(edits: list[Edit], order: list[int]) -> None:
    apart = [Edit(i, edit.value, edit.mode, edit.patches) for i, edit in enumerate(edits)]
    mixed = [apart[i] for i in order if i < len(apart)]
    here = edited(apart)
    assert torch.allclose(here, edited(mixed), atol=1e-4)


def test_no_change_is_the_same_tensor() -> None:
    nothing = np.zeros((ROWS, COLS), dtype=bool)
    silent = next(n for n in range(NEURONS) if not (Z[:, n] > 0).any()) if (Z.sum(0) == 0).any() else None
    cases: list[list[Edit]] = [
        [],
        [Edit(3, 0.0, "add")],
        [Edit(3, 1.0, "scale")],
        [Edit(3, -50.0, "set", nothing)],
        [Edit(3, 7.0, "add"), Edit(3, -7.0, "add", nothing), Edit(3, -7.0, "add")][:0],
    ]
    if silent is not None:
        cases += [[Edit(silent, -30.0, "set", "active")], [Edit(silent, 5.0, "scale")], [Edit(silent, 0.0)]]
    for edits in cases:
        assert edited(edits) is HIDDEN


def test_replace_without_edits_is_the_reconstruction() -> None:
    assert torch.allclose(edited([], replace=True), SAE_(HIDDEN), atol=1e-5)


def test_edits_of_one_neuron_compose_in_order() -> None:
    set_then_add = edited([Edit(2, 4.0), Edit(2, 3.0, "add")])
    add_then_set = edited([Edit(2, 3.0, "add"), Edit(2, 4.0)])
    assert torch.allclose(set_then_add, edited([Edit(2, 7.0)]), atol=1e-5)
    assert torch.allclose(add_then_set, edited([Edit(2, 4.0)]), atol=1e-5)


def test_a_mask_moves_its_patches_only_and_along_the_direction_only() -> None:
    mask = np.zeros((ROWS, COLS), dtype=bool)
    mask[1, 2] = mask[2, 0] = True
    moved = edited([Edit(9, -30.0, "set", mask[:, ::1])]) - HIDDEN
    assert moved.abs().sum(dim=1).bool().tolist() == mask.ravel().tolist()
    for patch in np.flatnonzero(mask):
        assert torch.allclose(moved[patch], (-30.0 - Z[patch, 9]) * SAE_.W_dec[9], atol=1e-4)


def test_a_mask_that_is_a_view_of_another_array() -> None:
    mask = np.random.default_rng(0).random((COLS, ROWS)) < 0.5
    turned = edited([Edit(1, 9.0, "set", mask.T[::-1])])
    copied = edited([Edit(1, 9.0, "set", mask.T[::-1].copy())])
    assert torch.equal(turned, copied)


def test_active_means_active_in_the_untouched_picture() -> None:
    neuron = int((Z > 0).sum(0).argmax())
    edits = [Edit(neuron, -8.0), Edit(neuron, 5.0, "add", "active")]
    change = edited(edits) - HIDDEN
    expected = torch.where(Z[:, neuron] > 0, -3.0, -8.0) - Z[:, neuron]
    assert torch.allclose(change, expected[:, None] * SAE_.W_dec[neuron], atol=1e-4)


@pytest.mark.parametrize("mask_shape", [(COLS, ROWS), (ROWS, COLS + 1), (1, 1)])
def test_a_mask_of_another_shape_is_refused(mask_shape: tuple[int, int]) -> None:
    with pytest.raises(EditError, match="the picture 3 x 4"):
        edited([Edit(0, 1.0, "set", np.ones(mask_shape, dtype=bool))])


def test_unknown_neurons_and_absurd_values_are_refused() -> None:
    with pytest.raises(EditError, match="no neuron 24: this SAE has 24"):
        edited([Edit(0, 1.0), Edit(NEURONS, 1.0)])
    with pytest.raises(EditError, match="outside"):
        edited([Edit(0, 1e300)])


def test_a_trainable_sae_gives_a_result_without_gradient() -> None:
    sae = make_sae().requires_grad_(True)
    assert not edited([Edit(0, 5.0)], False, sae).requires_grad
    assert not edited([Edit(0, 5.0)], True, sae).requires_grad
