"""How quick is a slider? `python -m explorer.evals.speed`.

Every ratio comes from one run in which both sides take turns on the same pictures and edits: what is done
today (see `explorer.evals.hooked`) and an opened view of a session. Both must give the same tokens.

moves: random moves of the chosen model, by how many words of the caption they change; drag: one neuron
through a series of values; cns: what contrastive neuron steering adds to an answer; large: moves and a drag
on a random model with the vision tower of LLaVA-1.5 (CLIP ViT-L/14 at 336 px) or Qwen2.5-VL, a small language
model and a random SAE. Run it when nothing else does.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from explorer.errors import ExplorerError
from explorer.evals import cns_cost
from explorer.evals.command import run_command
from explorer.evals.hooked import Hooked
from explorer.evals.sliding import Move, drag, random_moves, summary
from explorer.sae import SAE, ActivationRule
from explorer.session import Session
from explorer.steer.checks import LARGEST
from explorer.vlm.adapter import Adapter
from explorer.vlm.loading import Choice
from explorer.vlm.synthetic import Shape, random_llava
from explorer.vlm.synthetic_qwen import QwenShape, random_qwen
from explorer.world import draw

Part = Literal["moves", "drag", "cns", "large"]
PARTS: tuple[Part, ...] = get_args(Part)
SMALL_TEXT = {"text_layers": 2, "text_width": 64, "text_mlp": 64, "words": 50}
SHAPES: dict[str, Shape | QwenShape] = {
    "llava-1.5": Shape(),
    "qwen2.5-vl": QwenShape(),
    "tiny": Shape(image=28, blocks=3, width=64, mlp=64, **SMALL_TEXT),
    "tiny-qwen": QwenShape(image=112, blocks=3, width=64, mlp=64, heads=2, whole=2, **SMALL_TEXT),
}
SIDE = 336
"""Of the scenes for the large model, in pixels, before they are brought to its own size."""


@dataclass(frozen=True)
class SpeedConfig(Choice):
    """What is timed, and how often. Raises ExplorerError for numbers that leave nothing to time."""

    parts: tuple[Part, ...] = ()
    """what to measure (default: all, but for large when a model or an SAE is chosen)"""
    scenes: int = 60
    """drawn scenes for moves and cns; a tenth of them, at least one, for drags"""
    first_seed: int = 20_000
    """seed of the first scene"""
    moves: int = 4
    """random moves per scene"""
    series: int = 20
    """values in a drag"""
    lowest: float = -30.0
    """least value that a slider is moved to"""
    highest: float = 60.0
    """largest value that a slider is moved to"""
    seed: int = 0
    """of the random moves"""
    max_new_tokens: int = 64
    """longest answer of the chosen model"""
    shape: Literal["llava-1.5", "qwen2.5-vl", "tiny", "tiny-qwen"] = "llava-1.5"
    """of the large model; the tiny ones are for trying the command out"""
    neurons: int = 65_536
    """of the large model's SAE"""
    active: int = 20
    """its neurons that fire on a patch, on average"""
    large_scenes: int = 1
    """pictures for the large model"""
    large_moves: int = 5
    """random moves per picture of the large model"""
    large_nudges: int = 3
    """moves per picture of the large model that scale a neuron by a thousandth: its text is chaotic, and any
    larger move changes most of it"""
    large_series: int = 6
    """values in its drag"""
    large_tokens: int = 24
    """length of its answers"""
    out: Path | None = None
    """JSON file for the report"""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = dict.fromkeys(("scenes", "moves", "series", "max_new_tokens", "neurons", "active"), 1)
        least |= dict.fromkeys(("large_scenes", "large_moves", "large_tokens"), 1)
        least |= dict.fromkeys(("first_seed", "seed", "large_nudges", "large_series"), 0)
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ExplorerError(f"{name} must be {bound} or more, not {getattr(self, name)}")
        if not -LARGEST <= self.lowest < self.highest <= LARGEST:
            raise ExplorerError(
                f"sliders move between -{LARGEST:g} and {LARGEST:g}: lowest {self.lowest:g} and highest "
                f"{self.highest:g} are no such range"
            )

    @property
    def measured(self) -> tuple[Part, ...]:
        """The parts to measure."""
        return self.parts or (PARTS if self.embedded else PARTS[:-1])


