"""Does attribution find the neurons behind a hallucination? `python -m explorer.evals.phantoms`.

Counterfactual scenes break what the model expects: a cake without its fork. Where the answer names the
absent thing all the same, the word is attributed, the top-ranked neurons are set to a value, and the new
answer is judged by the scene's truth: is the phantom gone, are the right things still named, is anything
false named instead? Beside it stand neurons at random, the strongest neurons, and the guess without
measurement. The same for questions about the absent thing that are answered "Yes.": there a right thing
is asked about with the same edits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from explorer.analyze.places import place_in, runs_of
from explorer.analyze.pulls import trial_values
from explorer.analyze.repair import judged
from explorer.analyze.repair import trials_of as repairs_of
from explorer.analyze.targets import without
from explorer.errors import ExplorerError
from explorer.evals.command import run_command
from explorer.evals.outcomes import Outcome, by_case, caption_outcome, scored, table
from explorer.evals.rankings import MOST, Phantom, Region, Trial, at_random, rankings, trials_of
from explorer.evals.scores import yes_or_no
from explorer.records import Edit
from explorer.session import Session, View
from explorer.steer.checks import LARGEST
from explorer.vlm.loading import Choice
from explorer.world import Scene, draw, mentions
from explorer.world.measure import VISIBLE
from explorer.world.questions import exists
from explorer.world.words import BY_NAME

YES, NO = "Yes", "No."
REPAIR, CHANCE = "repair: the best answer of all tried", "repair: as many tried with random neurons"


@dataclass(frozen=True)
class PhantomsConfig(Choice):
    """The scenes, what is done to the neurons, and the model."""

    scenes: int = 700
    """unseen counterfactual scenes; about one in six has a phantom in its caption"""
    first_seed: int = 20_000
    """seed of the first scene"""
    measure: int = 20
    """how many of the best guesses are measured"""
    values: tuple[float, ...] = (0.0, -30.0)
    """what the neurons are set to"""
    regions: tuple[Region, ...] = ("active", "everywhere")
    """where: each neuron where it fires, or on all patches"""
    captions: bool = True
    """phantoms in captions"""
    questions: bool = True
    """phantoms in answers to questions"""
    batch: int = 64
    """edited pictures answered at a time"""
    length: int = 40
    """most tokens of an answer"""
    seed: int = 0
    """of the random neurons"""
    out: Path | None = None
    """file that the report is written to as well"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes < 1 or self.measure < MOST or self.batch < 1 or self.first_seed < 0:
            raise ExplorerError(
                f"scenes {self.scenes}, measure {self.measure}, batch {self.batch}, first_seed "
                f"{self.first_seed}: give 1 or more, {MOST} or more, 1 or more, 0 or more"
            )
        if self.length < 1 or self.seed < 0:
            raise ExplorerError(f"length {self.length}, seed {self.seed}: give 1 or more, 0 or more")
        if not (np.abs(self.values) <= LARGEST).all():
            raise ExplorerError(f"the values {self.values} must lie between -{LARGEST:g} and {LARGEST:g}")


Judge = Callable[[Session, Sequence[Trial], PhantomsConfig], dict[str, Outcome]]


class Ask(NamedTuple):
    """A prompt about a picture, with its neurons edited."""

    view: View
    prompt: str
    edits: tuple[Edit, ...] = ()

    @property
    def key(self) -> tuple:
        """What the answer depends on; the order of edits of different neurons is none of it."""
        return id(self.view), self.prompt, frozenset((e.neuron, e.value, str(e.patches)) for e in self.edits)


def phantoms_in_captions(session: Session, config: PhantomsConfig) -> list[Phantom]:
    """The counterfactual scenes whose untouched caption names the absent partner."""
    prompt, found = session.lvlm.default_prompt, []
    for scenes, views in _looked(session, config):
        texts = answers_to(session, [Ask(view, prompt) for view in views], config)
        for scene, view, text in zip(scenes, views, texts, strict=True):
            word = word_for(session, text, scene.absent_partner)
            if word is not None:
                instead = without(place_in(session.lvlm, text, word))
                found.append(Phantom(scene, view, prompt, text, word, instead))
    return found


def phantoms_in_answers(session: Session, config: PhantomsConfig) -> list[Phantom]:
    """The counterfactual scenes about whose absent partner the model answers "Yes."."""
    found = []
    for scenes, views in _looked(session, config):
        prompts = [exists(str(scene.absent_partner), False).prompt for scene in scenes]
        texts = answers_to(session, list(map(Ask, views, prompts)), config)
        for scene, view, prompt, text in zip(scenes, views, prompts, texts, strict=True):
            if yes_or_no(text) and runs_of(session.lvlm, text, YES):
                found.append(Phantom(scene, view, prompt, text, YES, NO))
    return found


def _looked(session: Session, config: PhantomsConfig) -> Iterator[tuple[list[Scene], list[View]]]:
    """The scenes and their views, a batch at a time, so that views of no interest are let go."""
    last = config.first_seed + config.scenes
    for start in range(config.first_seed, last, config.batch):
        scenes = [draw(seed, "counterfactual") for seed in range(start, min(start + config.batch, last))]
        yield scenes, [session.look(scene.image) for scene in scenes]


