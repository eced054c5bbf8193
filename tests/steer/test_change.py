"""The neuron-change ratio against golden values and a naive ranking."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explorer.errors import EditError
from explorer.sae import SparseCodes
from explorer.steer import change_ratio, image_level, patch_level, pooled, top_mask

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "cns_eq3_6.json").read_text())
ALWAYS_ON = json.loads((FOLDER / "cns_always_on.json").read_text())
CLEAN, NOISY, K = torch.tensor(GOLDEN["z_clean"]), torch.tensor(GOLDEN["z_noisy"]), GOLDEN["K"]
TOKENS, NEURONS = CLEAN.shape


def sparse(z: Tensor) -> SparseCodes:
    tokens, neurons = z.nonzero(as_tuple=True)
    return SparseCodes(tokens, neurons, z[tokens, neurons])


def strongest(row: list[float], k: int, active_only: bool = False) -> set[int]:
    ranked = sorted(range(len(row)), key=lambda neuron: (-row[neuron], neuron))[:k]
    return {neuron for neuron in ranked if row[neuron] > 0 or not active_only}


def naive(clean: list[float], noisy: list[float], k: int, active_only: bool, among: set[int] | None) -> float:
    before, after = strongest(clean, k, active_only), strongest(noisy, k, active_only)
    if among is not None:
        before &= among
        return len(before - after) / len(before) if before else math.nan
    return len(before - after) / (len(before) or 1)


def test_equation_3() -> None:
    expected = torch.tensor(GOLDEN["delta_patch_per_token"], dtype=torch.float64)
    per_patch = patch_level(sparse(CLEAN), sparse(NOISY), TOKENS, NEURONS, K)
    for found in (change_ratio(CLEAN, NOISY, K), per_patch):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert float(per_patch.mean()) == pytest.approx(GOLDEN["delta_patch_mean"], abs=1e-9)
    assert float(change_ratio(CLEAN.mean(0), NOISY.mean(0), K)) == pytest.approx(GOLDEN["delta_image"])
    found = image_level(sparse(CLEAN), sparse(NOISY), TOKENS, NEURONS, K)
    assert found == pytest.approx(GOLDEN["delta_image"], abs=1e-9)


def test_always_on_neurons() -> None:
    rows = torch.tensor(ALWAYS_ON["pooled"])
    shares = top_mask(rows, ALWAYS_ON["topk"]).double().mean(0)
    assert shares.tolist() == pytest.approx(ALWAYS_ON["frequency"])
    assert (shares == 1).nonzero().flatten().tolist() == ALWAYS_ON["intersection"]


def test_twenty_is_the_default() -> None:
    z = torch.arange(40.0) + 1
    moved = z.clone()
    moved[20:25] = 0.0
    assert change_ratio(z, moved) == pytest.approx(5 / 20)


small = st.integers(0, 6).map(float)  # few values: many ties and many that are silent
rows = st.lists(st.lists(small, min_size=9, max_size=9), min_size=1, max_size=5)


@settings(deadline=None, max_examples=120)
@given(rows, rows, st.integers(1, 9), st.booleans(), st.none() | st.sets(st.integers(0, 8)))
def test_every_form_is_the_naive_one(
    clean: list, noisy: list, k: int, active_only: bool, among: set[int] | None
) -> None:
    tokens = min(len(clean), len(noisy))
    before, after = torch.tensor(clean[:tokens]), torch.tensor(noisy[:tokens])
    expected = [
        naive(*pair, k, active_only, among) for pair in zip(before.tolist(), after.tolist(), strict=True)
    ]
    found = change_ratio(before, after, k, active_only, among=among and sorted(among))
    if among is None or among:
        assert found.tolist() == pytest.approx(expected, nan_ok=True)
    mask = None if among is None else torch.tensor([neuron in among for neuron in range(9)])
    assert change_ratio(before, after, k, active_only, among=mask).tolist() == pytest.approx(
        expected, nan_ok=True
    )
    args = (sparse(before), sparse(after), tokens, 9, k, active_only)
    assert patch_level(*args, among=mask).tolist() == pytest.approx(expected, nan_ok=True)
    for pool in ("mean", "max"):
        images = [z.double().mean(0) if pool == "mean" else z.double().amax(0) for z in (before, after)]
        images = [torch.stack([z]) for z in images]
        whole = change_ratio(*images, k, active_only, among=mask)
        found = image_level(*args, pool=pool, among=mask)
        assert [found] == pytest.approx(whole.tolist(), nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(rows, st.integers(1, 9), st.booleans())
def test_nothing_changes_when_nothing_changes(z: list, k: int, active_only: bool) -> None:
    same = torch.tensor(z)
    assert not change_ratio(same, same, k, active_only).any()
    assert not patch_level(sparse(same), sparse(same), len(z), 9, k, active_only).any()


def test_where_fewer_than_k_fire() -> None:
    clean, noisy = torch.tensor([[3.0, 0, 0, 1]]), torch.tensor([[0.0, 2, 0, 1]])
    for active_only, k, expected in [(False, 2, 1 / 2), (True, 2, 1 / 2), (False, 3, 0.0), (True, 3, 1 / 2)]:
        # of three, the silent neurons 1 and 0 fill up: {0, 3, 1} and {1, 3, 0}
        assert change_ratio(clean, noisy, k, active_only).tolist() == [expected]
        found = patch_level(sparse(clean), sparse(noisy), 1, 4, k, active_only)
        assert found.tolist() == [expected]
    assert change_ratio(noisy * 0, noisy, 2, True).tolist() == [0.0]
    assert change_ratio(noisy * 0, noisy, 2, True, among=[1]).isnan().all()


def test_pooled() -> None:
    torch.testing.assert_close(pooled(sparse(CLEAN), TOKENS, NEURONS), CLEAN.double().mean(0))
    assert torch.equal(pooled(sparse(CLEAN), TOKENS, NEURONS, "max"), CLEAN.double().amax(0))
    empty = sparse(torch.zeros(4, NEURONS))
    assert not pooled(empty, 4, NEURONS, "max").any() and not patch_level(empty, empty, 4, NEURONS, K).any()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(EditError, match=r"k must be a whole number from 1 to 10, not 11"):
        change_ratio(CLEAN, NOISY, 11)
    with pytest.raises(EditError, match="k must be a whole number from 1 to 10, not 0"):
        patch_level(sparse(CLEAN), sparse(NOISY), TOKENS, NEURONS, 0)
    with pytest.raises(EditError, match=r"activations \[4, 10\] and \[3, 10\] are not of one picture"):
        change_ratio(CLEAN, NOISY[:3], 3)
    with pytest.raises(EditError, match="there is no neuron 10: this SAE has 10, counted from 0"):
        change_ratio(CLEAN, NOISY, 3, among=[2, 10])
    with pytest.raises(EditError, match=r"a set marked in \[9\] does not fit 10 neurons"):
        change_ratio(CLEAN, NOISY, 3, among=torch.ones(9, dtype=torch.bool))
    with pytest.raises(EditError, match="unknown pool 'sum'; use 'mean' or 'max'"):
        pooled(sparse(CLEAN), TOKENS, NEURONS, "sum")
