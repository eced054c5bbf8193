"""The command `bench`: how fast is the index here, beside what a plain loop or a peer's way would take?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from index.commands import common

if TYPE_CHECKING:
    from index.bench.merging import Merging
    from index.bench.training import Load, Summary

DESCRIPTION = (
    "Measures the index on this machine. Each ratio comes from one run, in which both sides take turns on\n"
    "the same data; run it when nothing else does."
)
EPILOG = f"""examples:
  the top-16 and the statistics alone, on made-up activations, beside the running top-k of peers:
    python -m index bench stage --images 100000
  the merge of 64 made-up parts of 20,000 images (needs about 40 GB of disk for a while):
    python -m index bench merge
  pages of a gallery by random filters and sorts, on a store of made-up neurons:
    python -m index bench gallery --neurons 65536
  a step of SAE training beside a plain dense implementation of the same loss:
    python -m index bench train-step
  a whole build beside decoding, preprocessing, tower and SAE in a plain loop:
    python -m index bench build --scenes 400

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    kinds = parser.add_subparsers(dest="bench", required=True, metavar="WHAT")
    _add_stage(kinds.add_parser("stage", help="top-16 and statistics alone, beside peers"))
    _add_merge(kinds.add_parser("merge", help="the merge of many parts"))
    _add_gallery(kinds.add_parser("gallery", help="pages of a gallery of made-up neurons"))
    _add_step(kinds.add_parser("train-step", help="a step of SAE training beside a plain dense one"))
    _add_build(kinds.add_parser("build", help="a whole build beside the bare loop"))


def _add_stage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=common.count, default=100_000, help="how many (default: 100000)")
    parser.add_argument("--neurons", type=common.count, default=65_536, help="of the SAE (default: 65536)")
    parser.add_argument("--side", type=common.count, default=24, help="patches per row (default: 24)")
    parser.add_argument("--active", type=common.count, default=20, help="neurons per patch (default: 20)")
    parser.add_argument("--batch", type=common.count, default=32, help="images per chunk (default: 32)")
    parser.add_argument(
        "--width", type=common.natural, default=0, help="of patch vectors; 0: no centroids (default: 0)"
    )
    parser.add_argument("--windows", type=common.count, default=10, help="lines to print (default: 10)")
    parser.add_argument("--skewed", action="store_true", help="some neurons fire far more often than others")
    parser.set_defaults(measure=_stage)


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", type=common.count, default=64, help="how many (default: 64)")
    parser.add_argument("--images", type=common.count, default=20_000, help="in each part (default: 20000)")
    parser.add_argument("--neurons", type=common.count, default=65_536, help="of the SAE (default: 65536)")
    parser.add_argument("--side", type=common.count, default=24, help="patches per row (default: 24)")
    parser.add_argument("--width", type=common.count, default=1024, help="of vectors (default: 1024)")
    parser.add_argument("--sample", type=common.count, default=4096, help="as of a build (default: 4096)")
    parser.add_argument("--workers", type=common.natural, default=2, help="that make parts (default: 2)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="a new folder to work in, where the store is kept (default: a temporary one, nothing is kept)",
    )
    parser.set_defaults(measure=_merge)


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--neurons", type=common.count, default=65_536, help="how many (default: 65536)")
    parser.add_argument("--images", type=common.count, default=2000, help="pictures (default: 2000)")
    parser.add_argument("--pages", type=common.count, default=1000, help="to ask for (default: 1000)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="a new folder to keep the store in (default: a temporary one, nothing is kept)",
    )
    parser.set_defaults(measure=_gallery)


def _add_build(parser: argparse.ArgumentParser) -> None:
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--images", type=Path, default=None, metavar="FOLDER", help="pictures to index")
    pictures.add_argument("--scenes", type=common.count, default=400, help="drawn scenes (default: 400)")
    parser.add_argument("--batch", type=common.count, default=32, help="images per batch (default: 32)")
    parser.add_argument("--turns", type=common.count, default=4, help="of either side (default: 4)")
    common.add_sae(parser)
    common.add_model(parser)
    parser.set_defaults(measure=_build)


def _add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=common.count, default=1024, help="of vectors (default: 1024)")
    parser.add_argument("--neurons", type=common.count, default=16_384, help="of the SAE (default: 16384)")
    parser.add_argument("--k", type=common.count, default=20, help="active per vector (default: 20)")
    parser.add_argument("--batch", type=common.count, default=1024, help="vectors per step (default: 1024)")
    parser.add_argument("--turns", type=common.count, default=5, help="of either side (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--bf16", action="store_true", help="ours searches the largest in bfloat16")
    parser.set_defaults(measure=_step)


def run(args: argparse.Namespace) -> int:
    """Measure what the arguments name."""
    args.measure(args)
    return 0


def _stage(args: argparse.Namespace) -> None:
    """Print a line per window, and the comparison."""
    from index.bench import stage
    from index.bench.synthetic import Load

    load = Load(args.neurons, args.side, args.active, args.batch, args.width, args.skewed)
    for found in stage.run(load, args.images, args.windows):
        if isinstance(found, stage.Window):
            span = f"images {found.begin:>9,} to {found.end:>9,}"
            print(f"{span}: {found.rate:>7,.0f} images/s, {found.memory:.2f} GiB", flush=True)
        else:
            print(
                f"on the same chunks: whole stage {found.stage:,.0f} images/s, top-16 alone {found.top:,.0f}"
            )
            print(f"peers' running top-k ({found.peer}): {found.peers:,.0f} images/s")
            shares = f"{found.stage / found.peers:.1f} x for the stage, {found.top / found.peers:.1f} x"
            print(f"ratio: {shares} for the top-16 alone")


