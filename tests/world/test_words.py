"""Captions, phrases and the reading of concepts out of a text; questions and their answers."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.errors import WorldError
from explorer.world import CONCEPTS, draw, mentions, phrase
from explorer.world.questions import (
    CHOICES,
    absent_concept,
    colors,
    cooccurrence,
    counts,
    exists,
    training_questions,
)
from explorer.world.words import BY_NAME, Kind, caption


def test_every_phrase_and_plural_reads_back() -> None:
    for concept in CONCEPTS:
        entry = BY_NAME[concept]
        assert mentions(f"A farm with a {entry.phrase}.") == (concept,)
        assert mentions(f"two {entry.plural.upper()}!") == (concept,)


def test_longest_phrase_wins_and_words_are_whole() -> None:
    assert mentions("two hot dogs and a carrot") == ("hot_dog", "carrot")
    assert mentions("a dog, a hot dog and a dog") == ("dog", "hot_dog")
    assert mentions("a carpet, a scarf and a cupboard") == ()


def test_caption_grammar() -> None:
    kinds = [
        Kind("cake", 1, None),
        Kind("apple", 1, "black"),
        Kind("car", 3, "red"),
        Kind("umbrella", 1, "blue"),
    ]
    assert caption("farm", kinds) == "A farm with a cake, a black apple, three red cars and a blue umbrella."
    assert caption("farm", [Kind("fish", 2, None)]) == "A farm with two fish."
    assert exists("umbrella", False).prompt == "Is there an umbrella in the image?"


def test_phrase_of_an_unknown_concept() -> None:
    with pytest.raises(WorldError, match="unicorn"):
        phrase("unicorn")


def test_answers_are_true() -> None:
    for seed in range(60):
        scene = draw(seed)
        present = {thing.concept for thing in scene.objects}
        for question in training_questions(scene, np.random.default_rng(seed)):
            if question.kind == "exists":
                assert (question.answer == "Yes.") == (question.concept in present)
        for question in colors(scene):
            tones = {thing.color for thing in scene.objects if thing.concept == question.concept}
            assert {question.answer} == {f"{str(tone).capitalize()}." for tone in tones}
        for question in counts(scene):
            number = sum(thing.concept == question.concept for thing in scene.objects)
            assert question.answer == ("Zero", "One", "Two", "Three", "Four", "Five", "Six")[number] + "."


@pytest.mark.parametrize("choice", CHOICES)
def test_absent_concepts_are_absent(choice: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(40):
        scene = draw(seed, "counterfactual")
        assert absent_concept(scene, choice, rng) not in {thing.concept for thing in scene.objects}


def test_adversarial_picks_the_missing_partner() -> None:
    rng = np.random.default_rng(0)
    scene = next(s for s in (draw(seed, "counterfactual") for seed in range(0, 70, 7)) if len(s.kinds) == 1)
    picked = [absent_concept(scene, "adversarial", rng) for _ in range(60)]
    assert scene.absent_partner in picked
    assert cooccurrence()[CONCEPTS.index("cake"), CONCEPTS.index("fork_and_knife")] > 100
    with pytest.raises(WorldError, match="hardest"):
        absent_concept(scene, "hardest", rng)
