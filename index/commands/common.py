"""What several commands share: arguments of the model and the SAE, and words for people.

Heavy modules are imported only when a command runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from explorer.vlm import loading
from explorer.vlm.loading import Choice, add_choice

if TYPE_CHECKING:
    from tqdm import tqdm

    from explorer.sae import SAE
    from explorer.store import Manifest
    from explorer.store.classes import ClassCounts
    from explorer.store.rows import SkippedRow
    from explorer.vlm.base import LVLM

ASSETS = Path(__file__).resolve().parents[2] / "assets"
EXIT_CODES = (
    "exit codes: 0 done, 1 an error in plain words, 2 wrong usage,\n"
    "            130 stopped by Ctrl-C, 143 by SIGTERM, 129 by a terminal that was closed"
)
WARNING = "warning: "
"""How a line begins that nobody should miss."""
SHOWN = 5
"""How many skipped pictures a summary names."""


class Site(NamedTuple):
    """An opened model and SAE, and what they run on."""

    lvlm: LVLM
    sae: SAE
    device: str
    dtype: str


def whole(text: str) -> int:
    """An argument that is a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def count(text: str) -> int:
    """An argument that counts something: a whole number of at least 1."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def natural(text: str) -> int:
    """An argument that is a whole number of at least 0."""
    number = whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is below 0")
    return number


def share(text: str) -> float:
    """An argument that is a share: 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; use a number from 0 to 1")
    return number


def add_model(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """The arguments that choose a model and how it is opened."""
    add_choice(parser, ("model",))


def add_sae(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """The arguments that choose an SAE, of any format that is known, and its block."""
    add_choice(parser, ("sae", "hint"))


def add_hints(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """The argument for what an SAE's file does not say; `open_sae` reads it."""
    add_choice(parser, ("hint",))


def add_store(parser: argparse.ArgumentParser) -> None:
    """The argument that chooses a store: its folder, or --store and its folder; `store_of` reads it."""
    parser.add_argument("store", nargs="?", type=Path, metavar="STORE", help="folder of the store")
    parser.add_argument("--store", dest="named_store", type=Path, metavar="STORE", help="the same")


def store_of(args: argparse.Namespace) -> Path:
    """The folder of the store that the arguments name; wrong usage where they name none, or two."""
    named = [store for store in (args.store, args.named_store) if store is not None]
    if len(named) != 1:
        args.refuse("give the folder of one store, as STORE or as --store STORE")
    return named[0]


def add_words(parser: argparse._ArgumentGroup | argparse.ArgumentParser, none: str, default: str) -> None:
    """The argument that chooses how words are found. none: what "none" means here; default: without it."""
    parser.add_argument(
        "--words",
        choices=("answer", "unembedding", "none"),
        default=None,
        help="where the words that neurons raise come from. answer: the model is asked about each neuron, "
        "which is best, and takes days for a large model on a CPU; unembedding: they are read off its output "
        "weights, which is quick, but no better than chance on the embedded model; "
        f"none: {none} (default: {default})",
    )


def add_machine(group: argparse._ArgumentGroup, *names: str, each: str = "") -> None:
    """The arguments about the work of this machine: pictures at once, readers, and what is said on the way.

    names: other names of --tower-batch, the first of them its name in the result; each: of what the number
    of readers is.
    """
    group.add_argument(
        *names,
        "--tower-batch",
        type=count,
        default=32,
        metavar="N",
        help="pictures that go through the tower at once (default: %(default)s)",
    )
    group.add_argument(
        "--workers",
        type=natural,
        default=default_workers(),
        metavar="N",
        help=f"processes that read pictures{each}, 0 for none (default here: %(default)s)",
    )
    add_quiet(group)


def add_quiet(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """The argument that leaves out what is said on the way."""
    group.add_argument("--quiet", action="store_true", help="no progress: only the result, and warnings")


def add_json(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """The argument that asks for figures that programs can read."""
    group.add_argument("--json", action="store_true", help="print the figures as JSON")


def choice_of(args: argparse.Namespace) -> Choice:
    """The choice of model and SAE that the arguments make; the store is each command's own affair."""
    return loading.choice_of({name: value for name, value in vars(args).items() if name != "store"})


def open_sae(args: argparse.Namespace) -> SAE:
    """The SAE that the arguments name."""
    from explorer.session import opening

    return opening.open_sae(choice_of(args), teller(getattr(args, "quiet", False)))


def open_site(args: argparse.Namespace) -> Site:
    """The model and the SAE that the arguments name. A large model's need of memory is told first."""
    from explorer.session.opening import open_parts

    choice = choice_of(args)
    lvlm, sae = open_parts(choice, teller(getattr(args, "quiet", False)))
    device = lvlm.model.device.type if choice.device == "auto" else choice.device
    return Site(lvlm, sae, device, str(lvlm.model.dtype).removeprefix("torch."))


def default_workers() -> int:
    """Processes that read pictures: all cores but one, at most 4; none where that would leave too few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores - 1) if cores > 2 else 0


def teller(quiet: bool) -> Callable[[str], None]:
    """Something that hears what is being done, and says it on stderr; `quiet`: only what is a warning."""

    def tell(words: str) -> None:
        if not quiet or words.startswith(WARNING):
            print(words, file=sys.stderr)

    return tell


def teller_beside(bar: tqdm, quiet: bool) -> Callable[[str], None]:
    """The same above a progress bar, which is closed once it is full."""

    def tell(words: str) -> None:
        if bar.n == bar.total:
            bar.close()
        if not quiet:
            bar.write(words, file=sys.stderr)

    return tell


def size_words(size: float) -> str:
    """A number of bytes, for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError


def time_words(seconds: float) -> str:
    """A duration, for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"


def skipped_words(skipped: Sequence[SkippedRow], of: int) -> list[str]:
    """Lines about pictures that could not be read; none when there are none."""
    if not skipped:
        return []
    shown = [f"  {row.image_id}: {row.reason}" for row in skipped[:SHOWN]]
    rest = [f"  and {len(skipped) - SHOWN:,} more"] if len(skipped) > SHOWN else []
    return [f"{len(skipped):,} of {of:,} pictures could not be read, for instance:", *shown, *rest]


def store_words(out: Path, manifest: Manifest, classes: ClassCounts, choice: Choice) -> list[str]:
    """Lines about a finished store, and what to do with it. choice: the model and the SAE that it is of."""
    chosen = " ".join(part for part in (choice.words(), f"--store {shlex.quote(str(out))}") if part)
    size = size_words(sum(facts.bytes for facts in manifest.files.values()))
    live = manifest.n_neurons - classes.dead
    return [
        f"{out}: {manifest.n_images:,} images, {manifest.n_neurons:,} neurons, {size}",
        f"{live:,} neurons fire, {classes.dead:,} never do; {classes.always_on:,} are in the top-20 of every "
        f"image, {classes.rare:,} fire in less than 0.1 % of them",
        f"see it:   python app.py {chosen}",
        f"check it: python -m index verify {chosen}",
    ]