def random_sae(patches: torch.Tensor, neurons: int, active: int, seed: int = 0) -> SAE:
    """An SAE with random directions, of which about `active` fire on a patch like `patches` [T, d]."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(neurons, patches.shape[1], generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    mean = patches.mean(0)
    some = (patches - mean)[:: max(1, len(patches) // 32)] @ directions.T
    bar = float(some.flatten().kthvalue(max(1, int(some.numel() * (1 - active / neurons)))).values)
    weights = (directions.T.contiguous(), torch.zeros(neurons), directions, mean)
    return SAE(*weights, ActivationRule("jumprelu", max(bar, 1e-6))).eval().requires_grad_(False)


def opened(config: SpeedConfig) -> dict:
    """The parts that are about the chosen model."""
    session, rng = Session.chosen(config), np.random.default_rng(config.seed)
    report: dict = {"model": session.lvlm.model_id, "neurons": session.sae.n_neurons}
    report |= {"family": session.lvlm.family, "store": session.store is not None}
    hooked = Hooked(session.lvlm, session.sae, session.block, config.max_new_tokens)
    images = [draw(config.first_seed + i).image for i in range(config.scenes)]
    span = (config.lowest, config.highest)
    if "moves" in config.measured:
        found = [
            move
            for image in _shown(images, "moves")
            for move in random_moves(session, hooked, image, config.moves, span, rng)
        ]
        report |= {"moves": by_outcome(found), "moves_by_region": by_region(found)}
    if "drag" in config.measured:
        found = [
            move
            for image in _shown(images[: max(1, config.scenes // 10)], "drag")
            for move in drag(session, hooked, image, config.series, span)
        ]
        report["drag"] = by_outcome(found)
    if "cns" in config.measured:
        report["cns"] = cns_cost.measure(session, _shown(images, "cns"), config.max_new_tokens)
    return report


def random_lvlm(shape: Shape | QwenShape, seed: int = 0) -> Adapter:
    """A model of random weights, of the family that the shape belongs to."""
    return random_qwen(shape, seed) if isinstance(shape, QwenShape) else random_llava(shape, seed)


def large(config: SpeedConfig) -> dict:
    """The random model."""
    shape, rng = SHAPES[config.shape], np.random.default_rng(config.seed)
    lvlm, size = random_lvlm(shape, config.seed), (shape.image, shape.image)
    seeds = range(config.first_seed, config.first_seed + config.large_scenes)
    images = [draw(seed, size=SIDE).image.resize(size) for seed in seeds]
    prepared = lvlm.preprocess(images[0])
    hidden = lvlm.tower(prepared.pixel_values, lvlm.read_block, prepared)[0]
    sae = random_sae(prepared.patches(hidden), config.neurons, config.active, config.seed)
    session = Session(lvlm, sae)
    hooked = Hooked(lvlm, sae, session.block, config.large_tokens)
    span = (config.lowest, config.highest)
    moves = [
        move
        for image in _shown(images, "large")
        for move in random_moves(session, hooked, image, config.large_moves, span, rng, config.large_nudges)
    ]
    dragged = drag(session, hooked, images[0], config.large_series, span) if config.large_series else []
    return {
        "family": lvlm.family,
        "shape": asdict(shape),
        "patches": prepared.grid.rows * prepared.grid.cols,
        "text_weights": lvlm.text_size,
        "neurons": config.neurons,
        "moves": by_outcome(moves),
        "moves_by_region": by_region(moves),
        "drag": by_outcome(dragged),
    }


def by_outcome(moves: Sequence[Move]) -> dict:
    """The figures of all moves, and of those that change nothing, a word or two, or more."""
    kinds = {
        "all": moves,
        "nothing": [move for move in moves if move.words == 0],
        "a word or two": [move for move in moves if 1 <= move.words <= 2],
        "more": [move for move in moves if move.words > 2],
    }
    return {name: summary(chosen) for name, chosen in kinds.items() if chosen}


def _shown(images: Sequence[Image.Image], what: str) -> Iterable[Image.Image]:
    """The pictures, with a bar on terminals."""
    return tqdm(images, desc=what, unit="picture", disable=None)


def by_region(moves: Sequence[Move]) -> dict:
    """The same by where the edits act: what comes before the first edited patch is not read again."""
    regions = sorted({move.region for move in moves})
    return {region: by_outcome([move for move in moves if move.region == region]) for region in regions}


def run(config: SpeedConfig) -> dict:
    """All figures of one configuration."""
    machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    report: dict = {"config": config, "machine": machine}
    if set(config.measured) - {"large"}:
        report["opened"] = opened(config)
        gc.collect()
    if "large" in config.measured:
        report["large"] = large(config)
    machine["load_at_the_end"] = os.getloadavg()[0]
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, measure, print and save the report; the exit status."""
    return run_command(SpeedConfig, run, "python -m explorer.evals.speed", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
