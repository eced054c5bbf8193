"""Interventions against a naive dense oracle and published formulas, and what must hold of every one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explorer.errors import EditError
from explorer.records import Box, Edit, Grid
from explorer.sae import SAE, ActivationRule, SparseCodes
from explorer.steer import Contrast, Intervention, RangeEdit, Steered, gauges, intervene
from explorer.steer.contrast import contrasted

ROWS, COLS, WIDTH, NEURONS = 2, 3, 5, 12
PATCHES = ROWS * COLS
GRID = Grid(ROWS, COLS, 30, 20, Box(0, 0, 30, 20))
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cns_eq3_6.json").read_text())


def make_sae() -> SAE:
    draw = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(shape, generator=draw)
        for shape in [(WIDTH, NEURONS), (NEURONS,), (NEURONS, WIDTH), (WIDTH,)]
    ]
    return SAE(*weights, rule=ActivationRule()).requires_grad_(False)


SAE_ = make_sae()
HIDDEN = torch.randn(PATCHES, WIDTH, generator=torch.Generator().manual_seed(1))


def sparse(z: Tensor) -> SparseCodes:
    tokens, neurons = z.nonzero(as_tuple=True)
    return SparseCodes(tokens, neurons, z[tokens, neurons])


def dense(codes: SparseCodes, tokens: int = PATCHES, neurons: int = NEURONS) -> Tensor:
    z = torch.zeros(tokens, neurons)
    z[codes.tokens, codes.neurons] = codes.values
    return z


def activations(seed: int, share: float) -> Tensor:
    """Activations [PATCHES, NEURONS] in quarters, of which about `share` fire: sums of them are exact."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 33, (PATCHES, NEURONS), generator=draw) / 4
    return sizes * (torch.rand(PATCHES, NEURONS, generator=draw) < share)


def naive(
    z: Tensor,
    noisy: Tensor,
    contrast: Contrast | None,
    always_on: Sequence[int],
    edits: Sequence[Edit | RangeEdit],
) -> Tensor:
    """z' [T, F], neuron by neuron and patch by patch."""
    untouched, under_noise = z.tolist(), noisy.tolist()
    now = z.tolist()
    for patch, neuron in np.ndindex(*z.shape if contrast is not None else (0, 0)):
        difference = untouched[patch][neuron] - under_noise[patch][neuron]
        if not (contrast.suppress_always_on and neuron in always_on):
            now[patch][neuron] += contrast.strength * difference
        if contrast.clamp:
            now[patch][neuron] = max(now[patch][neuron], 0.0)
    for edit in edits:
        for patch, row in enumerate(now):
            if isinstance(edit.patches, str) and not untouched[patch][edit.neuron] > 0:
                continue
            if isinstance(edit.patches, np.ndarray) and not edit.patches[patch // COLS, patch % COLS]:
                continue
            row[edit.neuron] = one(edit, row[edit.neuron])
    return torch.tensor(now)


def one(edit: Edit | RangeEdit, z: float) -> float:
    if isinstance(edit, Edit):
        return {"set": edit.value, "add": z + edit.value, "scale": z * edit.value}[edit.mode]
    on = {"above": z > 0, "below": z < 0, "both": z != 0}[edit.side]
    if not (on and edit.low <= z <= edit.high):
        return z
    centre, half = (edit.low + edit.high) / 2, (edit.high - edit.low) / 2
    soft = z * 0.125 * min(abs(z - centre) / (half + 1e-6), 1.0)
    return {"zero": 0.0, "scale": z * edit.factor, "soft": soft}[edit.action]


quarters = st.integers(-32, 32).map(lambda n: n / 4)
neurons = st.integers(0, NEURONS - 1)
masks = st.lists(st.booleans(), min_size=PATCHES, max_size=PATCHES).map(
    lambda bits: np.array(bits).reshape(ROWS, COLS)
)
places = st.one_of(st.none(), st.just("active"), masks)
plain_edits = st.builds(
    Edit, neuron=neurons, value=quarters, mode=st.sampled_from(["set", "add", "scale"]), patches=places
)


@st.composite
def range_edits(draw: st.DrawFn) -> RangeEdit:
    low, high = sorted(draw(st.tuples(quarters, quarters)))
    sides = ["both", *["above"] * (high > 0), *["below"] * (low < 0)]
    action = draw(st.sampled_from(["zero", "scale", "soft"]))
    rest = draw(quarters), draw(places), draw(st.sampled_from(sides))
    return RangeEdit(draw(neurons), low, high, action, *rest)


some_edits = st.lists(st.one_of(plain_edits, range_edits()), max_size=5)
contrasts = st.builds(
    Contrast,
    strength=st.integers(-8, 8).map(lambda n: n / 2),
    suppress_always_on=st.booleans(),
    clamp=st.booleans(),
)
codes = st.builds(activations, st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.4, 1.0]))


