"""How quick is a slider? `python -m explorer.evals.speed`.

Every ratio comes from one run in which both sides take turns on the same pictures and edits: what is done
today (see `explorer.evals.hooked`) and an opened view of a session. Both must give the same tokens.

moves: random moves of the embedded model, by how many words of the caption they change; drag: one neuron
through a series of values; cns: what contrastive neuron steering adds to an answer; large: moves and a drag
on a random LLaVA with LLaVA-1.5's vision tower (CLIP ViT-L/14 at 336 px), a small language model and a random
SAE. Run it when nothing else does.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

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
from explorer.vlm.loading import Choice
from explorer.vlm.synthetic import Shape, random_llava
from explorer.world import draw

Part = Literal["moves", "drag", "cns", "large"]
SHAPES = {
    "llava-1.5": Shape(),
    "tiny": Shape(image=28, blocks=3, width=64, mlp=64, text_layers=2, text_width=64, text_mlp=64, words=50),
}


@dataclass(frozen=True)
class SpeedConfig(Choice):
    """What is timed, and how often. Raises ExplorerError for numbers that leave nothing to time."""

    parts: tuple[Part, ...] = ("moves", "drag", "cns", "large")
    """what to measure"""
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
    """longest answer of the embedded model"""
    shape: Literal["llava-1.5", "tiny"] = "llava-1.5"
    """of the large model; tiny is for trying the command out"""
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
        for name in ("scenes", "moves", "series", "neurons", "active", "large_scenes", "large_moves"):
            if getattr(self, name) < 1:
                raise ExplorerError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not self.lowest < self.highest:
            raise ExplorerError(f"lowest {self.lowest:g} is not below highest {self.highest:g}")


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


def embedded(config: SpeedConfig) -> dict:
    """The parts that need the embedded model."""
    session, rng = Session.chosen(config), np.random.default_rng(config.seed)
    report: dict = {"model": session.lvlm.model_id, "neurons": session.sae.n_neurons}
    report["store"] = session.store is not None
    hooked = Hooked(session.lvlm, session.sae, session.block, config.max_new_tokens)
    images = [draw(config.first_seed + i).image for i in range(config.scenes)]
    span = (config.lowest, config.highest)
    if "moves" in config.parts:
        found = [
            move
            for image in _shown(images, "moves")
            for move in random_moves(session, hooked, image, config.moves, span, rng)
        ]
        report |= {"moves": by_outcome(found), "moves_by_region": by_region(found)}
    if "drag" in config.parts:
        found = [
            move
            for image in _shown(images[: max(1, config.scenes // 10)], "drag")
            for move in drag(session, hooked, image, config.series, span)
        ]
        report["drag"] = by_outcome(found)
    if "cns" in config.parts:
        report["cns"] = cns_cost.measure(session, _shown(images, "cns"), config.max_new_tokens)
    return report


def large(config: SpeedConfig) -> dict:
    """The random LLaVA."""
    shape, rng = SHAPES[config.shape], np.random.default_rng(config.seed)
    lvlm = random_llava(shape, config.seed)
    images = [draw(config.first_seed + i, size=336).image for i in range(config.large_scenes)]
    prepared = lvlm.preprocess(images[0])
    hidden = lvlm.tower(prepared.pixel_values, lvlm.read_block)[0]
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
        "shape": asdict(shape),
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
    if set(config.parts) - {"large"}:
        report["embedded"] = embedded(config)
        gc.collect()
    if "large" in config.parts:
        report["large"] = large(config)
    machine["load_at_the_end"] = os.getloadavg()[0]
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, measure, print and save the report; the exit status."""
    return run_command(SpeedConfig, run, "python -m explorer.evals.speed", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
