"""The command `train-sae`: trains an SAE on the patch vectors of a model's vision tower.

Streams vectors of drawn scenes or of a folder, trains, measures on pictures that were not trained
on, and writes the SAE with what is known of it. `__main__` hands over the arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
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
from index.commands import common
from index.vectors import FolderPictures, Pictures, ScenePictures, StreamConfig, batches, patch_vectors

DESCRIPTION = (
    "Trains a sparse autoencoder (Matryoshka BatchTopK) on the patch vectors that one block of a model's\n"
    "vision tower gives for drawn scenes or for your own pictures, measures it on pictures that were not\n"
    "trained on, and writes it to one file, which `build` and the page take with --sae."
)
EPILOG = """examples:
  on your own pictures, for another model, on a GPU:
    python -m index train-sae --model llava-hf/llava-1.5-7b-hf --images ~/Pictures --expansion 8 \\
        --device cuda --checkpoint runs/mine/checkpoint.pt --out runs/mine/sae.safetensors
  after an interruption, the same with --resume

exit codes: 0 done, 1 an error in plain words, 2 wrong usage,
            130 stopped by Ctrl-C, 143 stopped by SIGTERM
"""
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
    _add_files(parser.add_argument_group("what to read and write"))
    sae = parser.add_argument_group("the SAE and its training")
    _add_number(sae, "--expansion", 16, "neurons per dimension of the vectors")
    _add_number(sae, "--k", 20, "active neurons per vector, on average")
    _add_number(sae, "--steps", 4000, "steps of training")
    _add_number(sae, "--batch", 4096, "vectors per step")
    sae.add_argument(
        "--lr", type=float, metavar="RATE", help="peak learning rate (default: by the number of neurons)"
    )
    sae.add_argument(
        "--aux-alpha",
        type=float,
        default=0.03,
        metavar="WEIGHT",
        help="weight of the dead neurons' loss (default: %(default)s)",
    )
    sae.add_argument(
        "--dead-after",
        type=int,
        metavar="N",
        help="vectors without firing until a neuron is dead (default: 2 %% of all)",
    )
    _add_number(sae, "--seed", 0, "of the first weights and the shuffling")
    sae.add_argument("--bf16", action="store_true", help="search the largest activations in bfloat16")
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    _add_number(machine, "--chunk", 1024, "pictures whose vectors are shuffled together")
    _add_number(machine, "--reuse", 4, "times that a chunk's vectors are used")
    _add_number(machine, "--tower-batch", 32, "pictures per run of the tower")
    _add_number(machine, "--workers", 0, "processes that draw or read pictures, 0 for none")
    machine.add_argument("--quiet", action="store_true", help="no progress line")


def _add_files(files: argparse._ArgumentGroup) -> None:
    """The arguments that name the model, the pictures and the files to write."""
    files.add_argument(
        "--model",
        default=str(ROOT / "assets" / "lvlm"),
        help="folder or hub name of the LVLM (default: the embedded one)",
    )
    files.add_argument(
        "--block", type=int, metavar="B", help="block of the vision tower (default: the one the LLM reads)"
    )
    pictures = files.add_mutually_exclusive_group()
    pictures.add_argument(
        "--images", type=Path, metavar="DIR", help="train on the pictures below this folder"
    )
    _add_number(pictures, "--scenes", 200_000, "train on so many drawn scenes, then again from the first")
    _add_number(files, "--first-seed", FIRST_SEED, "seed of the first scene")
    files.add_argument(
        "--counterfactual",
        type=common.share,
        default=0.1,
        metavar="SHARE",
        help="share of counterfactual scenes among them (default: %(default)s)",
    )
    _add_number(files, "--held-out", 500, "pictures to measure on; they are kept out of the training")
    files.add_argument(
        "--out",
        type=Path,
        default=ROOT / "assets" / "sae" / "sae.safetensors",
        metavar="FILE",
        help="the SAE to write (default: in the place of the embedded one)",
    )
    files.add_argument("--half", action="store_true", help="store the weights as float16")
    files.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("runs/sae/checkpoint.pt"),
        metavar="FILE",
        help="where the progress is kept (default: %(default)s)",
    )
    _add_number(files, "--checkpoint-every", 500, "steps between checkpoints", common.count)
    files.add_argument("--resume", action="store_true", help="go on from the checkpoint")


def _add_number(
    group: argparse._ActionsContainer,
    name: str,
    default: int,
    words: str,
    kind: Callable[[str], int] = common.natural,
) -> None:
    """An argument that is a whole number, with its default in the help."""
    group.add_argument(name, type=kind, default=default, metavar="N", help=f"{words} (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Train, measure, write. Returns 0; an ExplorerError says in plain words what was wrong."""
    config, stream = _train_config(args), _stream_config(args)
    material = _material(args)
    _check_out(args.out)
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


def _check_out(out: Path) -> None:
    """Refuse an --out that cannot be written now, not after hours of training."""
    if out.is_dir():
        raise SAEError(f"{out} is a folder; name a file for --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SAEError(
            f"cannot write in {out.parent}: {error.strerror or error}; choose another --out"
        ) from error


def _same_stream(args: argparse.Namespace, site: dict[str, Any], stream: StreamConfig) -> None:
    """Note beside the checkpoint where its vectors come from; refuse to resume from others."""
    note = args.checkpoint.with_suffix(".json")
    facts = {**site, "chunk": stream.chunk, "reuse": stream.reuse, "seed": stream.seed}
    if args.resume:
        if not note.is_file():
            raise SAEError(f"there is no run to resume: {note} is missing")
        try:
            before = json.loads(note.read_text())
        except (OSError, ValueError) as error:
            raise SAEError(
                f"cannot resume: {note} is damaged ({error}); start again without --resume"
            ) from error
        for name, value in facts.items():
            if before.get(name) != value:
                raise SAEError(f"the run at {args.checkpoint} had {name} = {before.get(name)}, not {value}")
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(facts))
    except OSError as error:
        raise SAEError(
            f"cannot write {note}: {error.strerror or error}; choose another --checkpoint"
        ) from error


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
