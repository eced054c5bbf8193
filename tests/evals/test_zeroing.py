"""The zeroing experiment: which activations are silenced, against loops, and what a known model says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from explorer.errors import ExplorerError
from explorer.evals import zeroing
from explorer.evals.zeroing import (
    PAPER,
    SETS,
    Condition,
    ZeroingConfig,
    ask,
    chosen,
    conditions,
    outcomes,
    table,
)
from explorer.records import Box, Edit, Grid
from explorer.sae import SparseCodes, load_sae
from explorer.session import Session, View
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.vlm import Prepared, open_lvlm
from explorer.vlm.base import Scale
from explorer.world import draw, mentions

NEURONS, ROWS, COLS, K = 60, 3, 4, 5
ALWAYS = (2, 9, 30)


def make_view(seed: int = 0, share: float = 0.3) -> View:
    """A view with drawn activations; the always-on neurons fire everywhere and strongly."""
    dice = np.random.default_rng(seed)
    z = dice.uniform(0.1, 5, (ROWS * COLS, NEURONS)) * (dice.random((ROWS * COLS, NEURONS)) < share)
    z[:, list(ALWAYS[:2])] = dice.uniform(6, 9, (ROWS * COLS, 2))
    token, neuron = z.nonzero()
    codes = SparseCodes(
        torch.from_numpy(token), torch.from_numpy(neuron), torch.from_numpy(z[token, neuron]).float()
    )
    grid = Grid(ROWS, COLS, 40, 30, Box(0, 0, 40, 30))
    return View(None, Prepared(torch.zeros(1), grid), 0.1, NEURONS, torch.zeros(ROWS * COLS, 4), codes, None)


def dense(view: View) -> np.ndarray:
    return np.stack([view.map(neuron).ravel() for neuron in range(NEURONS)], axis=1)


def silenced(edits: Sequence[Edit], z: np.ndarray) -> np.ndarray:
    """Which activations [patches, neurons] the edits set to zero: bool."""
    marks = np.zeros(z.shape, dtype=bool)
    for edit in edits:
        assert (edit.value, edit.mode) == (0.0, "set") and not marks[:, edit.neuron].any()
        marks[:, edit.neuron] = True if edit.patches is None else edit.patches.ravel()
        assert marks[:, edit.neuron].any()
        assert edit.patches is None or (z[marks[:, edit.neuron], edit.neuron] > 0).all()
    return marks & (z > 0)


def pick(view: View, which: str, scope: str, seed: int = 0) -> zeroing.Chosen:
    return chosen(view, Condition(which, scope), ALWAYS, K, np.random.default_rng(seed))


def tops(z: np.ndarray, scope: str) -> list[set[int]]:
    """The k strongest neurons that hold for each patch."""
    if scope == "image":
        return [set(np.argsort(-z.mean(0), kind="stable")[:K].tolist())] * len(z)
    firing = [[n for n in np.argsort(-row, kind="stable").tolist() if row[n] > 0] for row in z]
    return [set(names[:K]) for names in firing]


@pytest.mark.parametrize("scope", ["image", "patch"])
@pytest.mark.parametrize("seed", range(3))
def test_always_on_and_image_specific_split_the_strongest(scope: str, seed: int) -> None:
    view = make_view(seed)
    z = dense(view)
    always, specific = pick(view, "always_on", scope), pick(view, "image_specific", scope)
    for t, top in enumerate(tops(z, scope)):
        fires = {n for n in range(NEURONS) if z[t, n] > 0}
        assert set(np.flatnonzero(silenced(always.edits, z)[t])) == top & set(ALWAYS) & fires
        assert set(np.flatnonzero(silenced(specific.edits, z)[t])) == (top - set(ALWAYS)) & fires
    for found in (always, specific):
        assert found.share == pytest.approx(z[silenced(found.edits, z)].sum() / z.sum())


@pytest.mark.parametrize("scope", ["image", "patch"])
def test_random_ones_are_as_many_from_outside_the_strongest(scope: str) -> None:
    view = make_view(4, share=0.5)
    z = dense(view)
    outside = tops(z, scope)
    firing = silenced(pick(view, "random_firing", scope).edits, z)
    anyone = silenced(pick(view, "random", scope).edits, z)
    for t, top in enumerate(outside):
        for marks in (firing, anyone):
            assert not set(np.flatnonzero(marks[t])) & top and (z[t][marks[t]] > 0).all()
        if scope == "patch":
            assert firing[t].sum() == len(top - set(ALWAYS)) >= anyone[t].sum()
    if scope == "image":
        assert firing.any(0).sum() == len(outside[0] - set(ALWAYS)) >= anyone.any(0).sum()
        assert all((firing[:, n] == (z[:, n] > 0)).all() for n in np.flatnonzero(firing.any(0)))


def test_a_set_of_the_picture_counts_all_scales() -> None:
    """One further patch, on which an always-on neuron and one that is silent elsewhere fire."""
    once, alone = make_view(6), 59
    z = dense(once)
    z[:, alone] = 0
    token, neuron = z.nonzero()
    codes = SparseCodes(
        torch.from_numpy(token), torch.from_numpy(neuron), torch.from_numpy(z[token, neuron]).float()
    )
    more = SparseCodes(torch.tensor([0, 0]), torch.tensor([ALWAYS[0], alone]), torch.tensor([7.0, 3.0]))
    scale = Scale(Grid(1, 1, 40, 30, Box(0, 0, 40, 30)), torch.tensor([ROWS * COLS]))
    prepared = replace(once.prepared, places=torch.arange(ROWS * COLS), scales=(scale,))
    view = replace(
        once, prepared=prepared, hidden=torch.zeros(ROWS * COLS + 1, 4), codes=codes, further=(more,)
    )
    always = pick(view, "always_on", "image")
    assert {(edit.neuron, edit.patches) for edit in always.edits} <= {(n, None) for n in ALWAYS}
    mine = [edit.neuron for edit in always.edits]
    assert ALWAYS[0] in mine
    assert always.share == pytest.approx((z[:, mine].sum() + 7) / (z.sum() + 10))
    drawn = [pick(view, "random", "image", seed) for seed in range(80)]
    assert any(alone in {edit.neuron for edit in found.edits} for found in drawn)


def test_random_sets_follow_their_seed() -> None:
    view = make_view(5)
    same, again, other = (
        silenced(pick(view, "random_firing", "image", seed).edits, dense(view)) for seed in (1, 1, 2)
    )
    assert np.array_equal(same, again) and not np.array_equal(same, other)


def test_nothing_is_silenced_without_a_set_or_without_activations() -> None:
    assert chosen(make_view(), Condition(), ALWAYS, K, np.random.default_rng(0)) == ((), 0.0)
    for which in SETS:
        for scope in ("image", "patch"):
            assert pick(make_view(share=0), which, scope).edits == () or which == "always_on"


def test_every_reading_is_asked_in_both_forms() -> None:
    ways = conditions(("image", "patch"))
    assert len(ways) == len(set(ways)) == 2 + 2 * 2 * len(SETS) and ways[:2] == [
        Condition(),
        Condition(replace=True),
    ]
    assert {(way.which, way.scope) for way in ways if way.replace} == {
        (way.which, way.scope) for way in ways if not way.replace
    }


class FakeSession:
    """Tells the truth while the always-on neurons act; without them it says "No." and sees nothing.

    With the reconstruction it also names a zebra-like stranger, the umbrella, in each caption.
    """

    def __init__(self) -> None:
        self.lvlm = SimpleNamespace(default_prompt="Describe the image.")
        self.batches: list[tuple[int, str, bool, int]] = []

    def look(self, image: Any) -> View:
        self.scene = image
        return make_view(1)

    def always_on(self, share: float) -> tuple[int, ...]:
        assert share == 0.75
        return ALWAYS

    def answers(
        self, asked: Sequence[tuple], prompt: str, *, replace: bool, max_new_tokens: int
    ) -> list[str]:
        self.batches.append((len(asked), prompt, replace, max_new_tokens))
        return [self._answer(edits, prompt, replace) for _, edits in asked]

    def _answer(self, edits: Sequence[Edit], prompt: str, replace: bool) -> str:
        blind = 2 in {edit.neuron for edit in edits}
        here = {thing.concept for thing in self.scene.objects}
        if prompt == self.lvlm.default_prompt:
            return "" if blind else self.scene.caption + (" An umbrella." if replace else "")
        return "Yes." if set(mentions(prompt)) <= here and not blind else "No."


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    session = FakeSession()
    scenes = {}

    def drawn(seed: int) -> Any:
        scene = draw(seed)
        scenes[seed] = SimpleNamespace(
            **{
                name: getattr(scene, name)
                for name in ("seed", "objects", "kinds", "caption", "absent_partner")
            }
        )
        scenes[seed].image = scenes[seed]
        return scenes[seed]

    monkeypatch.setattr(zeroing, "draw", drawn)
    monkeypatch.setattr(zeroing.Session, "chosen", lambda *parts: session)
    return session


def test_the_scores_are_those_of_a_model_whose_every_answer_is_known(fake: FakeSession) -> None:
    config = ZeroingConfig(scenes=6, k=K, first_seed=40_000)
    scenes = [zeroing.draw(config.first_seed + i) for i in range(6)]
    heard = ask(fake, scenes, config, ALWAYS)
    found = {(one.which, one.scope, one.form): one for one in outcomes(heard)}
    assert len(found) == 18 and {count for count, *_ in fake.batches} == {9}
    assert {(prompt == "Describe the image.", longest) for _, prompt, _, longest in fake.batches} == {
        (True, 64),
        (False, 4),
    }
    prompts = [{one.prompt for one in zeroing.questions_of(scene, "x", ("questions",))} for scene in scenes]
    assert len(fake.batches) == 2 * sum(len(some) + 1 for some in prompts)  # each prompt once, in two forms
    for (which, scope, form), one in found.items():
        asked, captions = one.scores["all"], one.scores["captions"]
        blind = which == "always_on"
        assert asked["accuracy"].value == (0.5 if blind else 1.0), (which, scope, form)
        assert asked["f1"].value == (0.0 if blind else 1.0) and asked["yes_ratio"].value == (0.5, 0)[blind]
        assert one.accuracy_change.value == (-0.5 if blind else 0.0) >= one.accuracy_change.low
        assert captions["recall"].value == (0.0 if blind else 1.0)
        if not blind:
            assert (captions["chair_s"].value > 0.5) is (form == "replace")
        assert one.paper_accuracy_f1 == PAPER.get(which) and (one.neurons > 0) is (which != "none")
    view = make_view(1)
    assert found["image_specific", "patch", "replace"].share == pytest.approx(
        pick(view, "image_specific", "patch").share
    )


def test_a_real_model_goes_blind_without_its_own_neurons() -> None:
    session = Session(open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE))
    scene, config = draw(40_000), ZeroingConfig(scopes=("patch",), captions=False)
    heard = ask(session, [scene], config, ())
    plain, blind = heard[Condition()], heard[Condition("image_specific", "patch", True)]
    truth = [(one.answer == "Yes.") is one.asked.truth for one in plain.said]
    assert len(truth) == 6 and all(truth)
    assert [one.answer for one in blind.said] != [one.answer for one in plain.said]
    assert [one.answer for one in heard[Condition("always_on", "patch")].said] == [
        one.answer for one in plain.said
    ]
    assert blind.shares[0] > 0.9 and plain.shares == [0.0]


def test_the_table_has_a_line_for_every_condition(fake: FakeSession) -> None:
    config = ZeroingConfig(scenes=2, k=K, first_seed=40_000, scopes=("patch",), captions=False)
    scenes = [zeroing.draw(config.first_seed + i) for i in range(2)]
    lines = table(outcomes(ask(fake, scenes, config, ALWAYS))).splitlines()
    assert len(lines) == 2 + 10 and len({line.count("|") for line in lines}) == 1
    blind = next(line for line in lines if "always_on" in line and "keep" in line)
    assert "| 50.0 (50.0 to 50.0) | 0.0 (0.0 to 0.0) | 0.0 | 84.68 / 85.08 |  |  |" in blind
    assert all(longest == 4 for *_, longest in fake.batches)


def test_the_command_writes_its_report(
    fake: FakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "zero.json"
    words = f"x --scenes 2 --first-seed 40000 --k {K} --min-frequency 0.75 --scopes image --out {out}"
    monkeypatch.setattr("sys.argv", words.split())
    assert zeroing.main() == 0
    report, shown = json.loads(out.read_text()), capsys.readouterr()
    assert json.loads(shown.out) == report and shown.err.startswith("| form |")
    assert report["always_on"] == list(ALWAYS) and report["config"]["scopes"] == ["image"]
    assert [one["which"] for one in report["outcomes"]] == ["none", "none", *SETS, *SETS]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scenes": 0}, "^0 scenes and the 20 strongest"),
        ({"k": 0}, "the 0 strongest"),
        ({"scopes": ()}, "name at least one scope"),
        ({"min_frequency": 3.0}, "min_frequency is a share above 0 up to 1, not 3"),
        ({"seed": -1}, "seeds count from 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        ZeroingConfig(**wrong)
