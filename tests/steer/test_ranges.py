"""Ranges against values of the published code, and their form for neurons that are mostly 0."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import EditError
from explorer.steer import RangeEdit, fitted_range
from explorer.steer.edits import edited
from explorer.steer.ranges import fit, masked

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "neuronlens.json").read_text())
ACTIVATIONS, X = torch.tensor(GOLDEN["fc_vals"]), torch.tensor(GOLDEN["x"])
CHOSEN = [place for place, free in enumerate(GOLDEN["mask_zero_means_selected"]) if not free]


def bounds(values: list) -> torch.Tensor:
    return torch.tensor([float(value) for value in values])


@pytest.mark.parametrize("tau", GOLDEN["by_tau"])
def test_fit_and_mask(tau: str) -> None:
    golden = GOLDEN["by_tau"][tau]
    found = fit(ACTIVATIONS, GOLDEN["percent"], float(tau))
    assert torch.isfinite(found.lower + 1 / found.lower).nonzero().flatten().tolist() in (CHOSEN, [])
    torch.testing.assert_close(found.lower, bounds(golden["lower"]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.upper, bounds(golden["upper"]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(masked(X, *found), torch.tensor(golden["out"]), atol=1e-6, rtol=0)


def test_the_soft_variant() -> None:
    found = masked(X, *fit(ACTIVATIONS, GOLDEN["percent"], 2.0), soft=True)
    torch.testing.assert_close(found, torch.tensor(GOLDEN["soft_tau2"]), atol=1e-6, rtol=1e-6)


def test_mean_and_deviation_are_those_of_the_reference() -> None:
    everything = fit(ACTIVATIONS, 1.0, 1.0)
    mean, half = (everything.upper + everything.lower) / 2, (everything.upper - everything.lower) / 2
    torch.testing.assert_close(mean, torch.tensor(GOLDEN["mean"]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(half, torch.tensor(GOLDEN["std_population_ddof0"]), atol=1e-6, rtol=1e-6)
    nothing = fit(ACTIVATIONS, 0.1, 2.0)  # int(0.1 * 8) = 0
    assert torch.equal(masked(X, *nothing), X)


def test_a_constant_coordinate_without_a_limit_is_masked_everywhere() -> None:
    found = fit(torch.ones(5, 2), 1.0, math.inf)
    assert not masked(torch.randn(7, 2), *found).any()


def naive(edit: RangeEdit, z: float) -> float:
    on = {"above": z > 0, "below": z < 0, "both": z != 0}[edit.side]
    if not (on and edit.low <= z <= edit.high):
        return z
    if edit.action == "zero":
        return 0.0
    if edit.action == "scale":
        return z * edit.factor
    if math.isinf(edit.low) or math.isinf(edit.high):
        return 0.0
    centre, half = (edit.low + edit.high) / 2, (edit.high - edit.low) / 2
    return z * 0.125 * min(max(abs(z - centre) / (half + 1e-6), 0.0), 1.0)


ends = st.one_of(st.floats(-8, 8, width=16), st.sampled_from([-math.inf, math.inf]))


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(ends, ends).map(sorted),
    st.sampled_from(["zero", "scale", "soft"]),
    st.floats(-4, 4, width=16),
    st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=12),
    st.sampled_from(["above", "below", "both"]),
)
def test_a_range_edit_is_the_naive_one(
    low_high: list, action: str, factor: float, z: list, side: str
) -> None:
    low, high = low_high
    if (side == "above" and high <= 0) or (side == "below" and low >= 0):
        with pytest.raises(EditError, match=f"holds nothing {side} 0"):
            RangeEdit(3, low, high, action, factor, side=side)
        return
    edit = RangeEdit(3, low, high, action, factor, side=side)
    now = torch.tensor(z + low_high[:1]).nan_to_num(posinf=1.0, neginf=1.0)
    expected = torch.tensor([naive(edit, value) for value in now.tolist()])
    torch.testing.assert_close(edited(edit, now, now), expected, atol=1e-6, rtol=1e-5)


def test_zero_stays_zero_even_in_the_middle_of_the_range() -> None:
    edit = RangeEdit(0, -math.inf, math.inf, "scale", 5.0)
    now = torch.tensor([0.0, -2.0, 2.0])
    assert edited(edit, now, now).tolist() == [0.0, -2.0, 10.0]
    for side, expected in (("below", [0.0, -10.0, 2.0]), ("both", [0.0, -10.0, 10.0])):
        edit = RangeEdit(0, -math.inf, math.inf, "scale", 5.0, side=side)
        assert edited(edit, now, now).tolist() == expected


ACTIONS = ["zero", "scale", "soft"]


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(ends, ends).map(sorted),
    st.sampled_from(ACTIONS),
    st.floats(-4, 4, width=16),
    st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=12),
)
def test_a_neuron_with_its_signs_turned_round_is_edited_alike(
    low_high: list, action: str, factor: float, z: list
) -> None:
    """-z along the opposite direction is the same neuron of a signed SAE."""
    (low, high), now = low_high, torch.tensor(z)
    for side, other in (("above", "below"), ("both", "both")):
        if side == "above" and high <= 0:
            continue
        edit = RangeEdit(3, low, high, action, factor, side=side)
        turned = RangeEdit(3, -high, -low, action, factor, side=other)
        assert torch.equal(edited(turned, -now, -now), -edited(edit, now, now))


def test_a_fitted_range() -> None:
    edit = fitted_range(7, 3.0, 0.5)
    assert (edit.neuron, edit.low, edit.high, edit.action, edit.patches) == (7, 2.0, 4.0, "zero", None)
    whole = fitted_range(7, 3.0, 0.0, math.inf, "soft", patches="active")
    assert (whole.low, whole.high, whole.patches) == (-math.inf, math.inf, "active")
    assert fitted_range(7, 3.0, 0.0).low == fitted_range(7, 3.0, 0.0).high == 3.0
    below = fitted_range(7, -3.0, 2.0)
    assert (below.low, below.high, below.side, edit.side) == (-7.0, 1.0, "below", "above")
    assert edited(below, torch.tensor([0.5, -0.5, -8.0]), torch.zeros(3)).tolist() == [0.5, 0.0, -8.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, 0.0, 1.0), "neuron -1 is not a neuron number"),
        ((float("nan"), 0.0, 1.0), "neuron nan is not a neuron number"),
        (("3", 0.0, 1.0), "neuron '3' is not a neuron number"),
        ((1, 2.0, 1.0), "neuron 1: the range 2 to 1 is none; low comes first"),
        ((1, float("nan"), 1.0), "neuron 1: the low end must be a number or infinity, not nan"),
        ((1, 0.0, "2"), "neuron 1: the high end must be a number or infinity, not '2'"),
        ((1, 0.0, 1.0, "damp"), "unknown action 'damp' of a range; use 'zero', 'scale' or 'soft'"),
        (
            (1, 0.0, 1.0, "scale", math.inf),
            "the factor must be a finite number from -1e.06 up to 1e.06, not inf",
        ),
        ((1, 0.0, 1.0, "scale", 1e7), "the factor must be .* not 10000000.0"),
        ((1, 0.0, 1.0, "zero", 0.0, "all"), "unknown patches 'all'"),
        ((1, 0.0, 1.0, "zero", 0.0, [[1, 2]]), "a .rows, cols. boolean mask"),
        ((1, 0.0, 1.0, "zero", 0.0, None, "left"), "unknown side 'left' of a range; use 'above', 'below' or"),
        ((1, -5.0, -1.0), "the range -5 to -1 holds nothing above 0, .* use side='below'"),
        ((1, -5.0, 0.0), "the range -5 to 0 holds nothing above 0"),
        ((1, 1.0, 5.0, "zero", 0.0, None, "below"), "holds nothing below 0, .* use side='above'"),
    ],
)
def test_range_edits_that_are_none(arguments: tuple, words: str) -> None:
    with pytest.raises(EditError, match=words):
        RangeEdit(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, float("nan"), 1.0), "neuron 1: the mean must be a finite number, not nan"),
        ((1, 1.0, -1.0), "the standard deviation must be a finite number from 0, not -1.0"),
        ((1, 1.0, math.inf), "the standard deviation must be .* not inf"),
        ((1, 1.0, 1.0, 0.0), "tau must be a number or infinity above 0, not 0.0"),
        ((1, 1.0, 1.0, float("nan")), "tau must be"),
        ((1, 1.0, 1.0, True), "tau must be .* not True"),
    ],
)
def test_fits_that_are_none(arguments: tuple, words: str) -> None:
    with pytest.raises(EditError, match=words):
        fitted_range(*arguments)
    with pytest.raises(EditError, match=r"percent must be a finite number from 0 up to 1, not 1\.5"):
        fit(ACTIVATIONS, 1.5)
