"""What is lost when neurons are set to zero: `python -m explorer.evals.zeroing`.

The experiment of Table 1 of Contrastive Neuron Steering (arXiv 2602.00621) on unseen drawn scenes: yes/no
questions and captions with the always-on neurons of each picture at zero, with its image-specific ones, and
with as many at random. What the paper leaves open is measured in each reading: top-20 of the whole picture
or of each patch; random among all neurons or among those that fire; the SAE's reconstruction in the place
of the patches, as in the paper, or the change alone, which keeps what the SAE does not explain.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from explorer.errors import ExplorerError
from explorer.evals.command import run_command
from explorer.evals.comparison import Asked, Said, questions_of, tallies
from explorer.evals.scores import Interval, difference, intervals
from explorer.records import Edit
from explorer.session import Session, View
from explorer.vlm.loading import Choice
from explorer.world import Scene, draw

Which = Literal["none", "always_on", "image_specific", "random", "random_firing"]
Scope = Literal["image", "patch"]
ANSWER_TOKENS, CAPTION_TOKENS = 4, 64
SETS: tuple[Which, ...] = ("always_on", "image_specific", "random", "random_firing")
PAPER = {
    "none": (84.63, 84.99),
    "always_on": (84.68, 85.08),
    "image_specific": (63.08, 57.36),
    "random": (84.31, 84.65),
}
"""Accuracy and F1 in the paper's Table 1: POPE on COCO (random), LLaVA-1.5, k = 20."""