@settings(deadline=None, max_examples=150)
@given(codes, codes, st.none() | contrasts, st.sets(neurons, max_size=3), some_edits)
def test_an_intervention_is_the_dense_one(
    z: Tensor, noisy: Tensor, contrast: Contrast | None, always_on: set[int], edits: list
) -> None:
    expected, before = naive(z, noisy, contrast, sorted(always_on), edits), HIDDEN.clone()
    size = 1e-5 * max(1.0, float(expected.abs().max()))
    for replace in (False, True):
        asked = Intervention(tuple(edits), contrast, replace)
        found = intervene(HIDDEN, sparse(z), SAE_, GRID, asked, sparse(noisy), sorted(always_on))
        change = (expected - z) @ SAE_.W_dec
        goal = SAE_.decode(expected) if replace else HIDDEN + change
        torch.testing.assert_close(found.patches, goal, atol=size, rtol=0)
        if torch.equal(expected, z):
            assert found.change is None and (found.patches is HIDDEN) is not replace
        else:
            torch.testing.assert_close(found.change, change, atol=size, rtol=0)
    assert torch.equal(HIDDEN, before), "the input was written to"


@settings(deadline=None, max_examples=100)
@given(codes, codes, contrasts, st.sets(neurons, max_size=3))
def test_the_contrast_is_sparse_sorted_and_without_zeros(
    z: Tensor, noisy: Tensor, contrast: Contrast, always_on: set[int]
) -> None:
    found = contrasted(sparse(z), sparse(noisy), contrast, NEURONS, sorted(always_on))
    expected = naive(z, noisy, contrast, sorted(always_on), []) - z
    assert torch.equal(dense(found), expected)
    assert found.values.all() and found.values.dtype == torch.float32
    keys = found.tokens * NEURONS + found.neurons
    assert torch.equal(keys, keys.unique())


@settings(deadline=None, max_examples=50)
@given(codes, codes, st.booleans(), st.booleans(), some_edits)
def test_strength_zero_is_as_no_contrast(
    z: Tensor, noisy: Tensor, clamp: bool, suppress: bool, edits: list
) -> None:
    nothing = Contrast(strength=0.0, clamp=clamp, suppress_always_on=suppress)
    assert run(z, noisy, Intervention((), nothing)).patches is HIDDEN
    with_it = run(z, noisy, Intervention(tuple(edits), nothing))
    assert torch.equal(with_it.patches, run(z, noisy, Intervention(tuple(edits))).patches)
    both = run(z, noisy, Intervention((), nothing, True)), run(z, noisy, Intervention((), None, True))
    assert torch.equal(both[0].patches, both[1].patches) and both[0].change is None


def run(z: Tensor, noisy: Tensor, asked: Intervention, always_on: Sequence[int] = ()) -> Steered:
    return intervene(HIDDEN, sparse(z), SAE_, GRID, asked, sparse(noisy), always_on)


@settings(deadline=None, max_examples=50)
@given(codes, codes, contrasts, st.sampled_from([-4.0, 0.0, 6.0]))
def test_set_overrides_the_contrast_and_only_the_order_within_a_neuron_matters(
    z: Tensor, noisy: Tensor, contrast: Contrast, value: float
) -> None:
    everywhere = [Edit(neuron, value) for neuron in range(NEURONS)]
    plain = run(z, noisy, Intervention(tuple(everywhere)))
    turned = run(z, noisy, Intervention(tuple(everywhere[::-1]), contrast))
    torch.testing.assert_close(turned.patches, plain.patches, atol=1e-4, rtol=0)