def _merge(args: argparse.Namespace) -> None:
    """Print the steps, the memory and what the store weighs."""
    from index.bench import merging
    from index.bench.made_parts import Size

    size = Size(args.parts, args.neurons, args.side, args.width, args.images, sample=args.sample)
    print("\n".join(merge_words(size.parts, merging.run(size, args.folder, args.workers))))


def merge_words(parts: int, found: Merging) -> list[str]:
    """Lines about a measured merge."""
    weight = sum(found.files.values())
    return [
        f"{parts} parts of {common.size_words(found.part_bytes)} together, made in "
        f"{common.time_words(found.making)} (not counted)",
        *(f"{step.seconds:8.1f} s  {step.what}" for step in found.steps),
        f"{found.seconds:8.1f} s  the merge; {found.processor:.1f} s of processor time",
        f"load of the machine {found.load:.1f}; most memory {found.memory:.2f} GiB",
        f"store: {common.size_words(weight)}, {found.thumbnails:,} thumbnails of {found.images:,} images",
        *(f"  {name}: {common.size_words(size)}" for name, size in found.files.items()),
        *(
            f"    {table.table}: {table.rows:,} rows, {common.size_words(table.bytes)}"
            for table in found.tables
            if table.rows
        ),
    ]


def _gallery(args: argparse.Namespace) -> None:
    """Print what the store weighs, and how long pages take."""
    from index.bench import gallery

    found = gallery.run(args.neurons, args.images, args.pages, args.folder)
    weight = common.size_words(found.bytes)
    print(f"{args.neurons:,} made-up neurons, {weight}, made in {common.time_words(found.making)}")
    print(f"reading all neurons once: {1000 * found.reading:.0f} ms")
    for name, (middle, high, highest) in (("first", found.first), ("again", found.again)):
        times = f"{1000 * middle:.1f} ms in the median, {1000 * high:.1f} p95, {1000 * highest:.1f} at most"
        print(f"{args.pages:,} pages by random filters and sorts, {name}: {times}")


def _build(args: argparse.Namespace) -> None:
    """Print a line per turn, and the sum."""
    from index.bench import whole
    from index.sources import FolderSource, SceneSource

    source = FolderSource(args.images) if args.images else SceneSource(args.scenes)
    site = common.open_site(args)
    for found in whole.run(source, site.lvlm, site.sae, args.batch, args.turns, site.dtype, site.device):
        if isinstance(found, whole.Turn):
            rates = f"bare loop {found.images / found.bare:.1f}, build {found.images / found.build:.1f}"
            print(f"{found.images:,} images: {rates} images/s", flush=True)
        else:
            print(f"all: bare loop {found.bare:.1f}, build {found.build:.1f} images/s")
            print(
                f"the build reaches {found.share:.3f} of the bare loop; the merge took {found.finish:.1f} s"
            )


def _step(args: argparse.Namespace) -> None:
    """Print a line per turn, the ratio and the bound."""
    from index.bench import training

    load = training.Load(args.width, args.neurons, args.k, args.batch, args.bf16, args.device)
    for found in training.run(load, args.turns):
        if isinstance(found, training.Turn):
            memory = [size and common.size_words(size) for size in (found.ours_memory, found.dense_memory)]
            print(
                f"ours {1000 * found.ours:,.0f} ms, dense {1000 * found.dense:,.0f} ms: "
                f"{found.dense / found.ours:.2f} x; working memory {memory[0]} and {memory[1]}; "
                f"the losses differ by {found.apart:.1e}",
                flush=True,
            )
        else:
            print("\n".join(step_words(load, found)))


def step_words(load: Load, found: Summary) -> list[str]:
    """Lines about a measured step of training."""
    bound, ours, dense = found.bound, 1000 * found.ours, 1000 * found.dense
    least = [1000 * seconds for seconds in (bound.ours_seconds, bound.dense_seconds)]
    return [
        f"{load.batch:,} vectors of width {load.width:,}, {load.neurons:,} neurons, K = {load.k}, in the "
        f"median: ours {ours:,.0f} ms, dense {dense:,.0f} ms, ratio {found.ratio:.2f}",
        f"products: ours {bound.ours / 1e9:,.1f} GFLOP ({bound.encode / 1e9:,.1f} of them the encoder's), "
        f"dense {bound.dense / 1e9:,.1f}; Adam moves {common.size_words(bound.traffic)} for either",
        f"this machine: {bound.rate / 1e9:,.0f} GFLOP/s in the encoder's product alone, "
        f"{bound.bandwidth / 2**30:,.1f} GiB/s in Adam alone",
        f"so ours needs at least {least[0]:,.0f} ms, dense {least[1]:,.0f}: no more than {bound.ratio:.2f} x "
        f"is possible here, and {bound.dense / bound.ours:.2f} x without Adam",
    ]
