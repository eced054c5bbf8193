"""Do the neurons mean something, and do they steer? `python -m explorer.evals.neurons`.

On unseen drawn scenes: how many concepts have a neuron whose exemplars show them; how often
suppressing an object's neurons removes its mention and leaves the others; how often raising a
concept's neurons inserts it; and which neurons are always on. The neurons are those of
`session.find`, so that the figures are those of the product's own ranking.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from explorer.errors import ExplorerError
from explorer.evals.command import run_command
from explorer.evals.known import needed_concepts
from explorer.records import Edit
from explorer.session import Session, View
from explorer.steer.checks import LARGEST
from explorer.vlm.loading import Choice
from explorer.world import CONCEPTS, Scene, draw, mentions, phrase

EXEMPLARS = 16
MEANINGFUL = 14
Region = Literal["object", "active", "all"]
REGIONS = get_args(Region)
BLOCK = 9 / 14
"""How much of the grid, along each side, the block of patches takes in which a concept is inserted."""
GROUP = 32
"""Pictures that are looked at together: views of a model with many patches are large."""


@dataclass(frozen=True)
class NeuronsConfig(Choice):
    """What is measured: see each field. Raises ExplorerError for values that make no sense."""

    scenes: int = 200
    """unseen ordinary scenes"""
    first_seed: int = 20_000
    """seed of the first scene"""
    neurons: int = 3
    """most neurons per concept"""
    suppress: float = -15.0
    """what neurons are set to in order to silence a concept"""
    insert: float = 40.0
    """what neurons are set to in order to insert a concept, in a block of patches where least is seen"""
    region: Region = "object"
    """where suppressing acts: object (the patches where the session sees the concept), active (each neuron
    where it fires) or all patches"""
    per_scene: int = 2
    """concepts inserted per scene"""
    batch: int = 64
    """edited pictures answered at a time"""
    out: Path | None = None
    """JSON file for the report"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes < 1:
            raise ExplorerError(f"scenes must be 1 or more, not {self.scenes}")
        if self.region not in REGIONS:
            raise ExplorerError(f"unknown region {self.region!r}; use one of {', '.join(REGIONS)}")
        if not -100 <= self.suppress <= 0:
            raise ExplorerError(f"suppress must lie in [-100, 0], not {self.suppress}")
        for name, least in (("first_seed", 0), ("neurons", 1), ("per_scene", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ExplorerError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if not 0 <= self.insert <= LARGEST:
            raise ExplorerError(f"insert must lie in [0, {LARGEST:g}], not {self.insert}")


@dataclass(frozen=True)
class Trial:
    """One edited picture: the scene's place in the list, the concept, its edits."""

    scene: int
    concept: str
    edits: tuple[Edit, ...]


def caption_all(session: Session, views: Sequence[View], trials: Sequence[Trial], batch: int) -> list[str]:
    """The captions of all edited pictures, answered `batch` at a time."""
    texts: list[str] = []
    for start in range(0, len(trials), batch):
        part = trials[start : start + batch]
        texts += session.answers([(views[trial.scene], trial.edits) for trial in part])
    return texts


def neurons_of(session: Session, concept: str, config: NeuronsConfig) -> list[int]:
    """The product's own choice of neurons for a concept."""
    return [found.neuron for found in session.find(concept, config.neurons)]


def suppressing(session: Session, view: View, concept: str, config: NeuronsConfig) -> tuple[Edit, ...]:
    """The edits that suppress a concept's neurons in a picture."""
    where: str | np.ndarray | None = {"active": "active", "all": None}.get(config.region)
    if config.region == "object":
        seen = session.where(view, concept)
        where = seen if seen.any() else "active"
    return tuple(Edit(n, config.suppress, "set", where) for n in neurons_of(session, concept, config))


def free_block(scene: Scene, rows: int, cols: int) -> np.ndarray:
    """The block of patches that shows least of the scene's objects: (rows, cols) bool."""
    taken = scene.patch_objects(rows, cols, 0.1) >= 0
    high, wide = max(1, round(BLOCK * rows)), max(1, round(BLOCK * cols))
    places = [(r, c) for r in range(rows - high + 1) for c in range(cols - wide + 1)]
    row, col = min(places, key=lambda p: int(taken[p[0] : p[0] + high, p[1] : p[1] + wide].sum()))
    block = np.zeros((rows, cols), dtype=bool)
    block[row : row + high, col : col + wide] = True
    return block


def meaning(session: Session) -> dict:
    """For how many concepts some neuron has at least 14 of 16 exemplars that show it."""
    best = {
        concept: max((found.precision for found in session.find(concept, 32)), default=0.0)
        for concept in CONCEPTS
    }
    good = [concept for concept, share in best.items() if share >= MEANINGFUL / EXEMPLARS]
    return {
        "concepts_with_a_neuron": len(good) / len(CONCEPTS),
        "without": {concept: round(best[concept], 3) for concept in CONCEPTS if concept not in good},
    }


class Silenced(NamedTuple):
    """The caption of a picture before and after a concept's neurons were suppressed."""

    before: str
    concept: str
    after: str


class Inserted(NamedTuple):
    """A concept that a scene lacks, and whether it is named with its neurons raised."""

    concept: str
    named: bool


def silenced(
    session: Session, views: Sequence[View], config: NeuronsConfig, known: Collection[str] = CONCEPTS
) -> list[Silenced]:
    """Suppress each named object's neurons in turn, of the concepts that are known."""
    baseline = caption_all(session, views, [Trial(i, "", ()) for i in range(len(views))], config.batch)
    trials = [
        Trial(i, c, suppressing(session, views[i], c, config))
        for i, text in enumerate(baseline)
        for c in mentions(text)
        if c in known
    ]
    texts = caption_all(session, views, trials, config.batch)
    return [
        Silenced(baseline[trial.scene], trial.concept, text)
        for trial, text in zip(trials, texts, strict=True)
    ]


def suppression(found: Sequence[Silenced]) -> dict:
    """Is what was suppressed gone, do the others stay?"""
    gone, kept, others = 0, 0, 0
    survived: dict[str, list[bool]] = {concept: [] for concept in CONCEPTS}
    for one in found:
        said, rest = set(mentions(one.after)), set(mentions(one.before)) - {one.concept}
        gone += one.concept not in said
        survived[one.concept].append(one.concept in said)
        kept, others = kept + len(rest & said), others + len(rest)
    rates = {c: float(np.mean(v)) for c, v in survived.items() if v}
    stubborn = {
        c: round(rate, 2) for c, rate in sorted(rates.items(), key=lambda item: -item[1]) if rate > 0.2
    }
    return {
        "mentions": len(found),
        "removed": gone / max(1, len(found)),
        "others_kept": kept / max(1, others),
        "stubborn": stubborn,
    }


def inserted(
    session: Session,
    scenes: Sequence[Scene],
    views: Sequence[View],
    config: NeuronsConfig,
    known: Collection[str] = CONCEPTS,
) -> list[Inserted]:
    """Raise the neurons of concepts that a scene lacks, of those that are known."""
    trials = []
    for i, scene in enumerate(scenes):
        rng = np.random.default_rng([41, scene.seed])
        block = free_block(scene, views[i].grid.rows, views[i].grid.cols)
        absent = sorted(set(known) - {thing.concept for thing in scene.objects})
        for concept in rng.choice(absent, min(config.per_scene, len(absent)), replace=False):
            found = neurons_of(session, str(concept), config)
            trials.append(Trial(i, str(concept), tuple(Edit(n, config.insert, "set", block) for n in found)))
    texts = caption_all(session, views, trials, config.batch)
    return [
        Inserted(trial.concept, trial.concept in mentions(text))
        for trial, text in zip(trials, texts, strict=True)
    ]


def insertion(found: Sequence[Inserted]) -> dict:
    """Are they named?"""
    missed = sorted({phrase(one.concept) for one in found if not one.named})
    share = float(np.mean([one.named for one in found])) if found else 0.0
    return {"scenes": len(found), "inserted": share, "missed": missed}


def always_on(session: Session) -> dict:
    """Neurons in the image-level top-20 of at least a given share of the indexed images."""
    assert session.store is not None
    return {str(share): session.store.always_on(share) for share in (1.0, 0.99, 0.9, 0.5)}


def run(config: NeuronsConfig) -> dict:
    """All figures of one configuration. Raises StoreError for a store that does not know the concepts."""
    session = Session.chosen(config)
    known = needed_concepts(session)
    fvus: list[float] = []
    without: list[Silenced] = []
    more: list[Inserted] = []
    for start in range(config.first_seed, config.first_seed + config.scenes, GROUP):
        last = min(start + GROUP, config.first_seed + config.scenes)
        scenes = [draw(seed) for seed in range(start, last)]
        views = [session.look(scene.image) for scene in scenes]
        fvus += [view.fvu for view in views]
        without += silenced(session, views, config, known)
        more += inserted(session, scenes, views, config, known)
    return {
        "config": {key: str(value) for key, value in asdict(config).items()},
        "variance_explained": 1 - float(np.mean(fvus)),
        "unknown": sorted(set(CONCEPTS) - known),
        "meaning": meaning(session),
        "suppression": suppression(without),
        "insertion": insertion(more),
        "always_on": always_on(session),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, measure, print and save the report; the exit status."""
    return run_command(NeuronsConfig, run, "python -m explorer.evals.neurons", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
