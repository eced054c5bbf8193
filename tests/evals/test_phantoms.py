"""Phantoms: judging by the truth, choosing and counting, on a linear toy whose answers can be worked out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from linear_session import LinearSession

from explorer.analyze.attribution import attribute
from explorer.errors import ExplorerError
from explorer.evals import phantoms
from explorer.evals.outcomes import Outcome, by_case, caption_outcome, scored, table
from explorer.evals.phantoms import (
    Ask,
    Phantom,
    PhantomsConfig,
    Ranking,
    answers_to,
    main,
    phantoms_in_answers,
    phantoms_in_captions,
    rankings,
    run,
    trials_of,
    word_for,
)
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
    session.look = lambda image: session.view
    monkeypatch.setattr(phantoms, "draw", lambda seed, family: scene_of(seed))
    monkeypatch.setattr(phantoms.Session, "open", lambda *parts: session)
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
    assert {(phantom.word, phantom.answer) for phantom in found} == {("dog", "A cake dog cat.")}
    asked = phantoms_in_answers(toy, config)
    assert {(p.word, p.prompt, p.answer) for p in asked} == {("Yes", "Is there a dog in the image?", "Yes.")}
    toy.scores["dog"] = -1.0
    assert not phantoms_in_captions(toy, config) and not phantoms_in_answers(toy, config)


def test_the_word_is_the_one_that_the_caption_uses(toy: LinearSession) -> None:
    assert word_for(toy, "A table with two cats.", "cat") == "cats"
    assert word_for(toy, "A table with a fork and knife.", "fork_and_knife") == "fork and knife"


def test_answers_come_back_in_order_and_in_batches_of_one_prompt(toy: LinearSession) -> None:
    gone = (Edit(toy.view.top(1)[0].neuron, -50.0, "set", "active"),)
    asked = [
        Ask(toy.view, prompt, edits)
        for edits in ((), gone)
        for prompt in ("Describe.", "Is there a dog in the image?", "Is there a cat in the image?")
    ] * 2
    got = answers_to(toy, asked, PhantomsConfig(batch=3))
    assert got == [toy.answer(toy.view, ask.prompt, ask.edits) for ask in asked]
    assert toy.batches == [3, 1, 3, 1, 3, 1] and len(set(got)) > 2


# ---- choosing and trying ---------------------------------------------------------------------------


def phantom(toy: LinearSession) -> Phantom:
    return Phantom(scene_of(7), toy.view, "Describe.", toy.answer(toy.view), "dog")


def test_rankings_are_those_of_the_analysis(toy: LinearSession) -> None:
    config = PhantomsConfig(measure=5)
    found = {order.name: order for order in rankings(toy, phantom(toy), config)}
    for value in config.values:
        known = attribute(toy, toy.view, "dog", measure=5, value=value, joint=3)
        order = found[f"measured at {value:g}"]
        assert order.neurons == tuple(e.neuron for e in known.ranked[:3])
        assert order.values == (config.values if value == 0 else (value,))
        assert found[f"together at {value:g}"].neurons == known.joint[-1].neurons
        selective = attribute(toy, toy.view, "dog", measure=5, value=value, by="selective")
        assert found[f"selective at {value:g}"].neurons == tuple(e.neuron for e in selective.ranked[:3])
        kept = [e.neuron for e in known.ranked if e.neuron != 3]
        assert found[f"measured, no always-on at {value:g}"].neurons == tuple(kept[:3])
    assert found["guess"].neurons == tuple(guess.neuron for guess in known.guesses[:3])
    assert found["strongest"].neurons == tuple(active.neuron for active in toy.view.top(3))
    firing = set(toy.view.codes.neurons.tolist())
    assert len(set(found["random"].neurons)) == 3 and set(found["random"].neurons) <= firing
    again = {order.name: order for order in rankings(toy, phantom(toy), config)}
    assert again == found


def test_trials_are_every_count_value_and_region_once(toy: LinearSession) -> None:
    config = PhantomsConfig()
    orders = [Ranking("one", (4, 2, 9), (0.0, -30.0)), Ranking("two", (5,), (-30.0,))]
    trials = trials_of(phantom(toy), orders, config)
    assert len({trial.arm for trial in trials}) == len(trials) == 9 + 2
    by_arm = {trial.arm: trial.edits for trial in trials}
    told = [(e.neuron, e.value, e.patches) for e in by_arm["one | -30 | everywhere | 2"]]
    assert told == [(4, -30.0, None), (2, -30.0, None)]
    assert [e.patches for e in by_arm["one | 0 | active | 3"]] == ["active"] * 3
    assert not any(arm.startswith("one | 0 | everywhere") for arm in by_arm)


# ---- the whole -------------------------------------------------------------------------------------


def test_the_report_counts_what_the_session_answers(
    toy: LinearSession, capsys: pytest.CaptureFixture
) -> None:
    report = run(PhantomsConfig(scenes=2, measure=5, batch=9))
    ranked = attribute(toy, toy.view, "dog", measure=5).ranked
    questions = attribute(toy, toy.view, "Yes", "Is there a dog in the image?", measure=5).ranked
    for count in (1, 2, 3):
        for value in (0.0, -30.0):
            arm = f"measured at 0 | {value:g} | active | {count}"
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
    assert shares["measured at 0"] == (ranked[0].neuron == 3) and shares["measured, no always-on at 0"] == 0
    assert set(report["captions"]["cases"]["guess | 0 | active | 1"]) == {"case 0", "case 1"}
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
