"""The command `upgrade`: a store of the format before this one, brought up to date."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from index.commands import common

DESCRIPTION = (
    "Brings a store of format 2 to format 3: adds the label entropy of its neurons and the map of their\n"
    "directions. Needs neither pictures nor a model. The new version takes the store's place when it is\n"
    "complete; people's own names, notes and lists stay. Older stores must be built again."
)
EPILOG = f"""examples:
  python -m index upgrade stores/embedded
  python -m index upgrade stores/imagenet stores/coco

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("stores", type=Path, nargs="+", metavar="STORE", help="folder of a store")
    common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Upgrade each, and say so."""
    from index.upgrade import upgrade

    for store in args.stores:
        started = time.monotonic()
        manifest = upgrade(store, common.teller(args.quiet))
        if manifest is None:
            print(f"{store}: is up to date")
        else:
            took = common.time_words(time.monotonic() - started)
            print(f"{store}: upgraded to format {manifest.format} in {took}")
    return 0
