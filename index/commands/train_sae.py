"""The command `train-sae`: trains an SAE on what a model's vision tower makes of pictures of any source."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from index.commands import common

if TYPE_CHECKING:
    from tqdm import tqdm

    from explorer.sae import SAE
    from explorer.sae.training import StepReport
    from explorer.vlm.base import LVLM
    from index.training.pictures import Material
    from index.training.run import Outcome, Plan

DESCRIPTION = (
    "Trains a sparse autoencoder (Matryoshka BatchTopK) on the vectors that one block of a model's vision\n"
    "tower gives for the patches of your pictures, measures it on pictures that were not trained on, and\n"
    "writes it to one file, which `build` and the page take with --sae. The vectors are made while they are\n"
    "used and shuffled through a buffer: neither disk nor memory has to hold them."
)
USAGE = "python -m index train-sae (--images DIR | --scenes N | ...) --out FILE [options]"
EPILOG = f"""examples:
  on your own pictures, for another model, on a GPU:
    python -m index train-sae --model llava-hf/llava-1.5-7b-hf --images ~/Pictures --expansion 8 \\
        --device cuda --checkpoint runs/mine/state.pt --out runs/mine/sae.safetensors
  on four GPUs, each of which reads a quarter of the pictures:
    accelerate launch --multi_gpu --num_processes 4 -m index train-sae --imagenet train/ ...
  in two processes of one CPU, which accelerate does not start:
    torchrun --nproc-per-node 2 -m index train-sae --device cpu --imagenet train/ ...
  after an interruption of any kind, the same command with --resume

Beside the checkpoint lie its figures (.metrics.jsonl) and the pictures that could not be used
(.skipped.jsonl).

{common.EXIT_CODES}
"""
FIRST_SEED = 10_000_000
"""Training scenes begin here: far from those of the LVLM's own training (from 1,000,000 on)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from index.sources.opening import add_arguments as add_source

    add_source(parser)
    _add_share(parser.add_argument_group("which of them"))
    site = parser.add_argument_group("the model")
    common.add_model(site)
    site.add_argument(
        "--block",
        type=common.natural,
        metavar="B",
        help="block of the tower (default: the one the LLM reads)",
    )
    site.add_argument("--include-cls", action="store_true", help="train on the CLS token too")
    _add_training(parser.add_argument_group("the SAE and its training"))
    _add_files(parser.add_argument_group("what to write"))
    machine = parser.add_argument_group("the machine")
    _add_number(machine, "--buffer", 262_144, "vectors held at once, in all processes together", common.count)
    _add_number(
        machine, "--reuse", 4, "times that each vector is used before it leaves the buffer", common.count
    )
    common.add_machine(machine, each=" for each that trains")


def _add_share(group: argparse._ArgumentGroup) -> None:
    """The arguments that say which pictures are trained and measured on."""
    _add_number(
        group, "--held-out", 500, "pictures that are kept out of the training, spread evenly, to measure on"
    )
    group.add_argument(
        "--counterfactual",
        type=common.share,
        default=None,
        metavar="SHARE",
        help="with --scenes: share of counterfactual ones (default: 0.1); --seed is 10,000,000 by default",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    """The arguments that say what is learnt, and how."""
    _add_number(group, "--expansion", 16, "neurons per dimension of the vectors")
    _add_number(group, "--k", 20, "active neurons per vector, on average")
    _add_number(group, "--steps", 4000, "steps of training")
    _add_number(group, "--batch", 4096, "vectors per step, of all processes together")
    group.add_argument(
        "--lr", type=float, metavar="RATE", help="peak learning rate (default: by the number of neurons)"
    )
    group.add_argument(
        "--aux-alpha",
        type=float,
        default=0.03,
        metavar="WEIGHT",
        help="weight of the dead neurons' loss (default: %(default)s)",
    )
    group.add_argument(
        "--dead-after",
        type=common.count,
        metavar="N",
        help="vectors without firing until a neuron is dead (default: 2 %% of all)",
    )
    _add_number(group, "--init-seed", 0, "seed of the first weights and the shuffling")
    group.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="search the largest activations in bfloat16; all else stays float32 (default: on a GPU)",
    )


def _add_files(group: argparse._ArgumentGroup) -> None:
    """The arguments that name the files to write, and what is measured for them."""
    group.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the SAE to write; one that is there is kept unless --replace is given",
    )
    group.add_argument("--replace", action="store_true", help="replace the SAE that is at --out")
    group.add_argument("--half", action="store_true", help="store the weights as float16")
    group.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("runs/sae/checkpoint.pt"),
        metavar="FILE",
        help="where the progress is kept (default: %(default)s)",
    )
    _add_number(group, "--checkpoint-every", 500, "steps between checkpoints", common.count)
    progress = group.add_mutually_exclusive_group()
    progress.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    progress.add_argument(
        "--restart", action="store_true", help="throw away the progress of an unfinished run at --checkpoint"
    )
    _add_number(group, "--evaluate-every", 0, "steps between measurements; 0: only at the end")
    _add_number(
        group, "--captions", 32, "held-out pictures that are captioned with and without the SAE; 0: none"
    )


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
    """Train, measure, write. Returns an exit code; an ExplorerError says in plain words what was wrong."""
    from tqdm import tqdm

    from explorer.sae.training import Halted
    from index.stopping import StopRequests
    from index.training.processes import join
    from index.training.run import run as train

    plan = plan_of(args)
    check_files(args)
    placed = join(None if args.device == "auto" else args.device)
    main = placed.team.rank == 0
    lvlm = _model(args, placed.device)
    plan = replace(plan, dtype=str(lvlm.model.dtype).removeprefix("torch."))
    requests = StopRequests()
    with tqdm(
        total=args.steps, unit="step", file=sys.stderr, disable=args.quiet or not main, dynamic_ncols=True
    ) as bar:

        def tell(words: str) -> None:
            if main and not args.quiet:
                bar.write(words, file=sys.stderr)

        try:
            with requests:
                outcome = train(plan, lvlm, placed, lambda report: show(bar, report), requests.asked, tell)
        except Halted:
            bar.close()
            if main:
                print(
                    f"stopped; {saved_steps(plan):,} of {args.steps:,} steps are saved. Run the same command "
                    "with --resume to go on",
                    file=sys.stderr,
                )
            return 128 + (requests.signal or signal.SIGTERM)
    if main:
        save(outcome.sae, args)
        print(describe(outcome, args))
    return 0


