"""Phantoms: judging by the truth, choosing and counting, on a linear toy whose answers can be worked out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from linear_session import LinearSession, make_view

from explorer.analyze.attribution import attribute
from explorer.analyze.pulls import unit
from explorer.analyze.repair import repair
from explorer.errors import ExplorerError
from explorer.evals import phantoms
from explorer.evals.outcomes import Outcome, by_case, caption_outcome, scored, table
from explorer.evals.phantoms import (
    CHANCE,
    REPAIR,
    Ask,
    PhantomsConfig,
    answers_to,
    main,
    phantoms_in_answers,
    phantoms_in_captions,
    run,
    word_for,
)
from explorer.evals.rankings import Phantom, Ranking, at_random, rankings, trials_of
from explorer.records import Edit

SAID = ("A", "cake", "dog", "cat")


def scene_of(seed: int, absent: str = "dog", there: tuple[str, ...] = ("cake", "cat")) -> SimpleNamespace:
    objects = [SimpleNamespace(concept=concept, visible=1.0) for concept in there]
    return SimpleNamespace(
        seed=seed, case=f"case {seed % 2}", absent_partner=absent, objects=objects, image=None
    )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> LinearSession:
    session = LinearSession(always=(3,), said=SAID)
    session.look = lambda image: make_view(session.sae)
    monkeypatch.setattr(phantoms, "draw", lambda seed, family: scene_of(seed))
    monkeypatch.setattr(phantoms.Session, "chosen", lambda *parts: session)
    return session


# ---- judging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "gone", "kept", "added", "repaired", "clean"),
    [
        ("A room with a cake and a dog.", False, 1, 0, False, False),
        ("A room with a cake.", True, 1, 0, True, True),
        ("A room with a lamp.", True, 0, 1, False, False),
        ("A room with a cake and two lamps.", True, 1, 1, True, False),
        ("A room with a cake and a cat.", True, 1, 0, True, True),
        ("", True, 0, 0, False, False),
    ],
)
def test_captions_are_judged_by_the_truth(
    after: str, gone: bool, kept: int, added: int, repaired: bool, clean: bool
) -> None:
    got = caption_outcome(scene_of(4), "A room with a cake, a dog and a tv.", after)
    assert got == Outcome(4, "case 0", gone, 1, kept, added)
    assert (got.repaired, got.clean) == (repaired, clean)


def test_scores_are_shares_over_phantoms_and_over_things() -> None:
    outcomes = [
        Outcome(1, "a", True, 2, 2, 0),
        Outcome(2, "a", True, 1, 0, 1),
        Outcome(3, "b", False, 1, 1, 2),
        Outcome(4, "a", True, 0, 0, 1),
    ]
    arm = scored(outcomes)
    assert (arm.phantoms, arm.gone.value, arm.repaired.value, arm.clean.value) == (4, 0.75, 0.5, 0.25)
    assert (arm.others_kept.value, arm.added.value) == (0.75, 1.0)
    assert arm.gone.low < arm.gone.value < arm.gone.high
    cases = by_case(outcomes)
    assert list(cases) == ["a", "b"] and cases["a"].phantoms == 3 and cases["b"].gone.value == 0.0
    assert math.isnan(scored([]).gone.value)
    lines = table({"one arm": arm, "b": cases["b"]}).splitlines()
    assert len(lines) == 3 and lines[1].startswith("one arm") and "75 (" in lines[1] and "1.00" in lines[1]


# ---- finding phantoms ------------------------------------------------------------------------------


def test_phantoms_are_the_scenes_that_name_what_is_not_there(toy: LinearSession) -> None:
    config = PhantomsConfig(scenes=5, batch=2, first_seed=30)
    found = phantoms_in_captions(toy, config)
    assert [phantom.scene.seed for phantom in found] == [30, 31, 32, 33, 34] and set(toy.batches) == {1, 2}
    assert {(p.word, p.answer, p.instead) for p in found} == {("dog", "A cake, dog, cat.", "A cake, cat.")}
    asked = phantoms_in_answers(toy, config)
    assert {p[2:] for p in asked} == {("Is there a dog in the image?", "Yes.", "Yes", "No.")}
    toy.scores["dog"] = -1.0
    assert not phantoms_in_captions(toy, config) and not phantoms_in_answers(toy, config)


def test_the_word_is_the_one_that_the_caption_uses(toy: LinearSession) -> None:
    assert word_for(toy, "A table with two cats.", "cat") == "cats"
    assert word_for(toy, "A table with a fork and knife.", "fork_and_knife") == "fork and knife"
    assert word_for(toy, "A table.", "cat") is None and word_for(toy, "A cat.", None) is None


def test_answers_come_back_in_order_in_batches_of_one_prompt_and_are_asked_for_once(
    toy: LinearSession,
) -> None:
    one, other = (found.neuron for found in toy.view.top(2))
    first, second = Edit(one, -50.0, "set", "active"), Edit(other, 9.0)
    asked = [
        Ask(toy.view, prompt, edits)
        for edits in ((), (first,), (second,), (first, second), (second, first))
        for prompt in ("Describe.", "Is there a dog in the image?", "Is there a cat in the image?")
    ] * 2
    got = answers_to(toy, asked, PhantomsConfig(batch=3))
    assert got == [toy.answer(toy.view, ask.prompt, ask.edits) for ask in asked]
    assert toy.batches == [3, 1, 3, 1, 3, 1] and len(set(got)) > 2


# ---- choosing and trying ---------------------------------------------------------------------------


def phantom(toy: LinearSession) -> Phantom:
    return Phantom(scene_of(7), toy.view, "Describe.", toy.answer(toy.view), "dog", "A cake, cat.")


def test_rankings_are_those_of_the_analysis(toy: LinearSession) -> None:
    found, suspects = rankings(toy, phantom(toy), measure=5)
    orders = {order.name: order for order in found}
    assert len(orders) == len(found)
    against, one = {"instead": "A cake, cat."}, unit(toy.view)
    assert one == 0.1, "its activations are a tenth of the embedded SAE's"
    for name, value, options, values in (
        ("word at 0", 0.0, {}, (0.0, -30.0)),
        ("word at -30", -30.0 * one, {}, (-30.0 * one,)),
        ("contrast", -10.0 * one, against, (-10.0 * one, 0.0)),
    ):
        for by in ("measured", "selective"):
            known = attribute(toy, toy.view, "dog", measure=5, value=value, by=by, joint=3, **options)
            order = orders[f"{name}, {by}"]
            assert order.neurons == tuple(e.neuron for e in known.ranked[:3]) and order.values == values
            together = orders.get(f"{name}, together")
            if together is not None and by == ("selective" if name == "contrast" else "measured"):
                assert together.neurons == known.joint[-1].neurons
    known = attribute(toy, toy.view, "dog", measure=5)
    kept = [e.neuron for e in known.ranked if e.neuron != 3]
    assert orders["word at 0, measured, no always-on"].neurons == tuple(kept[:3])
    assert orders["guess for the word"].neurons == tuple(guess.neuron for guess in known.guesses[:3])
    assert [known.value for known in suspects] == [-10.0 * one, -30.0 * one]
    assert suspects[0].instead == "A cake, cat."
    assert orders["strongest"].neurons == tuple(active.neuron for active in toy.view.top(3))
    firing = set(toy.view.codes.neurons.tolist())
    assert len(set(orders["random"].neurons)) == 3 and set(orders["random"].neurons) <= firing
    assert orders["random"].values == (0.0, -30.0, -10.0 * one)
    assert rankings(toy, phantom(toy), measure=5).orders == found
    other = {order.name: order for order in rankings(toy, phantom(toy), measure=5, seed=1).orders}
    assert other["random"] != orders["random"]


def test_trials_are_every_count_value_and_region_once(toy: LinearSession) -> None:
    orders = [Ranking("one", (4, 2, 9), (0.0, -30.0)), Ranking("two", (5,), (-30.0,))]
    trials = trials_of(phantom(toy), orders)
    assert len({trial.arm for trial in trials}) == len(trials) == 7 + 2
    by_arm = {trial.arm: [(e.neuron, e.value, e.patches) for e in trial.edits] for trial in trials}
    assert by_arm["one | -30 | everywhere | 1"] == [(4, -30.0, None)]
    assert by_arm["one | -30 | active | 2"] == [(4, -30.0, "active"), (2, -30.0, "active")]
    assert by_arm["one | 0 | active | 3"] == [(n, 0.0, "active") for n in (4, 2, 9)]
    assert not any(arm.startswith("one | 0 | everywhere") for arm in by_arm)
    assert len(trials_of(phantom(toy), orders, ["active"])) == 7


def test_repairs_at_random_are_the_same_trials_with_other_neurons(toy: LinearSession) -> None:
    tried = [(Edit(900, -10.0, "set", "active"),), (Edit(901, 0.0), Edit(900, 0.0))]
    drawn = at_random(phantom(toy), tried)
    assert [[(e.value, e.patches) for e in edits] for edits in drawn] == [
        [(e.value, e.patches) for e in edits] for edits in tried
    ]
    assert drawn[0][0].neuron == drawn[1][1].neuron != drawn[1][0].neuron
    assert {e.neuron for edits in drawn for e in edits} <= set(toy.view.codes.neurons.tolist())


# ---- the whole -------------------------------------------------------------------------------------


def test_the_report_counts_what_the_session_answers(
    toy: LinearSession, capsys: pytest.CaptureFixture
) -> None:
    report = run(PhantomsConfig(scenes=2, measure=5, batch=9))
    ranked = attribute(toy, toy.view, "dog", measure=5).ranked
    questions = attribute(toy, toy.view, "Yes", "Is there a dog in the image?", measure=5).ranked
    for count in (1, 2, 3):
        for value in (0.0, -30.0):
            arm = f"word at 0, measured | {value:g} | active | {count}"
            edits = [Edit(effect.neuron, value, "set", "active") for effect in ranked[:count]]
            said = toy.answer(toy.view, edits=edits)
            got = report["captions"]["arms"][arm]
            assert got.gone.value == ("dog" not in said) and got.phantoms == 2
            assert got.others_kept.value == (("cake" in said) + ("cat" in said)) / 2
            edits = [Edit(effect.neuron, value, "set", "active") for effect in questions[:count]]
            got = report["questions"]["arms"][arm]
            assert got.gone.value == (toy.answer(toy.view, "Is there a dog in the image?", edits) == "No.")
            right = toy.answer(toy.view, "Is there a cake in the image?", edits)
            assert got.others_kept.value == (right == "Yes.")
    shares = report["captions"]["always_on_first"]
    assert shares["word at 0, measured"] == (ranked[0].neuron == 3)
    assert shares["word at 0, measured, no always-on"] == 0
    assert set(report["captions"]["cases"]["random | 0 | active | 1"]) == {"case 0", "case 1"}
    best = repair(toy, toy.view, "dog", measure=5).tried[0]
    got = report["captions"]["arms"][REPAIR]
    assert got.gone.value == best.gone and got.phantoms == 2 and REPAIR not in report["questions"]["arms"]
    assert got.clean.value == (best.gone and not best.lost)
    assert report["captions"]["arms"][CHANCE].phantoms == 2 and CHANCE not in report["questions"]["arms"]
    assert "captions: 2 phantoms" in capsys.readouterr().err


def test_the_command_writes_json_and_refuses_wrong_numbers(
    toy: LinearSession, tmp_path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "report.json"
    few = ["--scenes", "1", "--values", "0", "--regions", "active", "--no-questions"]
    assert main([*few, "--out", str(out)]) == 0
    assert '"phantoms": 1' in out.read_text() and '"questions"' not in out.read_text().split("config")[0]
    for wrong in (["--scenes", "0"], ["--measure", "2"], ["--values", "nan"], ["--batch", "0"]):
        assert main([*few, *wrong]) == 2
    assert "error" in capsys.readouterr().err
    with pytest.raises(ExplorerError, match="3 or more"):
        PhantomsConfig(measure=1)
    toy.scores["dog"] = -1.0
    empty = run(PhantomsConfig(scenes=1))
    assert empty["captions"]["phantoms"] == 0 and empty["captions"]["arms"] == {}
    assert np.isnan(scored([]).added.value)
