"""Does contrastive neuron steering lower hallucination? `python -m explorer.evals.mitigation`.

CNS beside the untouched model, contrastive decoding (VCD, M3ID, ICD) and attention edits (PAI, VAF), alone
and on top of each, on drawn scenes whose truth is known: objects named in captions (after CHAIR) and yes/no
questions (after POPE). Every score comes with a bootstrap interval over scenes and with its paired
difference to the untouched model and, for an arm with CNS, to the same arm without.

Seeds from 20,000 on are for figures, from 30,000 on for choosing settings (--first-seed, --steps,
--strengths). With --out REPORT.json the answers are kept in REPORT.jsonl; the same command goes on there.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from explorer.errors import ExplorerError, StoreError
from explorer.evals.answered import Answers, Key
from explorer.evals.arms import EVERY_ARM, Arm, arms_of
from explorer.evals.command import run_command
from explorer.evals.comparison import Said, figures, questions_of
from explorer.session import Session
from explorer.steer import Contrast
from explorer.vlm.loading import Choice
from explorer.world import Scene, draw

Way = Literal["greedy", "sampling"]
Task = Literal["captions", "questions"]


@dataclass(frozen=True)
class MitigationConfig(Choice):
    """What is compared, on what. Raises ExplorerError for values that make no sense."""

    arms: tuple[str, ...] = EVERY_ARM
    """vanilla, vcd, m3id, icd, pai or vaf, each with +cns and +replace; cns and sae alone stand for
    vanilla+cns and vanilla+replace"""
    ways: tuple[Way, ...] = ("greedy", "sampling")
    """the likeliest token, or one drawn at --temperature"""
    tasks: tuple[Task, ...] = ("captions", "questions")
    """what is asked of each scene"""
    scenes: int = 60
    """ordinary scenes"""
    cases: int = 70
    """counterfactual scenes; each seventh is of one kind"""
    first_seed: int = 20_000
    """seed of the first scene of both"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of noise and sampling; arms without either are asked once"""
    steps: tuple[int, ...] = (500,)
    """noise steps t of CNS, 0 to 999; each makes arms of its own"""
    strengths: tuple[float, ...] = (1.0,)
    """strengths lambda of CNS; each makes arms of its own"""
    suppress_always_on: bool = True
    """leave the always-on neurons out of CNS"""
    min_frequency: float = 1.0
    """share of the indexed images in whose top-20 a neuron must be to count as always on"""
    clamp: bool = False
    """CNS pushes no activation below zero"""
    temperature: float = 1.0
    """of sampling"""
    max_new_tokens: int = 64
    """longest answer"""
    out: Path | None = None
    """JSON file for the report; the answers are kept beside it"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes < 0 or self.cases < 0 or self.scenes + self.cases == 0:
            raise ExplorerError(f"{self.scenes} scenes and {self.cases} cases leave nothing to measure")
        if not self.seeds or min(self.seeds) < 0:
            raise ExplorerError(f"the seeds {self.seeds} are none; give numbers from 0 on")
        if self.first_seed < 0 or self.max_new_tokens < 1:
            given = f"first_seed {self.first_seed}, max_new_tokens {self.max_new_tokens}"
            raise ExplorerError(f"{given}: give 0 or more, 1 or more")
        if self.temperature <= 0:
            raise ExplorerError(f"sampling needs a temperature above 0, not {self.temperature:g}")
        self.chosen_arms()

    def chosen_arms(self) -> list[Arm]:
        """The arms; each variant of CNS makes one. Raises ExplorerError for a name or value that is none."""
        return arms_of(
            self.arms,
            [
                Contrast(
                    step,
                    strength,
                    suppress_always_on=self.suppress_always_on,
                    min_frequency=self.min_frequency,
                    clamp=self.clamp,
                )
                for step in self.steps
                for strength in self.strengths
            ],
        )


def answers_of(
    session: Session, scene: Scene, arms: Sequence[Arm], config: MitigationConfig, known: Answers
) -> Iterator[Said]:
    """All answers about one scene; the picture is looked at only when one is not known yet."""
    asked = questions_of(scene, session.lvlm.default_prompt, config.tasks)
    view = None
    for arm in arms:
        for way, drawn in draws_of(arm, config):
            for one in asked:
                key = _key(drawn, scene, one.prompt)
                answer = known.find(key)
                if answer is None:
                    view = view or session.look(scene.image)
                    answer = session.answer(
                        view,
                        one.prompt,
                        replace=drawn.replace,
                        contrast=drawn.contrast,
                        decoding=drawn.decoding,
                        max_new_tokens=config.max_new_tokens,
                    )
                    known.keep(key, answer)
                yield Said(arm.name, way, scene, one, answer)


def draws_of(arm: Arm, config: MitigationConfig) -> Iterator[tuple[Way, Arm]]:
    """An arm in every way and with every seed that makes a difference."""
    for way in config.ways:
        temperature = config.temperature if way == "sampling" else 0.0
        fixed = way == "greedy" and not arm.noisy
        for seed in (0,) if fixed else config.seeds:
            yield way, arm.drawn(seed, temperature)


def _key(drawn: Arm, scene: Scene, prompt: str) -> Key:
    way = drawn.decoding
    return (drawn.name, f"{way.temperature:g}", way.seed, scene.family, scene.seed, prompt)


def run(config: MitigationConfig) -> dict:
    """All figures of one configuration."""
    session = Session.chosen(config)
    arms = config.chosen_arms()
    suppressed = config.suppress_always_on and session.store is not None
    if config.suppress_always_on and not suppressed and any(arm.contrast for arm in arms):
        raise StoreError(
            "which neurons are always on, and so left out of CNS, is known to a store only: give one with "
            "--store, or --no-suppress-always-on, or --arms without cns"
        )
    facts = {
        "model": session.lvlm.model_id,
        "sae": session.sae.id,
        "block": session.block,
        "loading": [config.dtype, config.quantize, config.max_pixels],
        "always_on": list(session.always_on(config.min_frequency)) if suppressed else None,
        "max_new_tokens": config.max_new_tokens,
    }
    wanted = [("ordinary", config.first_seed + i) for i in range(config.scenes)]
    wanted += [("counterfactual", config.first_seed + i) for i in range(config.cases)]
    said: dict[tuple[str, str], dict[str, list[Said]]] = defaultdict(lambda: defaultdict(list))
    begun = time.monotonic()
    path = None if config.out is None else config.out.with_suffix(".jsonl")
    with Answers(path, facts) as known:
        before = len(known)
        for family, seed in tqdm(wanted, unit="scene", disable=None):
            for one in answers_of(session, draw(seed, family), arms, config, known):
                said[family, one.way][one.arm].append(one)
        fresh = len(known) - before
    report: dict = {"config": config, "facts": facts, "answers": sum(map(_count, said.values()))}
    report |= {"fresh_answers": fresh, "seconds": round(time.monotonic() - begun, 1), "figures": {}}
    for (family, way), by_arm in said.items():
        report["figures"].setdefault(family, {})[way] = figures(by_arm, arms)
    return report


def _count(by_arm: Mapping[str, Sequence[Said]]) -> int:
    return sum(map(len, by_arm.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, measure, print and save the report; the exit status."""
    return run_command(MitigationConfig, run, "python -m explorer.evals.mitigation", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
