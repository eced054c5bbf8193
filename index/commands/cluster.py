"""The command `cluster`: a build over Ray, on the processes of one machine or of many."""

from __future__ import annotations

import argparse
import sys
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from index.commands import build, common

if TYPE_CHECKING:
    from index.cluster import Site

DESCRIPTION = (
    "Builds what `build` builds, row for row, with many processes that each hold the model: on this\n"
    "machine, or on all machines of a Ray cluster. They must see the pictures, the model and the folder of\n"
    "--out under the same paths. What a dying process or machine leaves behind is done by others. After an\n"
    "interruption of any kind, run the same command again to go on.\n"
    "It needs: pip install -r requirements-extras.txt"
)
USAGE = "python -m index cluster (--images DIR | --scenes N | ...) --out STORE [options]"
EPILOG = f"""examples:
  all GPUs of this machine:
    python -m index cluster --imagenet /data/imagenet/train --out stores/imagenet
  two processes on each GPU, four processes that read pictures for each:
    python -m index cluster --images /data/pictures --gpus-per-actor 0.5 --workers 4 --out stores/pictures
  a cluster that `ray start` made, from one of its machines:
    python -m index cluster --address auto --gpus-per-actor 1 --images /share/pictures --out /share/stores/all

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: those of `build`, and the cluster's."""
    build.add_arguments(parser, alone=False)
    group = parser.add_argument_group("the cluster")
    group.add_argument(
        "--address",
        default=None,
        help="of a Ray cluster: HOST:PORT, or auto on one of its machines (default: this machine alone)",
    )
    group.add_argument(
        "--actors",
        type=common.count,
        default=None,
        metavar="N",
        help="processes that hold the model (default: as many as there is room for)",
    )
    group.add_argument(
        "--parts",
        type=common.count,
        default=None,
        metavar="N",
        help="parts to hand out; many more than actors (default: eight per actor)",
    )
    group.add_argument(
        "--gpus-per-actor",
        type=float,
        default=None,
        metavar="G",
        help="0 for the CPU, a fraction to share a GPU (default: 1 where this machine has one)",
    )


def run(args: argparse.Namespace) -> int:
    """Build, and say what was built."""
    from tqdm import tqdm

    from explorer.errors import ExplorerError
    from explorer.store import check_target
    from index.build import BuildConfig
    from index.cluster import ClusterConfig, build_on_cluster
    from index.part import Progress
    from index.sources.opening import open_source

    if args.shard is not None:
        raise ExplorerError("a cluster makes parts of its own; leave --shard out (--parts N says how many)")
    check_target(args.out)
    settled = _settled(args)
    cluster = ClusterConfig(args.address, args.actors, args.parts, settled.gpus_per_actor)
    config = BuildConfig(
        args.out,
        score=args.score,
        include_cls=args.include_cls,
        batch=args.batch,
        places=args.places,
        sample=args.sample,
        workers=args.workers,
        checkpoint_every=args.checkpoint_every,
        restart=args.restart,
        words=args.words,
        device=settled.device,
        dtype=settled.dtype,
    )
    source = open_source(args)
    sites = partial(open_site, settled), partial(open_here, settled)
    with tqdm(unit="img", file=sys.stderr, disable=args.quiet, dynamic_ncols=True, total=len(source)) as bar:

        def seen(progress: Progress) -> None:
            bar.set_postfix_str(f"{progress.skipped} skipped" if progress.skipped else "", refresh=False)
            bar.update(progress.done - bar.n)

        tell = common.teller_beside(bar, args.quiet)
        try:
            summary = build_on_cluster(config, cluster, source, *sites, seen, tell)
        except KeyboardInterrupt:
            bar.close()
            print(
                "stopped; finished parts and checkpoints are saved. Run the same command again to go on",
                file=sys.stderr,
            )
            return 130
    print(build.describe(summary, args))
    return 0


def _settled(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with what would depend on the machine decided: device, dtype, GPUs, whole paths."""
    import torch

    from explorer.errors import ExplorerError
    from explorer.vlm.opening import checkpoint_dtype

    settled = copy(args)
    kind = "" if args.device == "auto" else args.device.partition(":")[0]
    if args.gpus_per_actor is None:
        settled.gpus_per_actor = 1.0 if kind in ("", "cuda") and torch.cuda.is_available() else 0.0
    settled.device = kind or ("cuda" if settled.gpus_per_actor else "cpu")
    if (settled.device == "cuda") != bool(settled.gpus_per_actor):
        raise ExplorerError(
            f"--device {settled.device} does not go with {settled.gpus_per_actor:g} GPUs per actor; "
            "name another --gpus-per-actor, or leave --device out"
        )
    if args.dtype is None:
        model = args.model or common.ASSETS / "lvlm"
        on_cpu = settled.device == "cpu"
        settled.dtype = "float32" if on_cpu else checkpoint_dtype(model, common.choice_of(args))
    for name in ("model", "sae"):
        given = getattr(args, name)
        if given and Path(given).exists():
            setattr(settled, name, str(Path(given).absolute()))
    return settled


def open_site(args: argparse.Namespace) -> Site:
    """The model and the SAE, in an actor."""
    from index.cluster import Site

    lvlm, sae, *_ = common.open_site(args)
    return Site(lvlm, sae)


def open_here(args: argparse.Namespace) -> Site:
    """The model and the SAE where the parts are merged, which may be a machine without a GPU."""
    import torch

    from index.cluster import Site

    if args.words == "none":
        return Site(None, common.open_sae(args))
    here = copy(args)
    if here.device == "cuda" and not torch.cuda.is_available():
        here.device = "cpu"
    return open_site(here)
