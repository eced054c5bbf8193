"""The command `train-sae`: trains an SAE on the patch vectors of a model's vision tower.

Streams vectors of drawn scenes or of a folder, trains, measures on pictures that were not trained
on, and writes the SAE with what is known of it. `__main__` hands over the arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from explorer.errors import SAEError
from explorer.sae import SAE
from explorer.sae.config import TrainConfig
from explorer.sae.quality import Quality, evaluate
from explorer.sae.training import StepReport, TrainResult, batches_taken, train
from explorer.vlm import open_lvlm
from explorer.vlm.base import LVLM
from index.vectors import FolderPictures, Pictures, ScenePictures, StreamConfig, batches, patch_vectors

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 10_000_000
"""Training scenes begin here: far from those of the LVLM's own training (from 1,000,000 on)."""
HELD_OUT_SEED = 900_000
"""Scenes for measuring begin here: below the first seed that anything is trained on."""


class Material(NamedTuple):
    """Pictures to train on, and others to measure on."""

    train: Pictures
    held_out: Pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    files = parser.add_argument_group("what to read and write")
    files.add_argument(
        "--model", default=str(ROOT / "assets" / "lvlm"), help="folder or hub name of the LVLM"
    )
    files.add_argument("--block", type=int, help="block of the vision tower (default: the one the LLM reads)")
    files.add_argument("--images", type=Path, help="train on the pictures below this folder")
    files.add_argument(
        "--scenes", type=int, default=200_000, help="train on so many drawn scenes, then again from the first"
    )
    files.add_argument("--first-seed", type=int, default=FIRST_SEED, help="seed of the first scene")
    files.add_argument(
        "--counterfactual", type=float, default=0.1, help="share of counterfactual scenes among them"
    )
    files.add_argument("--held-out", type=int, default=500, help="pictures to measure on")
    files.add_argument("--out", type=Path, default=ROOT / "assets" / "sae" / "sae.safetensors")
    files.add_argument("--half", action="store_true", help="store the weights as float16")
    files.add_argument("--checkpoint", type=Path, default=Path("runs/sae/checkpoint.pt"))
    files.add_argument("--checkpoint-every", type=int, default=500, help="steps between checkpoints")
    files.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    sae = parser.add_argument_group("the SAE and its training")
    sae.add_argument("--expansion", type=int, default=16, help="neurons per dimension of the vectors")
    sae.add_argument("--k", type=int, default=20, help="active neurons per vector, on average")
    sae.add_argument("--steps", type=int, default=4000)
    sae.add_argument("--batch", type=int, default=4096, help="vectors per step")
    sae.add_argument("--lr", type=float, help="peak learning rate (default: by the number of neurons)")
    sae.add_argument("--aux-alpha", type=float, default=0.03, help="weight of the dead neurons' loss")
    sae.add_argument(
        "--dead-after", type=int, help="vectors without firing until a neuron is dead (default: 2 %% of all)"
    )
    sae.add_argument("--seed", type=int, default=0, help="of the first weights and the shuffling")
    sae.add_argument("--bf16", action="store_true", help="search the largest activations in bfloat16")
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    machine.add_argument("--chunk", type=int, default=1024, help="pictures that are shuffled together")
    machine.add_argument("--reuse", type=int, default=4, help="times that a chunk's vectors are used")
    machine.add_argument("--tower-batch", type=int, default=32, help="pictures per run of the tower")
    machine.add_argument("--workers", type=int, default=0, help="processes that draw or read pictures")
    machine.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Train, measure, write. Returns 0; an ExplorerError says in plain words what was wrong."""
    config, stream = _train_config(args), _stream_config(args)
    material = _material(args)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    lvlm = open_lvlm(args.model, device=device)
    block = lvlm.read_block if args.block is None else args.block
    lvlm.width(block)
    _same_stream(
        args, {"model": lvlm.model_id, "block": block, "pictures": material.train.description}, stream
    )
    first = batches_taken(args.checkpoint) if args.resume else 0
    vectors = batches(lvlm, block, material.train, config.batch, stream, first)
    with tqdm(
        total=config.steps, initial=max(0, first - config.norm_batches), unit="step", file=sys.stderr,
        disable=args.quiet, dynamic_ncols=True,
    ) as bar:  # fmt: skip
        result = train(
            config,
            vectors,
            on_step=lambda report: _show(bar, report),
            resume_from=args.checkpoint if args.resume else None,
            checkpoint=args.checkpoint,
            checkpoint_every=args.checkpoint_every,
            device=device,
        )
    held_out = patch_vectors(lvlm, block, material.held_out, 0, len(material.held_out), stream)
    quality = evaluate(result.sae, held_out.to(device))
    _label(result.sae, lvlm, block, material, quality)
    result.sae.save(args.out, half=args.half)
    print(describe(result, quality, args.out))
    return 0


def describe(result: TrainResult, quality: Quality, out: Path) -> str:
    """What was trained and how good it is, for people."""
    sae, metrics = result.sae, result.metrics
    prefixes = ", ".join(f"{end}: {v:.3f}" for end, v in zip(sae.boundaries, quality.prefixes, strict=True))
    return (
        f"{out}: {sae.n_neurons} neurons of width {sae.width} at block {sae.site_block}, id {sae.short_id}; "
        f"{metrics.steps} steps, {metrics.vectors} vectors, {metrics.seconds:.0f} s in this run\n"
        f"on {quality.vectors} held-out vectors: explained variance {quality.explained_variance:.4f}, "
        f"{quality.l0:.1f} active neurons per vector, {quality.dead_share:.1%} never active\n"
        f"explained variance from the first neurons: {prefixes}"
    )


def _train_config(args: argparse.Namespace) -> TrainConfig:
    """The training that the arguments ask for; short runs warm up and decay in proportion."""
    return TrainConfig(
        expansion=args.expansion,
        k=args.k,
        steps=args.steps,
        batch=args.batch,
        lr=args.lr,
        warmup=min(1000, args.steps // 20),
        decay_start=args.steps * 4 // 5,
        aux_alpha=args.aux_alpha,
        dead_after=args.dead_after or max(args.batch, args.steps * args.batch // 50),
        threshold_start=min(1000, args.steps // 4),
        threshold_decay=max(0.9, min(0.999, 1 - 10 / args.steps)) if args.steps else 0.999,
        norm_batches=min(100, max(1, args.steps // 40)),
        seed=args.seed,
        bf16=args.bf16,
    )


def _stream_config(args: argparse.Namespace) -> StreamConfig:
    return StreamConfig(args.chunk, args.reuse, args.tower_batch, args.workers, args.seed)


def _material(args: argparse.Namespace) -> Material:
    """The pictures that the arguments name. Those for measuring are never trained on."""
    if args.held_out < 1:
        raise SAEError(f"--held-out {args.held_out}: some pictures are needed to measure on")
    if args.images is not None:
        kept = -args.held_out
        return Material(
            FolderPictures(args.images, slice(kept)), FolderPictures(args.images, slice(kept, None))
        )
    seeds = range(args.first_seed, args.first_seed + args.scenes)
    if seeds and seeds.stop > HELD_OUT_SEED and seeds.start < HELD_OUT_SEED + args.held_out:
        raise SAEError(
            f"the scenes from seed {seeds.start} to {seeds.stop - 1} include those kept for measuring "
            f"({HELD_OUT_SEED} and up); choose another --first-seed"
        )
    return Material(
        ScenePictures(args.scenes, args.first_seed, args.counterfactual),
        ScenePictures(args.held_out, HELD_OUT_SEED, args.counterfactual),
    )


def _same_stream(args: argparse.Namespace, site: dict[str, Any], stream: StreamConfig) -> None:
    """Note beside the checkpoint where its vectors come from; refuse to resume from others."""
    note = args.checkpoint.with_suffix(".json")
    facts = {**site, "chunk": stream.chunk, "reuse": stream.reuse, "seed": stream.seed}
    if args.resume:
        if not note.is_file():
            raise SAEError(f"there is no run to resume: {note} is missing")
        before = json.loads(note.read_text())
        for name, value in facts.items():
            if before.get(name) != value:
                raise SAEError(f"the run at {args.checkpoint} had {name} = {before.get(name)}, not {value}")
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(facts))


def _show(bar: tqdm, report: StepReport) -> None:
    """Move the progress line."""
    if report.step % 20 == 0:
        bar.set_postfix_str(
            f"error {report.error:.4f} cut {report.cut:.3f} dead {report.dead}", refresh=False
        )
    bar.update(1)


def _label(sae: SAE, lvlm: LVLM, block: int, material: Material, quality: Quality) -> None:
    """Write into the SAE what it belongs to and what is known of it."""
    sae.site_block, sae.model_id = block, lvlm.model_id
    sae.facts.update(
        trained_on=material.train.description,
        measured_on=material.held_out.description,
        quality={name: value for name, value in quality._asdict().items()},
        torch=torch.__version__,
    )
