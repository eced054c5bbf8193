"""The command line of the offline half: `python -m index build | train-sae`. Knows arguments and exit codes.

Exit codes: 0 done, 1 an error in plain words, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.errors import ExplorerError

if TYPE_CHECKING:
    from index.build import Summary
    from index.sources import Source

ASSETS = Path(__file__).resolve().parent.parent / "assets"
DONE, FAILED, INTERRUPTED = 0, 1, 130


def _count(text: str) -> int:
    """An argument that counts something: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _add_build(parser: argparse.ArgumentParser) -> None:
    """The arguments of `build`."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="DIR", help="index all pictures below this folder")
    source.add_argument("--scenes", type=_count, metavar="N", help="index N drawn scenes, with ground truth")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="STORE", help="folder of the store to write"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the first scene (default: 0)"
    )
    parser.add_argument(
        "--model", default=None, help="folder or hub name of an LVLM (default: the embedded one)"
    )
    parser.add_argument("--sae", type=Path, default=None, help="SAE file (default: the embedded one)")
    parser.add_argument(
        "--score",
        "--store-score",
        choices=("mean", "max"),
        default="mean",
        help="an image's score for a neuron: the mean or the maximum over its patches (default: mean)",
    )
    parser.add_argument(
        "--batch", type=_count, default=16, metavar="B", help="images per model run (default: 16)"
    )
    parser.add_argument("--limit", type=_count, default=None, metavar="N", help="only the first N images")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; arguments whose module is slow to load are added only when their command is asked for."""
    parser = argparse.ArgumentParser(prog="python -m index", description="The offline half of the explorer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser(
        "build",
        help="find the strongest images of every neuron and write a store",
        description="Finds the 16 strongest images of every neuron of an SAE and writes them, with "
        "statistics, to a store that the page reads. An earlier store at --out is replaced when the new "
        "one is complete.",
    )
    _add_build(build)
    train = commands.add_parser("train-sae", help="train a sparse autoencoder on a model's vision tower")
    if command == "train-sae":
        from index import train_sae

        train_sae.add_arguments(train)
    return parser


def _source(args: argparse.Namespace) -> Source:
    """The source that the arguments name."""
    from index.sources import FolderSource, SceneSource

    if args.images is not None:
        return FolderSource(args.images, args.limit)
    return SceneSource(args.scenes, args.seed, limit=args.limit)


def _build(args: argparse.Namespace) -> int:
    """Run `build`."""
    import torch
    from tqdm import tqdm

    from explorer.sae import load_sae
    from explorer.store import check_target
    from explorer.vlm import open_lvlm
    from index.build import BuildConfig, build

    config = BuildConfig(args.out, args.score, args.batch)
    check_target(args.out)
    source = _source(args)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    sae = load_sae(args.sae or ASSETS / "sae" / "sae.safetensors").to(device)
    lvlm = open_lvlm(args.model or str(ASSETS / "lvlm"), device=device, dtype=dtype)
    with tqdm(
        total=len(source.ids()), unit="img", file=sys.stderr, disable=args.quiet, dynamic_ncols=True
    ) as bar:
        summary = build(config, source, lvlm, sae, bar.update)
    print(describe(summary, args.out))
    return DONE


def describe(summary: Summary, out: Path) -> str:
    """The summary of a build, for people."""
    manifest, skipped = summary.manifest, summary.skipped
    size = sum(facts.bytes for facts in manifest.files.values()) / 2**20
    rate = (manifest.n_images + len(skipped)) / max(summary.seconds, 1e-9)
    lines = [
        f"{out}: {manifest.n_images} images in {summary.seconds:.1f} s ({rate:.0f} images/s), {size:.1f} MiB",
        f"{summary.n_live} of {manifest.n_neurons} neurons fire, the others never do; "
        f"{summary.n_always_on} are in the top-20 of every image",
    ]
    if skipped:
        lines.append(f"{len(skipped)} could not be read, for instance:")
        lines += [f"  {row.image_id}: {row.reason}" for row in skipped[:5]]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser(words[0] if words else None).parse_args(words)
    try:
        if args.command == "train-sae":
            from index import train_sae

            return train_sae.run(args)
        return _build(args)
    except ExplorerError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; nothing was published", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