def test_active_is_active_in_the_untouched_picture_not_after_the_contrast() -> None:
    z, noisy = torch.zeros(2, PATCHES, NEURONS)
    z[0, 4], noisy[0, 4], noisy[1, 4] = 2.0, 5.0, 3.0
    asked = Intervention((Edit(4, 10.0, "add", "active"),), Contrast())
    found = run(z, noisy, asked).change / SAE_.W_dec[4]
    expected = torch.tensor([2.0 - 5.0 + 10.0, -3.0, 0, 0, 0, 0])[:, None].expand(-1, WIDTH)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_order_within_a_neuron() -> None:
    z = torch.zeros(PATCHES, NEURONS)
    z[:, 4] = 2.0
    first, second = Edit(4, 3.0, "scale"), RangeEdit(4, 5.0, 7.0, "scale", -1.0)
    one_way = run(z, z, Intervention((first, second))).change
    other_way = run(z, z, Intervention((second, first))).change
    torch.testing.assert_close(one_way, torch.full((PATCHES, 1), -8.0) * SAE_.W_dec[4])
    torch.testing.assert_close(other_way, torch.full((PATCHES, 1), 4.0) * SAE_.W_dec[4])


class Published(NamedTuple):
    """The golden example of CNS."""

    sae: SAE
    grid: Grid
    patches: Tensor
    z: Tensor
    noisy: Tensor


@pytest.fixture
def published() -> Published:
    decoder, bias = torch.tensor(GOLDEN["W_dec"]), torch.tensor(GOLDEN["b_dec"])
    sae = SAE(decoder.T.clone(), torch.zeros(len(decoder)), decoder, bias, rule=ActivationRule())
    z, noisy = torch.tensor(GOLDEN["z_clean"]), torch.tensor(GOLDEN["z_noisy"])
    grid = Grid(2, 2, 20, 20, Box(0, 0, 20, 20))
    return Published(sae.requires_grad_(False), grid, torch.tensor(GOLDEN["x_clean"]), z, noisy)


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        (Contrast(suppress_always_on=False), "delta_z"),
        (Contrast(), "delta_z_ans"),
        (Contrast(strength=GOLDEN["lambda"]), "z_tilde"),
        (Contrast(clamp=True), "z_tilde_clamped_nonneg"),
    ],
)
def test_equations_4_to_6(published: Published, contrast: Contrast, expected: str) -> None:
    _, _, _, z, noisy = published
    change = contrasted(sparse(z), sparse(noisy), contrast, z.shape[1], GOLDEN["always_on"])
    found = dense(change, *z.shape) + (0.0 if expected.startswith("delta") else z)
    torch.testing.assert_close(found, torch.tensor(GOLDEN[expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["replace", "error_preserving"])
def test_the_contrasted_patches(published: Published, form: str) -> None:
    sae, grid, patches, z, noisy = published
    asked = Intervention((), Contrast(), form == "replace")
    found = intervene(patches, sparse(z), sae, grid, asked, sparse(noisy), GOLDEN["always_on"])
    torch.testing.assert_close(found.patches, torch.tensor(GOLDEN[f"x_out_{form}"]), atol=1e-6, rtol=0)


def test_a_trainable_sae_and_other_dtypes(published: Published) -> None:
    sae, grid, patches, z, noisy = published
    asked = Intervention((Edit(2, 3.0),), Contrast())
    found = intervene(patches, sparse(z), sae.requires_grad_(True), grid, asked, sparse(noisy))
    assert not found.patches.requires_grad and not found.change.requires_grad
    half = intervene(patches.bfloat16(), sparse(z), sae, grid, asked, sparse(noisy))
    assert half.patches.dtype == half.change.dtype == torch.bfloat16
    torch.testing.assert_close(half.patches.float(), found.patches, atol=0.1, rtol=0.02)


@settings(deadline=None, max_examples=50)
@given(codes, codes, st.none() | contrasts, some_edits, st.booleans())
def test_gauges(z: Tensor, noisy: Tensor, contrast: Contrast | None, edits: list, replace: bool) -> None:
    found = run(z, noisy, Intervention(tuple(edits), contrast, replace))
    gauge = gauges(HIDDEN, found, sparse(z), SAE_)
    moved, error = found.patches - HIDDEN, HIDDEN - SAE_.decode(z)
    assert gauge.change == pytest.approx(float(moved.norm() / HIDDEN.norm()), rel=1e-4, abs=1e-6)
    by_patch = moved.norm(dim=1) / HIDDEN.norm(dim=1)
    assert gauge.largest == pytest.approx(float(by_patch.max()), rel=1e-4, abs=1e-6)
    spread = (HIDDEN - HIDDEN.mean(0)).square().sum()
    assert gauge.error == pytest.approx(float(error.square().sum() / spread), rel=1e-4)
    assert gauge.error_kept == pytest.approx(0.0 if replace else 1.0, abs=1e-3)


def test_gauges_where_the_sae_explains_everything() -> None:
    z = torch.zeros(PATCHES, NEURONS)
    flat = SAE_.decode(z)
    found = intervene(flat, sparse(z), SAE_, GRID, Intervention((Edit(1, 2.0),), None, True))
    gauge = gauges(flat, found, sparse(z), SAE_)
    assert gauge.error == 0.0 and gauge.error_kept == 1.0 and gauge.change > 0


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([RangeEdit(NEURONS, 0.0, 1.0)], "there is no neuron 12: this SAE has 12, counted from 0"),
        ([Edit(1, 1.0), Edit(10**30, 1.0)], "there is no neuron 1000"),
        ([Edit(1, 1e7)], r"neuron 1: the value 1e\+07 is outside -1e\+06 .. 1e\+06"),
        (
            [RangeEdit(1, 0, 1, patches=np.ones((3, 2), bool))],
            "the mask has 3 x 2 patches, the picture 2 x 3",
        ),
        ([Edit(1, 1.0, "set", np.ones((4000, 4000), bool))], "the mask has 4000 x 4000 patches"),
    ],
)
def test_edits_that_do_not_fit_are_refused(edits: list, words: str) -> None:
    with pytest.raises(EditError, match=words):
        intervene(HIDDEN, sparse(activations(0, 0.5)), SAE_, GRID, Intervention(tuple(edits)))


