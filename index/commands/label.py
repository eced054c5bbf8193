"""The command `label`: words and class names for a store that has none, or others."""

from __future__ import annotations

import argparse
from pathlib import Path

from index.commands import common

DESCRIPTION = (
    "Asks the model which words each neuron raises and writes them to a store, in the place of those\n"
    "that are there; with --class-names it also gives the classes of a store better names. The new\n"
    "version takes the store's place when it is complete; people's own names and notes stay."
)
EPILOG = f"""examples:
  after a merge without the model:
    python -m index label stores/pictures
  only the names of ImageNet's classes, for a store that was built from its folders:
    python -m index label stores/imagenet --class-names LOC_synset_mapping.txt --words none

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    common.add_store(parser)
    common.add_model(parser)
    common.add_sae(parser)
    parser.add_argument(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="what the classes are called: LOC_synset_mapping.txt, imagenet_class_index.json, or lines of "
        "key and name",
    )
    common.add_words(
        parser, "leave them as they are", "answer for a small model, unembedding for a large one"
    )
    common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Label, and say what changed."""
    from explorer.errors import ExplorerError
    from explorer.store import Store
    from index.label import Site, label
    from index.sources.class_names import read_class_names

    if args.words == "none" and args.class_names is None:
        raise ExplorerError("--words none leaves nothing to do; add --class-names FILE")
    store = common.store_of(args)
    Store.open(store).close()
    names = None if args.class_names is None else read_class_names(args.class_names)
    site = None
    if args.words != "none":
        opened = common.open_site(args)
        site = Site(opened.lvlm, opened.sae)
    done = label(store, site, names, args.words, common.teller(args.quiet))
    if done.words is not None:
        print(f"{store}: {done.words:,} words")
    if names is not None:
        print(f"{store}: {done.renamed:,} classes have another name")
    return 0
