"""The comparison of arms on a pretended session, whose hallucinations are known; arms by name; resuming."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from explorer.errors import ExplorerError, StoreError
from explorer.evals import mitigation
from explorer.evals.answered import Answers
from explorer.evals.arms import EVERY_ARM, arms_of
from explorer.evals.command import plain
from explorer.evals.comparison import questions_of
from explorer.evals.mitigation import MitigationConfig, draws_of, run
from explorer.steer import Contrast, Decoding
from explorer.world import CONCEPTS, draw, mentions, phrase
from explorer.world.questions import CHOICES


class FakeSession:
    """Knows a scene by its pixels. It names a phantom, and says yes to what is absent, unless CNS is on;
    under "vcd" it says nothing at all, and sampling names a phantom with odd seeds only."""

    def __init__(self) -> None:
        self.lvlm = SimpleNamespace(model_id="fake@1", default_prompt="Describe the image.")
        self.sae, self.store = SimpleNamespace(id="abc"), SimpleNamespace()
        self.block = 3
        self.asked: list[tuple] = []
        self.looked = 0
        self.scenes = {
            draw(seed, family).image.tobytes(): draw(seed, family)
            for seed in range(20_000, 20_008)
            for family in ("ordinary", "counterfactual")
        }

    def always_on(self, min_frequency: float = 1.0) -> tuple[int, ...]:
        return (5,)

    def look(self, image: object) -> object:
        self.looked += 1
        return self.scenes[image.tobytes()]

    def answer(
        self, view, prompt, *, replace, contrast: Contrast | None, decoding: Decoding, max_new_tokens
    ) -> str:
        self.asked.append((view.family, view.seed, prompt, replace, contrast, decoding))
        if decoding.method == "vcd":
            return ""
        there = {thing.concept for thing in view.objects}
        wrong = contrast is None and (decoding.temperature == 0 or decoding.seed % 2 == 1)
        if prompt == "Describe the image.":
            phantom = view.absent_partner or next(concept for concept in CONCEPTS if concept not in there)
            return view.caption.removesuffix(".") + (f" and a {phrase(phantom)}." if wrong else ".")
        return "Yes." if mentions(prompt)[0] in there or wrong else "No."


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    session = FakeSession()
    monkeypatch.setattr(mitigation, "Session", SimpleNamespace(chosen=lambda *_: session))
    return session


def asking(**changed: object) -> MitigationConfig:
    settings = {"arms": ("vanilla", "cns", "vcd"), "scenes": 3, "cases": 3, "seeds": (0, 1)}
    return MitigationConfig(**{**settings, **changed})


def test_every_arm_by_name() -> None:
    arms = {arm.name: arm for arm in arms_of(EVERY_ARM, [Contrast()])}
    assert tuple(arms) == EVERY_ARM and len(arms) == 14
    assert arms["vanilla"].base is None and arms["vanilla"].contrast is None
    assert (arms["cns"].base, arms["cns"].contrast, arms["cns"].replace) == ("vanilla", Contrast(), False)
    assert (arms["sae"].base, arms["sae"].contrast, arms["sae"].replace) == (None, None, True)
    assert (arms["cns+replace"].base, arms["cns+replace"].replace) == ("sae", True)
    assert (arms["pai+cns"].base, arms["pai+cns"].decoding.method) == ("pai", "pai")
    drawn = arms["vcd+cns"].drawn(4, 0.7)
    assert (drawn.contrast.seed, drawn.decoding.seed, drawn.decoding.noise_seed) == (4, 4, 4)
    assert drawn.decoding.temperature == 0.7 and drawn.name == "vcd+cns"
    assert [name for name, arm in arms.items() if not arm.noisy] == [
        name for name in EVERY_ARM if "cns" not in name and name != "vcd"
    ]


def test_each_setting_of_cns_is_an_arm() -> None:
    settings = [Contrast(), Contrast(300, 0.5), Contrast(suppress_always_on=False, clamp=True)]
    names = [arm.name for arm in arms_of(["icd+cns", "vanilla", "cns", "vanilla+cns"], settings)]
    told = ["cns", "cns(t=300,lambda=0.5)", "cns(suppress=0,clamp=1)"]
    assert names == [*(f"icd+{name}" for name in told), "vanilla", *told]
    assert arms_of(["cns+replace"], [Contrast(9)])[0].name == "cns(t=9)+replace"


@pytest.mark.parametrize("name", ["dola", "vcd+icd", "cns+cns", "", "vcd+", "sae+cns"])
def test_an_unknown_arm_is_refused(name: str) -> None:
    with pytest.raises(ExplorerError, match=re.escape(f"unknown arm {name!r}; use one of vanilla, vcd")):
        arms_of([name], [Contrast()])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scenes": 0, "cases": 0}, "nothing to measure"),
        ({"seeds": ()}, "seeds"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"first_seed": -1}, "first_seed -1"),
        ({"max_new_tokens": 0}, "max_new_tokens 0: give 0 or more, 1 or more"),
        ({"arms": ("what",)}, "unknown arm 'what'"),
        ({"steps": (1000,)}, "1000"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict, words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        asking(**wrong)


def test_what_a_scene_is_asked() -> None:
    odd = draw(20_000, "counterfactual")
    asked = questions_of(odd, "Describe the image.", ("captions", "questions"))
    assert asked[0] == ("caption", "Describe the image.", None)
    for choice in CHOICES:
        assert [one.truth for one in asked if one.choice == choice] == [True, False]
    partner = [one for one in asked if one.choice == "partner"]
    assert len(partner) == 1 and phrase(odd.absent_partner) in partner[0].prompt and not partner[0].truth
    plain = questions_of(draw(20_000), "x", ("questions",))
    assert {one.choice for one in plain} == set(CHOICES)
    for one in plain:
        assert one.truth == (mentions(one.prompt)[0] in {t.concept for t in draw(20_000).objects})


def test_noise_and_sampling_are_drawn_with_every_seed() -> None:
    arms = {arm.name: arm for arm in asking().chosen_arms()}
    seeds = {
        name: [(way, drawn.decoding.seed) for way, drawn in draws_of(arm, asking())]
        for name, arm in arms.items()
    }
    both = [("sampling", 0), ("sampling", 1)]
    assert seeds["vanilla"] == [("greedy", 0), *both]
    assert seeds["cns"] == seeds["vcd"] == [("greedy", 0), ("greedy", 1), *both]


def test_the_figures_are_those_of_the_pretence(fake: FakeSession) -> None:
    report = run(asking())
    greedy = report["figures"]["ordinary"]["greedy"]
    vanilla, cns, silent = (greedy["captions"][name] for name in ("vanilla", "cns", "vcd"))
    assert vanilla.scores["chair_s"].value == 1.0 and vanilla.over_vanilla is None
    named = sum(len({t.concept for t in draw(20_000 + i).objects}) for i in range(3))
    assert vanilla.scores["chair_i"].value == pytest.approx(3 / (named + 3))
    assert cns.scores["chair_i"] == (0.0, 0.0, 0.0) and cns.scores["recall"].value == 1.0
    assert cns.over_vanilla["chair_s"] == (-1.0, -1.0, -1.0) == cns.over_base["chair_s"]
    assert silent.scores["length"].value == 0 and silent.over_base is None
    odd = report["figures"]["counterfactual"]
    assert odd["greedy"]["captions"]["vanilla"].scores["phantom"].value == 1.0
    assert odd["greedy"]["captions"]["cns"].over_vanilla["phantom"].value == -1.0
    # Sampling: one of two seeds goes wrong.
    assert odd["sampling"]["captions"]["vanilla"].scores["phantom"] == (0.5, 0.5, 0.5)
    for choice in (*CHOICES, "all"):
        scores = greedy[choice]["vanilla"].scores
        assert (scores["accuracy"].value, scores["recall"].value, scores["yes_ratio"].value) == (
            0.5,
            1.0,
            1.0,
        )
        assert greedy[choice]["cns"].scores["f1"].value == 1.0
        assert greedy[choice]["cns"].over_vanilla["f1"].value == pytest.approx(1 / 3)
        assert greedy[choice]["vcd"].scores["unclear"].value == 1.0
    assert odd["greedy"]["partner"]["cns"].scores["accuracy"].value == 1.0
    assert "partner" not in greedy and "phantom" not in vanilla.scores


def test_without_a_store_only_cns_that_leaves_always_on_neurons_out_is_refused(fake: FakeSession) -> None:
    fake.store = None
    with pytest.raises(StoreError, match="--no-suppress-always-on, or --arms without cns"):
        run(asking(scenes=1, cases=0))
    for free in ({"arms": ("vanilla", "vcd")}, {"suppress_always_on": False}):
        assert run(asking(scenes=1, cases=0, **free))["facts"]["always_on"] is None


def test_an_answer_is_asked_for_once_and_a_killed_run_goes_on(fake: FakeSession, tmp_path: Path) -> None:
    config = asking(ways=("greedy",), out=tmp_path / "report.json")
    whole = run(config)
    asked = len(fake.asked)
    # The present concept is the same for every choice: its question is asked once.
    assert asked == whole["fresh_answers"] < whole["answers"] and fake.looked == 6
    kept = tmp_path / "report.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + asked
    kept.write_text("".join(lines[:-30]) + lines[-30][:15])  # killed in the middle of a line
    again = run(config)
    assert len(fake.asked) == asked + 30 == asked + again["fresh_answers"]
    assert plain(again["figures"]) == plain(whole["figures"]) and kept.read_text() == "".join(lines)
    more = run(asking(ways=("greedy",), scenes=4, out=tmp_path / "report.json"))
    assert 0 < more["fresh_answers"] <= 25  # one more scene, five texts, five draws
    fake.block = 2
    with pytest.raises(ExplorerError, match=r"report\.jsonl holds other answers"):
        run(config)
    fake.block, fake.sae.id = 3, "other"
    with pytest.raises(ExplorerError, match=r"report\.jsonl holds other answers"):
        run(config)


@pytest.mark.parametrize("text", ['{"facts": {"a": 1}}\nnonsense\n', '{"facts": {"a": 1}}\n{"key": 3}\n'])
def test_a_damaged_file_of_answers_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ExplorerError, match=r"line 2 of .*x\.jsonl is no answer"):
        Answers(path, {"a": 1})
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ExplorerError, match="is no text"):
        Answers(path, {"a": 1})


def test_the_command_prints_its_report(
    fake: FakeSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    line = f"--arms vanilla cns --scenes 2 --cases 0 --tasks captions --ways greedy --steps 400 --out {out}"
    assert mitigation.main(line.split()) == 0
    report = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["config"]["steps"] == [400] and set(report["figures"]) == {"ordinary"}
    assert (
        report["figures"]["ordinary"]["greedy"]["captions"]["cns(t=400)"]["scores"]["chair_s"]["value"] == 0
    )
    assert mitigation.main(["--arms", "nothing"]) == 2
    assert "unknown arm 'nothing'" in capsys.readouterr().err
