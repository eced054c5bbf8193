"""The command `build`: from pictures to a store, or to one part of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from index.commands import common

if TYPE_CHECKING:
    from index.build import Summary
    from index.work import Shard

DESCRIPTION = (
    "Finds the strongest images of every neuron of an SAE and writes them, with statistics and names, to a "
    "store that\nthe page reads. An earlier store at --out is replaced when the new one is complete. "
    "Progress is saved every few\nminutes: after an interruption of any kind, run the same command again "
    "to go on."
)
USAGE = "python -m index build (--images DIR | --scenes N | ...) --out STORE [options]"
EPILOG = f"""examples:
  the embedded model on 4000 drawn scenes:
    python -m index build --scenes 4000 --out stores/embedded
  your own pictures:
    python -m index build --images ~/Pictures --out stores/mine
  part 3 of 8, on any machine; when all are there, merge them:
    python -m index build --images /data/pictures --shard 3/8 --out parts
    python -m index merge parts --out stores/pictures

{common.EXIT_CODES}
"""


def shard(text: str) -> Shard:
    """The argument i/n."""
    from index.work import Shard

    index, slash, of = text.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; use i/n with i from 1 to n, such as 3/8")
    return Shard(int(index), int(of))


def add_arguments(parser: argparse.ArgumentParser, alone: bool = True) -> None:
    """Declare the command's arguments. alone: not as part of a cluster's, which shards by itself."""
    from index.sources.opening import add_arguments as add_source

    add_source(parser)
    out = parser.add_argument_group("what to write")
    out.add_argument(
        "--out",
        "--store",
        dest="out",
        type=Path,
        required=True,
        metavar="STORE",
        help="folder of the store; with --shard the folder that holds the parts",
    )
    out.add_argument(
        "--shard",
        type=shard,
        default=None,
        metavar="I/N",
        help="build only part I of N, for `merge`" if alone else argparse.SUPPRESS,
    )
    out.add_argument(
        "--restart", action="store_true", help="throw away the progress of an unfinished build at --out"
    )
    out.add_argument(
        "--checkpoint-every",
        type=common.natural,
        default=300,
        metavar="SECONDS",
        help="time between checkpoints, at least (default: 300)",
    )
    site = parser.add_argument_group("the model and its neurons")
    common.add_model(site)
    common.add_sae(site)
    common.add_words(
        site,
        "leave them out, `label` adds them; with --shard what `merge` is told counts",
        "answer for a small model, unembedding for a large one",
    )
    _add_measure(parser.add_argument_group("how to measure"))
    common.add_machine(parser.add_argument_group("the machine"), "--batch")


def _add_measure(group: argparse._ArgumentGroup) -> None:
    """The arguments that change what is measured."""
    group.add_argument(
        "--score",
        "--store-score",
        choices=("mean", "max"),
        default="mean",
        help="an image's score for a neuron: the mean or the maximum over its patches (default: mean)",
    )
    group.add_argument(
        "--include-cls", action="store_true", help="count the CLS token too, as the sae-for-vlm code does"
    )
    group.add_argument(
        "--places", type=common.count, default=16, metavar="P", help="exemplars per neuron (default: 16)"
    )
    group.add_argument(
        "--sample",
        type=common.natural,
        default=4096,
        metavar="S",
        help="about how many images partners, average precision and monosemanticity are measured on, and "
        "words are looked for around; 0 for none of these (default: 4096)",
    )


def run(args: argparse.Namespace) -> int:
    """Build, and say what was built."""
    from tqdm import tqdm

    from index.build import BuildConfig, build
    from index.part import Progress, Stopped
    from index.sources.opening import open_source
    from index.work import check_out

    check_out(args.out, args.shard)
    source = open_source(args)
    site = common.open_site(args)
    config = BuildConfig(
        args.out,
        score=args.score,
        include_cls=args.include_cls,
        batch=args.batch,
        places=args.places,
        sample=args.sample,
        workers=args.workers,
        shard=args.shard,
        checkpoint_every=args.checkpoint_every,
        restart=args.restart,
        words=args.words,
        device=site.device,
        dtype=site.dtype,
    )
    with tqdm(
        unit="img", file=sys.stderr, disable=args.quiet, dynamic_ncols=True, smoothing=0.05, delay=1
    ) as bar:  # the delay: nothing is shown before it is known how many there are

        def seen(progress: Progress) -> None:
            if bar.total is None:
                bar.delay = 0
                bar.reset(progress.of)
                bar.initial = bar.n = bar.last_print_n = progress.done
            bar.set_postfix_str(f"{progress.skipped} skipped" if progress.skipped else "", refresh=False)
            bar.update(progress.done - bar.n)

        tell = common.teller_beside(bar, args.quiet)
        try:
            summary = build(config, source, site.lvlm, site.sae, seen, tell=tell)
        except Stopped as stopped:
            bar.close()
            print("stopped; the progress is saved. Run the same command again to go on", file=sys.stderr)
            return 128 + stopped.signal
    print(describe(summary, args))
    return 0


def describe(summary: Summary, args: argparse.Namespace) -> str:
    """The summary of a build, for people."""
    total = summary.n_images + len(summary.skipped)
    rate = summary.fresh / max(summary.seconds, 1e-9)
    took = f"{summary.fresh:,} pictures in {common.time_words(summary.seconds)} ({rate:,.0f} images/s)"
    took += f", and {common.time_words(summary.finishing)} for the store" * (summary.merged is not None)
    lines = [took if summary.fresh else "no picture was left to read"]
    lines += common.skipped_words(summary.skipped, total)
    if summary.merged is not None:
        merged, choice = summary.merged, common.choice_of(args)
        return "\n".join([*lines, *common.store_words(args.out, merged.manifest, merged.classes, choice)])
    lines.append(
        f"{summary.folder}: part {args.shard.index} of {args.shard.of} is complete, {total:,} pictures"
    )
    chosen = common.choice_of(args).words()
    lines.append(f"when all parts are: python -m index merge {args.out} --out STORE {chosen}".rstrip())
    return "\n".join(lines)
