"""Questions about a scene with answers from its ground truth.

Yes/no questions choose the absent concept as POPE does (arXiv 2305.10355): at random, among
the most frequent concepts, or among those that most often come with what is there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from explorer.errors import WorldError
from explorer.world.concepts import CONCEPTS, INDEX
from explorer.world.layout import content
from explorer.world.scene import Scene
from explorer.world.words import BY_NAME, DESCRIBE, NUMBERS, article, phrase

CHOICES = ("random", "popular", "adversarial")


class Question(NamedTuple):
    """A prompt and its true answer. kind: describe, exists, color or count; concept: its subject."""

    kind: str
    prompt: str
    answer: str
    concept: str | None = None


@lru_cache(maxsize=1)
def cooccurrence(scenes: int = 6000) -> np.ndarray:
    """(concepts, concepts) counts of how often two kinds share an ordinary scene; diagonal: occurrences."""
    together = np.zeros((len(CONCEPTS), len(CONCEPTS)), np.int64)
    for seed in range(scenes):
        rng = np.random.default_rng([17, seed])
        present = [INDEX[kind.concept] for kind in content(rng, seed, "ordinary").kinds]
        together[np.ix_(present, present)] += 1
    return together


def absent_concept(scene: Scene, choice: str, rng: np.random.Generator) -> str:
    """A concept that the scene lacks, chosen "random", "popular" or "adversarial". Raises WorldError."""
    if choice not in CHOICES:
        raise WorldError(f"unknown choice {choice!r}; use one of {', '.join(CHOICES)}")
    present = [INDEX[kind.concept] for kind in scene.kinds]
    absent = np.setdiff1d(np.arange(len(CONCEPTS)), present)
    if choice == "random":
        return CONCEPTS[int(rng.choice(absent))]
    table = cooccurrence()
    weight = (
        np.diagonal(table)
        if choice == "popular"
        else (table[present] / table[present, present][:, None]).sum(0)
    )
    ranked = absent[np.argsort(-weight[absent], kind="stable")]
    among = 12 if choice == "popular" else 4
    return CONCEPTS[int(ranked[int(rng.integers(among))])]


def exists(concept: str, present: bool) -> Question:
    """Is there a X in the image?"""
    words = phrase(concept)
    prompt = f"Is there {article(words)} {words} in the image?"
    return Question("exists", prompt, "Yes." if present else "No.", concept)


def colors(scene: Scene) -> list[Question]:
    """What color is the X? For every single object of a kind with colour variants."""
    return [
        Question(
            "color",
            f"What color is the {phrase(kind.concept)}?",
            f"{str(kind.color).capitalize()}.",
            kind.concept,
        )
        for kind in scene.kinds
        if kind.color and kind.count == 1
    ]


def counts(scene: Scene) -> list[Question]:
    """How many X are there? For every kind in the scene."""
    return [
        Question(
            "count",
            f"How many {BY_NAME[kind.concept].plural} are there?",
            f"{NUMBERS[kind.count].capitalize()}.",
            kind.concept,
        )
        for kind in scene.kinds
    ]


def describe(scene: Scene, rng: np.random.Generator) -> Question:
    """Describe the image, in one of several wordings."""
    prompt = DESCRIBE[0] if rng.random() < 0.6 else DESCRIBE[int(rng.integers(len(DESCRIBE)))]
    return Question("describe", prompt, scene.caption)


def training_questions(scene: Scene, rng: np.random.Generator, yes_no: int = 4) -> list[Question]:
    """One description, balanced yes/no questions, up to two colours and up to two counts."""
    present = [kind.concept for kind in scene.kinds]
    asked = [describe(scene, rng)]
    for i in range(yes_no):
        if i % 2:
            asked.append(exists(present[int(rng.integers(len(present)))], True))
        else:
            choice = CHOICES[int(rng.choice(3, p=(0.4, 0.2, 0.4)))]
            asked.append(exists(absent_concept(scene, choice, rng), False))
    for pool in (colors(scene), counts(scene)):
        for i in rng.permutation(len(pool))[:2]:
            asked.append(pool[int(i)])
    return asked