def saved_steps(plan: Plan) -> int:
    """How many steps the checkpoint holds; 0 where there is none yet."""
    from explorer.sae.training import batches_taken

    if not plan.checkpoint.is_file():
        return 0
    return max(0, batches_taken(plan.checkpoint) - plan.config.norm_batches)


def plan_of(args: argparse.Namespace) -> Plan:
    """The training that the arguments ask for. Raises an ExplorerError for what cannot be."""
    from index.training.run import Plan, config_of
    from index.training.stream import StreamConfig

    bf16 = args.bf16
    if bf16 is None:
        import torch

        bf16 = torch.cuda.is_available() and args.device != "cpu"
    config = config_of(
        args.steps,
        args.batch,
        args.dead_after,
        expansion=args.expansion,
        k=args.k,
        lr=args.lr,
        aux_alpha=args.aux_alpha,
        seed=args.init_seed,
        bf16=bf16,
    )
    stream = StreamConfig(args.buffer, args.reuse, args.tower_batch, args.workers, args.init_seed)
    return Plan(
        material_of(args),
        config,
        stream,
        args.checkpoint,
        block=args.block,
        include_cls=args.include_cls,
        captions=args.captions,
        evaluate_every=args.evaluate_every,
        checkpoint_every=args.checkpoint_every,
        resume=args.resume,
    )


def material_of(args: argparse.Namespace) -> Material:
    """The pictures that the arguments name. Those for measuring are never trained on."""
    from explorer.errors import SourceError
    from index.sources.opening import open_source
    from index.training.pictures import split, split_scenes

    source = open_source(args)
    if args.scenes is None:
        if args.counterfactual is not None:
            raise SourceError("--counterfactual goes with --scenes")
        return split(source, args.held_out)
    if args.spread:
        raise SourceError("--spread does not go with --scenes; ask for fewer --scenes")
    first = FIRST_SEED if args.seed is None else args.seed
    share = 0.1 if args.counterfactual is None else args.counterfactual
    return split_scenes(len(source), first, share, args.held_out)


def check_files(args: argparse.Namespace) -> None:
    """Refuse files that cannot be written, or whose contents would be lost, before hours of training."""
    from explorer.errors import SAEError
    from index.training.record import Record

    out, record = args.out, Record(args.checkpoint)
    if not (args.resume or args.restart) and record.checkpoint.is_file() and not record.finished():
        raise SAEError(
            f"{args.checkpoint} holds the progress of a run that was not finished; go on with --resume, "
            "throw it away with --restart, or name another --checkpoint"
        )
    if out.is_dir():
        raise SAEError(f"{out} is a folder; name a file for --out")
    if out.exists() and not (args.replace or (args.resume and record.finished())):
        raise SAEError(f"there is a file at {out}; name another --out, or replace it with --replace")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise SAEError(
            f"cannot write in {out.parent}: {error.strerror or error}; choose another --out"
        ) from error


def save(sae: SAE, args: argparse.Namespace) -> None:
    """Write the SAE. Raises SAEError that says how it is not lost where it cannot be written."""
    from explorer.errors import SAEError

    try:
        sae.save(args.out, half=args.half)
    except SAEError as error:
        raise SAEError(
            f"{error}. The trained SAE is in the checkpoint {args.checkpoint}: make room, or name another "
            "--out, and run the same command with --resume"
        ) from error


def _model(args: argparse.Namespace, device: str) -> LVLM:
    """The model that the arguments name."""
    from explorer.vlm import open_lvlm

    choice, tell = common.choice_of(args), common.teller(args.quiet)
    return open_lvlm(choice.model or common.ASSETS / "lvlm", device, loading=choice, tell=tell)


def show(bar: tqdm, report: StepReport) -> None:
    """Move the progress line."""
    if report.step % 20 == 0:
        bar.set_postfix_str(
            f"error {report.error:.4f} cut {report.cut:.3f} dead {report.dead}", refresh=False
        )
    if not bar.n:
        bar.initial = bar.n = report.step  # a resumed run begins where it stopped
    bar.update(report.step + 1 - bar.n)


def describe(outcome: Outcome, args: argparse.Namespace) -> str:
    """What was trained and how good it is, for people."""
    sae, metrics = outcome.sae, outcome.metrics
    chosen = replace(common.choice_of(args), sae=args.out, block=None).words()
    lines = [
        f"{args.out}: {sae.n_neurons:,} neurons of width {sae.width:,} at block {sae.site_block}, "
        f"id {sae.short_id}; {metrics.steps:,} steps, {metrics.vectors:,} vectors, "
        f"{common.time_words(metrics.seconds)} in this run",
        *outcome.measures.words(sae),
        *common.skipped_words(outcome.skipped, outcome.pictures),
        f"index with it: python -m index build ... {chosen}",
    ]
    return "\n".join(lines)