@dataclass(frozen=True)
class ZeroingConfig(Choice):
    """The scenes, the sets of neurons, and the model."""

    scenes: int = 200
    """unseen ordinary scenes"""
    first_seed: int = 20_000
    """seed of the first scene"""
    k: int = 20
    """how many of the strongest neurons are a picture's, or a patch's, own"""
    min_frequency: float = 1.0
    """always-on neurons are in the top-20 of at least this share of the indexed images"""
    scopes: tuple[Scope, ...] = ("image", "patch")
    """whether the top k are those of the whole picture or of each patch"""
    captions: bool = True
    """caption the pictures too"""
    seed: int = 0
    """of the random sets"""
    out: Path | None = None
    """file that the report is written to as well"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes < 1 or self.k < 1:
            raise ExplorerError(f"{self.scenes} scenes and the {self.k} strongest: both must be 1 or more")
        if self.first_seed < 0 or self.seed < 0:
            raise ExplorerError(f"first_seed {self.first_seed}, seed {self.seed}: seeds count from 0")
        if not 0 < self.min_frequency <= 1:
            raise ExplorerError(f"min_frequency is a share above 0 up to 1, not {self.min_frequency:g}")
        if not self.scopes:
            raise ExplorerError("name at least one scope: image, patch")


class Condition(NamedTuple):
    """One way to ask. which: the neurons at zero; scope: whose top k; replace: feed the reconstruction."""

    which: Which = "none"
    scope: Scope | None = None
    replace: bool = False


class Chosen(NamedTuple):
    """A set of neurons at zero in one picture. share: what they had of the sum of all activations."""

    edits: tuple[Edit, ...]
    share: float


@dataclass(frozen=True)
class Outcome:
    """The scores under one condition.

    form: "replace" or "keep error"; neurons: that were set to zero, share: of the activations, both means
    over scenes; scores: by what was asked ("caption", a choice of the absent object, or "all" of these);
    accuracy_change: over all questions, against the same form with no neuron at zero.
    """

    which: Which
    scope: Scope | None
    form: str
    neurons: float
    share: float
    scores: dict[str, dict[str, Interval]]
    accuracy_change: Interval
    paper_accuracy_f1: tuple[float, float] | None


def conditions(scopes: Sequence[Scope]) -> list[Condition]:
    """All ways to ask, the two without a neuron at zero first."""
    forms = (False, True)
    return [Condition(replace=replace) for replace in forms] + [
        Condition(which, scope, replace) for replace in forms for scope in scopes for which in SETS
    ]


def chosen(
    view: View, condition: Condition, always_on: Sequence[int], k: int, rng: np.random.Generator
) -> Chosen:
    """The neurons of a set in a picture, at zero.

    "image": of the k strongest over the picture those that are always on, or those that are not, each at
    zero on all patches; random ones are as many as the latter, from outside the k. "patch": the same at every
    patch by itself. Neurons that do not fire are zero as they are, and need no edit.
    """
    if condition.which == "none":
        return Chosen((), 0.0)
    if condition.scope == "image":
        return _of_picture(view, condition.which, always_on, k, rng)
    return _of_patches(view, condition.which, always_on, k, rng)


def _of_picture(
    view: View, which: Which, always_on: Sequence[int], k: int, rng: np.random.Generator
) -> Chosen:
    """Neurons chosen for the whole picture, wherever it is seen."""
    codes = view.everywhere.codes
    neurons, values = codes.neurons.numpy(), codes.values.numpy()
    neurons, values = neurons[values > 0], values[values > 0]
    top = np.array([activation.neuron for activation in view.top(k)], dtype=np.int64)
    always = np.isin(top, list(always_on))
    match which:
        case "always_on":
            zero = top[always]
        case "image_specific":
            zero = top[~always]
        case _:
            rest = np.setdiff1d(np.arange(view.n_neurons) if which == "random" else neurons, top)
            zero = rng.choice(rest, min(int((~always).sum()), len(rest)), replace=False)
    silenced = np.isin(neurons, zero)
    edits = tuple(Edit(int(neuron), 0.0) for neuron in np.unique(neurons[silenced]))
    return Chosen(edits, float(values[silenced].sum() / max(values.sum(), 1e-12)))


def _of_patches(
    view: View, which: Which, always_on: Sequence[int], k: int, rng: np.random.Generator
) -> Chosen:
    """Neurons chosen for each patch by itself, of a picture that is seen once."""
    tokens, neurons, values = (part.numpy() for part in view.firing)
    top, always = _among_strongest(view, k), np.isin(neurons, list(always_on))
    match which:
        case "always_on":
            zero = top & always
        case "image_specific":
            zero = top & ~always
        case _:
            everyone = np.arange(view.n_neurons) if which == "random" else None
            zero = np.zeros(len(tokens), dtype=bool)
            for token in np.unique(tokens):
                here = tokens == token
                count = len(np.unique(neurons[here & top & ~always]))
                rest = np.setdiff1d(neurons[here] if everyone is None else everyone, neurons[here & top])
                zero |= here & np.isin(neurons, rng.choice(rest, min(count, len(rest)), replace=False))
    edits = tuple(_silenced(view, int(n), tokens[zero & (neurons == n)]) for n in np.unique(neurons[zero]))
    return Chosen(edits, float(values[zero].sum() / max(values.sum(), 1e-12)))


def _among_strongest(view: View, k: int) -> np.ndarray:
    """For each activation, whether its neuron is one of the k strongest of its patch."""
    tokens, _, values = (part.numpy() for part in view.firing)
    order = np.lexsort((-values, tokens))
    top = np.zeros(len(tokens), dtype=bool)
    top[order] = np.arange(len(tokens)) - np.searchsorted(tokens, tokens[order]) < k
    return top


def _silenced(view: View, neuron: int, patches: np.ndarray) -> Edit:
    mask = np.zeros(view.grid.rows * view.grid.cols, dtype=bool)
    mask[patches] = True
    return Edit(neuron, 0.0, "set", mask.reshape(view.grid.rows, view.grid.cols))


class Heard(NamedTuple):
    """Everything said under one condition, and how much of each scene was at zero."""

    said: list[Said]
    neurons: list[int]
    shares: list[float]


def ask(
    session: Session, scenes: Sequence[Scene], config: ZeroingConfig, always_on: Sequence[int]
) -> dict[Condition, Heard]:
    """Ask about every scene, all conditions of one form in one batch.

    Raises ExplorerError for sets chosen by patches of pictures that the model sees at several scales.
    """
    ways = conditions(config.scopes)
    heard = {way: Heard([], [], []) for way in ways}
    tasks = ("captions", "questions") if config.captions else ("questions",)
    for scene in tqdm(scenes, unit="scene", disable=None):
        view = session.look(scene.image)
        if view.prepared.scales and "patch" in config.scopes:
            raise ExplorerError(
                f"{session.lvlm.model_id} sees a picture in whole and in parts, where what is one patch here "
                "is several there: a patch's own neurons are no one set; use --scopes image"
            )
        sets = {
            way: chosen(view, way, always_on, config.k, np.random.default_rng([config.seed, scene.seed]))
            for way in ways
        }
        for way, found in sets.items():
            heard[way].neurons.append(len(found.edits))
            heard[way].shares.append(found.share)
        asked = questions_of(scene, session.lvlm.default_prompt, tasks)
        texts = {
            prompt: _answers(session, view, sets, one) for prompt, one in {q.prompt: q for q in asked}.items()
        }
        for way in ways:
            name = "+".join(map(str, way))
            heard[way].said.extend(Said(name, "greedy", scene, one, texts[one.prompt][way]) for one in asked)
    return heard


def _answers(
    session: Session, view: View, sets: dict[Condition, Chosen], asked: Asked
) -> dict[Condition, str]:
    """The answers to one prompt under each condition."""
    longest = CAPTION_TOKENS if asked.truth is None else ANSWER_TOKENS
    found: dict[Condition, str] = {}
    for replace in (False, True):
        ways = [way for way in sets if way.replace is replace]
        batch = [(view, sets[way].edits) for way in ways]
        texts = session.answers(batch, asked.prompt, replace=replace, max_new_tokens=longest)
        found.update(zip(ways, texts, strict=True))
    return found


def outcomes(heard: dict[Condition, Heard]) -> list[Outcome]:
    """The scores under every condition with their intervals."""
    counted = {way: tallies(found.said) for way, found in heard.items()}
    return [
        Outcome(
            way.which,
            way.scope,
            "replace" if way.replace else "keep error",
            float(np.mean(found.neurons)),
            float(np.mean(found.shares)),
            {what: intervals(scores) for what, scores in counted[way].items()},
            difference(
                counted[way]["all"]["accuracy"], counted[Condition(replace=way.replace)]["all"]["accuracy"]
            ),
            PAPER.get(way.which),
        )
        for way, found in heard.items()
    ]


def table(found: Sequence[Outcome]) -> str:
    """The outcomes for people, in Markdown; shares in per cent."""
    heads = "form, top-k of, at zero, neurons, activation, accuracy, F1, yes, paper, false objects, recall"
    lines = ["| " + heads.replace(", ", " | ") + " |", "| --- " * len(heads.split(", ")) + "|"]
    for one in found:
        scores, captions = one.scores["all"], one.scores.get("captions")
        paper = "" if one.paper_accuracy_f1 is None else "{:.2f} / {:.2f}".format(*one.paper_accuracy_f1)
        cells = [one.form, one.scope or "", one.which, f"{one.neurons:.1f}", f"{100 * one.share:.1f}"]
        cells += [_percent(scores["accuracy"]), _percent(scores["f1"])]
        cells += [f"{100 * scores['yes_ratio'].value:.1f}", paper]
        cells += [_percent(captions[name]) if captions else "" for name in ("chair_i", "recall")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(score: Interval) -> str:
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def run(config: ZeroingConfig) -> dict[str, Any]:
    """All figures of one configuration; the table goes to the standard error stream as well."""
    session = Session.chosen(config)
    always_on = session.always_on(config.min_frequency)
    scenes = [draw(config.first_seed + i) for i in range(config.scenes)]
    found = outcomes(ask(session, scenes, config, always_on))
    print(table(found), file=sys.stderr)
    return {"config": config, "always_on": always_on, "outcomes": found}


def main() -> int:
    """The command."""
    return run_command(ZeroingConfig, run, "python -m explorer.evals.zeroing", __doc__)


if __name__ == "__main__":
    sys.exit(main())