def test_a_contrast_needs_the_noisy_picture_and_known_neurons() -> None:
    z = sparse(activations(0, 0.5))
    with pytest.raises(EditError, match="a contrast needs the noisy picture's activations"):
        intervene(HIDDEN, z, SAE_, GRID, Intervention((), Contrast()))
    for wrong in (-1, NEURONS):
        with pytest.raises(
            EditError, match=f"there is no neuron {wrong} that could be always on: this SAE has"
        ):
            intervene(HIDDEN, z, SAE_, GRID, Intervention((), Contrast()), z, [3, wrong])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"step": 1000}, "the noise step must be a whole number from 0 to 999, not 1000"),
        ({"step": -1}, "the noise step must be .* not -1"),
        ({"step": float("nan")}, "the noise step must be .* not nan"),
        ({"step": 500.5}, r"the noise step must be .* not 500\.5"),
        ({"step": True}, "the noise step must be .* not True"),
        ({"strength": float("nan")}, "the strength must be a finite number from -1000 up to 1000, not nan"),
        ({"strength": math.inf}, "the strength must be .* not inf"),
        ({"strength": -1001}, "the strength must be .* not -1001"),
        ({"strength": 10**400}, "the strength must be .* not 1000"),
        ({"strength": "1"}, "the strength must be .* not '1'"),
        ({"seed": -1}, "the noise seed must be a whole number from 0 to 4294967295, not -1"),
        ({"min_frequency": 0.0}, "frequency of always-on neurons must be .* above 0 up to 1, not 0.0"),
        ({"min_frequency": 1.5}, r"frequency of always-on neurons must be .* not 1\.5"),
    ],
)
def test_contrasts_that_are_none(arguments: dict, words: str) -> None:
    with pytest.raises(EditError, match=words):
        Contrast(**arguments)


def test_a_slider_gives_floats_and_numpy_numbers() -> None:
    assert Contrast(500.0) == Contrast(np.int64(500)) == Contrast()
    assert type(Contrast(500.0).step) is int and hash(Contrast(500.0)) == hash(Contrast())


def test_interventions_of_something_else_are_refused() -> None:
    assert Intervention([Edit(1, 2.0)]).edits[0].neuron == 1
    with pytest.raises(EditError, match=r"\(3, 1\.0\) is no edit; use Edit\(\.\.\.\) or RangeEdit"):
        Intervention(((3, 1.0),))
    with pytest.raises(EditError, match=r"500 is no contrast; use Contrast\(\.\.\.\) or None"):
        Intervention((), 500)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((math.nan, 1.0), "neuron nan is not a neuron number"),
        ((math.inf, 1.0), "neuron inf is not a neuron number"),
        (("4", 1.0), "neuron '4' is not a neuron number"),
        ((4.5, 1.0), r"neuron 4\.5 is not a neuron number"),
        ((4, "1"), "neuron 4: the value '1' is not a finite number"),
        ((4, 10**400), "neuron 4: the value 1000.* is not a finite number"),
        ((4, None), "neuron 4: the value None is not a finite number"),
    ],
)
def test_edits_of_no_numbers_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(EditError, match=words):
        Edit(*arguments)
