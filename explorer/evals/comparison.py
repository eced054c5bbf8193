"""From what the arms of a comparison said about drawn scenes to their scores.

Knows scenes, questions and scores; nothing of models or how the answers came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from explorer.evals.arms import Arm
from explorer.evals.scores import (
    Interval,
    Tally,
    differences,
    intervals,
    object_hallucination,
    tally,
    yes_no,
    yes_or_no,
)
from explorer.world import Scene, mentions
from explorer.world.measure import VISIBLE
from explorer.world.measure import yes_no as asked_of
from explorer.world.questions import CHOICES, exists

CAPTION = "caption"


class Asked(NamedTuple):
    """A question to a scene. choice: "caption", how its concept was chosen, or "partner" (the absent one
    that a prior expects); truth: whether "yes" is right; None for a caption."""

    choice: str
    prompt: str
    truth: bool | None


class Said(NamedTuple):
    """One answer. arm, way: what gave it."""

    arm: str
    way: str
    scene: Scene
    asked: Asked
    answer: str


class Figures(NamedTuple):
    """Scores of one arm, and its paired differences to the untouched model and to the same arm without CNS.

    None where there is nothing to compare with.
    """

    scores: dict[str, Interval]
    over_vanilla: dict[str, Interval] | None
    over_base: dict[str, Interval] | None


def questions_of(scene: Scene, prompt: str, tasks: Sequence[str]) -> list[Asked]:
    """What a scene is asked: for a caption, for a present and an absent concept of each choice, and for the
    absent partner."""
    asked = [Asked(CAPTION, prompt, None)] if "captions" in tasks else []
    if "questions" in tasks:
        for choice in CHOICES:
            found = [question for _, question in asked_of([scene], choice)]
            asked += [Asked(choice, question.prompt, question.answer == "Yes.") for question in found]
        if scene.absent_partner is not None:
            asked.append(Asked("partner", exists(scene.absent_partner, False).prompt, False))
    return asked


def tallies(said: Sequence[Said]) -> dict[str, dict[str, Tally]]:
    """Scores of one arm's answers by what was asked: captions, each choice, and all choices together."""
    captions = [one for one in said if one.asked.truth is None]
    found: dict[str, dict[str, Tally]] = {}
    if captions:
        named = [mentions(one.answer) for one in captions]
        there = [{thing.concept for thing in one.scene.objects} for one in captions]
        clear = [{t.concept for t in one.scene.objects if t.visible >= VISIBLE} for one in captions]
        scenes = [one.scene.seed for one in captions]
        found["captions"] = object_hallucination(scenes, named, there, clear)
        odd = [i for i, one in enumerate(captions) if one.scene.absent_partner is not None]
        if odd:
            phantoms = [captions[i].scene.absent_partner in named[i] for i in odd]
            found["captions"]["phantom"] = tally([scenes[i] for i in odd], phantoms, [1] * len(odd))
    for choice in (*CHOICES, "partner", "all"):
        chosen = [
            one
            for one in said
            if one.asked.choice == choice or (choice == "all" and one.asked.choice in CHOICES)
        ]
        if chosen:
            truths = [bool(one.asked.truth) for one in chosen]
            replies = [yes_or_no(one.answer) for one in chosen]
            found[choice] = yes_no([one.scene.seed for one in chosen], truths, replies)
    return found


def figures(said: Mapping[str, Sequence[Said]], arms: Sequence[Arm]) -> dict[str, dict[str, Figures]]:
    """Scores by what was asked and arm. said: the answers of each arm to the same scenes, in one way."""
    counted = {arm.name: tallies(said[arm.name]) for arm in arms}
    table: dict[str, dict[str, Figures]] = {}
    for arm in arms:
        for what, scores in counted[arm.name].items():
            others = [None if name == arm.name else counted.get(name) for name in ("vanilla", arm.base)]
            apart = [None if other is None else differences(scores, other[what]) for other in others]
            table.setdefault(what, {})[arm.name] = Figures(intervals(scores), *apart)
    return table
