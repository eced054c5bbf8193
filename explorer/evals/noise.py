"""Which neurons does noise reach? `python -m explorer.evals.noise`.

The change ratio of Contrastive Neuron Steering (arXiv 2602.00621, eq 3, Figures 3 and 15) over the steps of
diffusion noise, on unseen drawn scenes: of a picture's strongest neurons, and of its patches', for the
always-on ones, the image-specific ones and those that come next. The paper finds the first stable and the
second disrupted. Of a model that sees a picture in whole and in parts, the whole is what is measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from explorer.analyze.changes import CLASSES, K
from explorer.analyze.noise import STEPS, Curve, noise_curve
from explorer.errors import ExplorerError
from explorer.evals.command import run_command
from explorer.evals.scores import Interval
from explorer.session import Session
from explorer.vlm.loading import Choice
from explorer.world import draw

LEVELS = ("image", "patch", "kept")


@dataclass(frozen=True)
class NoiseConfig(Choice):
    """The scenes, the noise, and the model."""

    scenes: int = 200
    """unseen ordinary scenes"""
    first_seed: int = 20_000
    """seed of the first scene"""
    steps: tuple[int, ...] = STEPS
    """steps of the noise, 0 to 999"""
    draws: int = 3
    """draws of noise at each step"""
    k: int = K
    """how many of the strongest neurons are a picture's, or a patch's, own"""
    min_frequency: float = 1.0
    """always-on neurons are in the top-20 of at least this share of the indexed images"""
    out: Path | None = None
    """file that the report is written to as well"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes < 1 or self.draws < 1:
            raise ExplorerError(f"{self.scenes} scenes, {self.draws} draws: both must be 1 or more")
        if self.first_seed < 0 or self.k < 1:
            raise ExplorerError(f"first_seed {self.first_seed}, k {self.k}: give 0 or more, 1 or more")
        if not 0 < self.min_frequency <= 1:
            raise ExplorerError(f"min_frequency is a share above 0 up to 1, not {self.min_frequency:g}")


class StepRow(NamedTuple):
    """One step: by class, change ratios of image level and patches, and what is left of the activations."""

    step: int
    image: dict[str, Interval]
    patch: dict[str, Interval]
    kept: dict[str, Interval]


class NoiseReport(NamedTuple):
    """What was measured. always_on: the neurons counted as such; rows: one per step."""

    config: NoiseConfig
    always_on: tuple[int, ...]
    rows: list[StepRow]


def run(config: NoiseConfig) -> NoiseReport:
    """All figures of one configuration; the table goes to the standard error stream as well."""
    session = Session.chosen(config)
    always_on = session.always_on(config.min_frequency)
    numbers = tqdm(range(config.first_seed, config.first_seed + config.scenes), unit="scene", disable=None)
    views = (session.look(draw(seed).image) for seed in numbers)
    curve = noise_curve(session, views, config.steps, range(config.draws), k=config.k, always_on=always_on)
    report = NoiseReport(config, tuple(always_on), rows_of(curve))
    print(table(report), file=sys.stderr)
    return report


def rows_of(curve: Curve) -> list[StepRow]:
    """A curve as named figures."""
    rows = []
    for place, step in enumerate(curve.steps):
        figures = []
        for level in LEVELS:
            bounds = [getattr(part, level)[place] for part in (curve.mean, curve.low, curve.high)]
            figures.append(
                {name: Interval(*map(float, np.array(bounds)[:, c])) for c, name in enumerate(CLASSES)}
            )
        rows.append(StepRow(step, *figures))
    return rows


def table(report: NoiseReport) -> str:
    """The report for people, in Markdown: means with half the width of their 95 % intervals."""
    heads = [f"{level} {name.replace('_', ' ')}" for level in LEVELS for name in CLASSES]
    lines = [f"| t | {' | '.join(heads)} |", "| --- " * (len(heads) + 1) + "|"]
    for row in report.rows:
        cells = [_shown(getattr(row, level)[name]) for level in LEVELS for name in CLASSES]
        lines.append(f"| {row.step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(figure: Interval) -> str:
    if np.isnan(figure.value):
        return ""
    margin = (figure.high - figure.low) / 2
    return f"{figure.value:.2f}" if np.isnan(margin) else f"{figure.value:.2f} ±{margin:.2f}"


def main() -> int:
    """The command."""
    return run_command(NoiseConfig, run, "python -m explorer.evals.noise", __doc__)


if __name__ == "__main__":
    sys.exit(main())
