"""The command `merge`: from parts, built one by one on any machines, to a store."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from index.commands import common

DESCRIPTION = (
    "Makes a store of the parts that `build --shard I/N` wrote. All N must be there, complete and\n"
    "built from the same pictures, model and SAE in the same way. The store's rows are those that one\n"
    "build of everything would have written. The parts are left as they are."
)
EPILOG = f"""examples:
  all parts are in one folder:
    python -m index merge parts --out stores/pictures
  they were copied from several machines:
    python -m index merge from-a/part-0001-of-0002 from-b/part-0002-of-0002 --out stores/pictures
  with the words that each neuron raises, which only the model can tell:
    python -m index merge parts --out stores/pictures --words answer

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "parts",
        type=Path,
        nargs="+",
        metavar="PARTS",
        help="folders that hold parts, or the parts themselves",
    )
    parser.add_argument(
        "--out",
        "--store",
        dest="out",
        type=Path,
        required=True,
        metavar="STORE",
        help="folder of the store to write",
    )
    common.add_sae(parser)
    common.add_model(parser)
    common.add_words(
        parser,
        "leave them out",
        "with --model answer for a small model, unembedding for a large one; else none, `label` adds them",
    )
    common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Merge, and say what was made."""
    from explorer.store import check_target
    from index.merge import merge

    started = time.monotonic()
    check_target(args.out)
    if args.words != "none" and (args.words or args.model):
        site = common.open_site(args)
        sae, lvlm = site.sae, site.lvlm
    else:
        sae, lvlm = common.open_sae(args), None
    merged = merge(args.parts, args.out, sae, lvlm, args.words, common.teller(args.quiet))
    lines = [f"merged {merged.manifest.n_parts} parts in {common.time_words(time.monotonic() - started)}"]
    total = merged.manifest.n_images + len(merged.skipped)
    lines += common.skipped_words(merged.skipped, total)
    lines += common.store_words(args.out, merged.manifest, merged.classes, common.choice_of(args))
    print("\n".join(lines))
    return 0