def answers_to(session: Session, asked: Sequence[Ask], config: PhantomsConfig) -> list[str]:
    """The greedy answers, those to one prompt in batches; what is asked twice is answered once."""
    once = {ask.key: ask for ask in asked}
    prompts: dict[str, list[Ask]] = {}
    for ask in once.values():
        prompts.setdefault(ask.prompt, []).append(ask)
    texts: dict[tuple, str] = {}
    for prompt, asks in prompts.items():
        for start in range(0, len(asks), config.batch):
            part = asks[start : start + config.batch]
            pairs = [(ask.view, ask.edits) for ask in part]
            found = session.answers(pairs, prompt, max_new_tokens=config.length)
            texts |= {ask.key: text for ask, text in zip(part, found, strict=True)}
    return [texts[ask.key] for ask in asked]


def word_for(session: Session, text: str, concept: str | None) -> str | None:
    """The word, or run of words, by which a text names a concept; None when it does not, or within a word."""
    if concept not in mentions(text):
        return None
    entry = BY_NAME[concept]
    return next((words for words in (entry.phrase, entry.plural) if runs_of(session.lvlm, text, words)), None)


def caption_outcomes(session: Session, trials: Sequence[Trial], config: PhantomsConfig) -> dict[str, Outcome]:
    """What became of one phantom in a caption, by arm; of the repairs, the best one by its words counts."""
    texts = answers_to(session, [Ask(t.phantom.view, t.phantom.prompt, t.edits) for t in trials], config)
    found = {
        trial.arm: caption_outcome(trial.phantom.scene, trial.phantom.answer, text)
        for trial, text in zip(trials, texts, strict=True)
        if trial.arm not in (REPAIR, CHANCE)
    }
    for arm in (REPAIR, CHANCE):
        repairs = [
            judged(session, trial.phantom.word, trial.phantom.instead, text, trial.edits)
            for trial, text in zip(trials, texts, strict=True)
            if trial.arm == arm
        ]
        if repairs:
            best = min(repairs, key=lambda one: one.cost)
            found[arm] = caption_outcome(trials[0].phantom.scene, trials[0].phantom.answer, best.answer)
    return found


def answer_outcomes(session: Session, trials: Sequence[Trial], config: PhantomsConfig) -> dict[str, Outcome]:
    """What became of one phantom in an answer, by arm: gone when it is not "yes" any more.

    Beside it the same edits meet a question about the first thing in sight about which the untouched model
    says "yes".
    """
    trials = [trial for trial in trials if trial.arm not in (REPAIR, CHANCE)]
    phantom = trials[0].phantom
    prompt = _right_question(session, phantom, config)
    asked = [Ask(phantom.view, phantom.prompt, trial.edits) for trial in trials]
    again = [Ask(phantom.view, prompt, trial.edits) for trial in trials] if prompt else []
    texts = answers_to(session, [*asked, *again], config)
    kept = [yes_or_no(text) is True for text in texts[len(asked) :]] or [False] * len(asked)
    scene = phantom.scene
    return {
        trial.arm: Outcome(
            scene.seed, str(scene.case), yes_or_no(text) is not True, len(again) and 1, keeps, 0
        )
        for trial, text, keeps in zip(trials, texts, kept, strict=False)
    }


def _right_question(session: Session, phantom: Phantom, config: PhantomsConfig) -> str | None:
    """A question about a thing in sight that the untouched model answers "yes"."""
    clear = [thing.concept for thing in phantom.scene.objects if thing.visible >= VISIBLE]
    asked = [Ask(phantom.view, exists(concept, True).prompt) for concept in dict.fromkeys(clear)]
    texts = answers_to(session, asked, config)
    return next((ask.prompt for ask, text in zip(asked, texts, strict=True) if yes_or_no(text)), None)


def measured(session: Session, phantoms: Sequence[Phantom], judge: Judge, config: PhantomsConfig) -> dict:
    """Scores of every arm, and by counterfactual; how often a ranking begins with an always-on neuron."""
    outcomes: dict[str, list[Outcome]] = {}
    always_on = frozenset(() if session.store is None else session.always_on())
    first: dict[str, list[bool]] = {}
    for place, phantom in enumerate(phantoms):
        orders, suspects = rankings(
            session, phantom, config.values, config.measure, config.seed, config.batch
        )
        trials = trials_of(phantom, orders, config.regions)
        repairs = repairs_of(suspects, trial_values(phantom.view))
        trials += [Trial(phantom, REPAIR, edits) for edits in repairs]
        trials += [Trial(phantom, CHANCE, edits) for edits in at_random(phantom, repairs, config.seed)]
        for arm, outcome in judge(session, trials, config).items():
            outcomes.setdefault(arm, []).append(outcome)
        for order in orders:
            first.setdefault(order.name, []).append(bool(always_on.intersection(order.neurons[:1])))
        print(f"\r{place + 1} of {len(phantoms)} phantoms", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "phantoms": len(phantoms),
        "always_on_first": {name: float(np.mean(seen)) for name, seen in first.items()},
        "arms": {arm: scored(found) for arm, found in outcomes.items()},
        "cases": {arm: by_case(found) for arm, found in outcomes.items()},
    }


def run(config: PhantomsConfig) -> dict[str, Any]:
    """The report; the tables go to standard error on the way."""
    session = Session.chosen(config)
    report: dict[str, Any] = {"config": config}
    if config.captions:
        found = phantoms_in_captions(session, config)
        report["captions"] = measured(session, found, caption_outcomes, config)
    if config.questions:
        found = phantoms_in_answers(session, config)
        report["questions"] = measured(session, found, answer_outcomes, config)
    for name in ("captions", "questions"):
        if name in report:
            print(f"{name}: {report[name]['phantoms']} phantoms", file=sys.stderr)
            print(table(report[name]["arms"]), file=sys.stderr)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, measure, print and save the report; the exit status."""
    return run_command(PhantomsConfig, run, "python -m explorer.evals.phantoms", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
