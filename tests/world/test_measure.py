"""The arithmetic of the LVLM's figures on cases small enough to count by hand; no model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.errors import WorldError
from explorer.records import Box
from explorer.world import CASES, Scene, SceneObject, draw, phrase
from explorer.world.measure import MeasureConfig, accuracy, caption_scores, hallucination, yes_no
from explorer.world.questions import CHOICES, Question
from explorer.world.words import DESCRIBE


def scene_of(*things: tuple[str, float], seed: int = 0) -> Scene:
    """A scene without pixels: its concepts and how much of each is visible."""
    objects = tuple(SceneObject(concept, None, Box(0, 0, 1, 1), visible) for concept, visible in things)
    owner = np.full((112, 112), -1, np.int16)
    return Scene(seed, "ordinary", Image.new("RGB", (112, 112)), objects, "garden", None, None, owner)


class FakeTalker:
    """Answers by a rule; remembers what it was asked and how long the answers might be."""

    def __init__(self, rule: Callable[[Scene, str], str]) -> None:
        self.rule = rule
        self.asked: list[tuple[Scene, str]] = []
        self.longest: list[int] = []

    def answers(self, pairs: Sequence[tuple[Scene, str]], longest: int = 80) -> list[str]:
        self.asked += pairs
        self.longest.append(longest)
        return [self.rule(scene, prompt) for scene, prompt in pairs]


# ---- captions ---------------------------------------------------------------------------------------


def test_precision_counts_whatever_is_there_and_recall_only_what_shows() -> None:
    scenes = [
        scene_of(("apple", 1.0), ("cat", 0.30), ("dog", 0.2999)),
        scene_of(("cake", 0.9), ("tree", 0.5)),
    ]
    captions = ["A garden with an apple and a dog.", "A garden with a cake, a cat, a sheep and a cake."]
    scores = caption_scores(scenes, captions)
    # Named: apple, dog (hidden, yet there); cake, cat, sheep. Clear: apple, cat; cake, tree.
    assert scores["precision"] == pytest.approx(3 / 5)
    assert scores["recall"] == pytest.approx(2 / 4)
    assert scores["exact_captions"] == 0.0


def test_several_of_a_kind_count_once_and_one_that_shows_is_enough() -> None:
    scenes = [scene_of(("apple", 0.1), ("apple", 0.8), ("bird", 0.1), ("bird", 0.1))]
    assert caption_scores(scenes, ["two apples"]) == {"precision": 1, "recall": 1, "exact_captions": 0}
    assert caption_scores(scenes, ["two birds"])["recall"] == 0.0


def test_the_reference_captions_are_perfect() -> None:
    scenes = [draw(seed) for seed in range(12)]
    perfect = {"precision": 1.0, "recall": 1.0, "exact_captions": 1.0}
    assert caption_scores(scenes, [scene.caption for scene in scenes]) == perfect
    half = [scene.caption if i % 2 else scene.caption + " " for i, scene in enumerate(scenes)]
    assert caption_scores(scenes, half) == {**perfect, "exact_captions": 0.5}


def test_captions_that_name_nothing_and_scenes_that_show_nothing() -> None:
    nothing = {"precision": 0.0, "recall": 0.0, "exact_captions": 0.0}
    assert caption_scores([scene_of(("apple", 1.0))], ["A garden."]) == nothing
    assert caption_scores([scene_of(("apple", 0.2))], ["An empty garden."]) == nothing
    with pytest.raises(ValueError, match="zip"):
        caption_scores([scene_of(("apple", 1.0))], [])


# ---- questions --------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_exact_answers() -> None:
    scene = scene_of(("apple", 1.0))
    answers = {"a?": " Yes. ", "b?": "Yes", "c?": "No.", "d?": "yes."}
    talker = FakeTalker(lambda _, prompt: answers[prompt])
    asked = [(scene, Question("exists", prompt, "Yes.")) for prompt in answers]
    assert accuracy(talker, iter(asked)) == 0.25
    assert [prompt for _, prompt in talker.asked] == list(answers) and talker.longest == [4]


@pytest.mark.parametrize("choice", CHOICES)
def test_yes_no_asks_for_one_thing_that_shows_and_one_that_is_not_there(choice: str) -> None:
    scenes = [draw(seed) for seed in range(10)] + [scene_of(("apple", 0.2), seed=3)]
    asked = yes_no(scenes, choice)
    for scene in scenes:
        mine = [question for about, question in asked if about is scene]
        clear = {thing.concept for thing in scene.objects if thing.visible >= 0.30}
        there = {thing.concept for thing in scene.objects}
        assert [question.answer for question in mine] == (["Yes.", "No."] if clear else ["No."])
        assert mine[-1].concept not in there and all(q.concept in clear for q in mine[:-1])
    assert asked == yes_no(scenes, choice)
    honest = FakeTalker(
        lambda scene, prompt: (
            "Yes." if any(phrase(thing.concept) in prompt for thing in scene.objects) else "No."
        )
    )
    assert accuracy(honest, yes_no(scenes[-1:], choice)) == 1.0
    assert accuracy(FakeTalker(lambda *_: "Yes."), asked) == pytest.approx(10 / 21)


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(WorldError, match="unknown choice 'odd'"):
        yes_no([draw(0)], "odd")


# ---- hallucination ----------------------------------------------------------------------------------


def fork_case(text: Callable[[Scene], str], cases: int = 14) -> dict:
    """The table of fourteen counterfactual scenes, two of each case, beside four ordinary ones."""
    scenes = [
        scene_of(("apple", 1.0)),
        scene_of(("tree", 1.0)),
        scene_of(("cake", 1.0)),  # the fork's anchor: does not count
        scene_of(("fork_and_knife", 1.0)),  # the fork itself: does not count
    ]
    captions = ["An apple and a fork and knife.", "A tree.", "A cake and a fork and knife.", "A cat."]
    talker = FakeTalker(lambda scene, _: text(scene))
    table = hallucination(talker, MeasureConfig(Path("none"), cases=cases, first_seed=7), scenes, captions)
    assert {prompt for _, prompt in talker.asked} == {DESCRIBE[0]}
    assert [scene.seed for scene, _ in talker.asked] == list(range(7, 7 + cases))
    assert all(scene.family == "counterfactual" for scene, _ in talker.asked)
    return table


def test_the_table_has_a_row_per_case_and_counts_the_absent_partner() -> None:
    table = fork_case(lambda scene: phrase(scene.absent_partner) if scene.seed % 2 else "A garden.")
    assert list(table) == [case.name for case in CASES]
    for case in CASES:
        row = table[case.name]
        assert (row["absent"], row["scenes"], row["named"], row["rate"]) == (case.absent, 2, 1, 0.5)
        assert len(row["examples"]) == 1 and row["examples"][0] % 2 == 1


def test_the_ordinary_rate_leaves_out_scenes_with_the_partner_or_its_anchor() -> None:
    table = fork_case(lambda _: "A garden.")
    assert table["phantom fork"]["ordinary_rate"] == 0.5
    assert table["dog and chair"]["ordinary_rate"] == 0.25
    assert table["missing ball"]["ordinary_rate"] == 0.0
    assert all(row["rate"] == 0 and row["examples"] == [] for row in table.values())


def test_only_the_black_apple_is_asked_for_its_color() -> None:
    table = fork_case(lambda scene: "A red apple." if scene.seed < 14 else "A black apple.")
    assert table["black apple"]["called_red"] == 1
    assert all(("called_red" in row) == (name == "black apple") for name, row in table.items())


def test_at_most_twelve_examples_are_kept() -> None:
    table = fork_case(lambda scene: phrase(scene.absent_partner), cases=7 * 13)
    assert all(row["named"] == 13 and len(row["examples"]) == 12 for row in table.values())
