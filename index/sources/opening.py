"""The command line's way to a source: which arguments there are, and the source that they name."""

from __future__ import annotations

import argparse
from pathlib import Path

from explorer.errors import SourceError
from index.sources.base import Source
from index.sources.class_names import ClassNames, read_class_names
from index.sources.coco import CocoSource
from index.sources.folder import FolderSource
from index.sources.hugging_face import HuggingFaceSource
from index.sources.imagefolder import ImageFolderSource
from index.sources.scenes import SceneSource
from index.sources.subset import limited
from index.sources.tar_shards import TarSource
from index.sources.text_list import TextListSource

_KINDS = {
    "images": "--images",
    "imagenet": "--imagenet",
    "coco_images": "--coco-images",
    "list": "--list",
    "tars": "--tars",
    "hf": "--hf",
    "scenes": "--scenes",
}
_BELONGS = {
    "coco_instances": ("coco_images",),
    "coco_captions": ("coco_images",),
    "split": ("hf",),
    "image_column": ("hf",),
    "label_column": ("hf",),
    "seed": ("scenes",),
    "class_names": ("imagenet", "list", "tars", "hf"),
}
"""Arguments that need one of some kinds of source."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a source; `open_source` reads them."""
    kinds = parser.add_argument_group(
        "where the pictures come from (one of these)"
    ).add_mutually_exclusive_group(required=True)
    kinds.add_argument("--images", type=Path, metavar="DIR", help="all pictures below this folder")
    kinds.add_argument(
        "--imagenet",
        type=Path,
        metavar="DIR",
        help="class folders, as ImageNet's train or val: DIR/<class>/<picture>",
    )
    kinds.add_argument(
        "--coco-images",
        type=Path,
        metavar="DIR",
        help="COCO: the folder of its pictures (val2017), with --coco-instances or --coco-captions or both",
    )
    kinds.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="a text file with one path per line (from the file's folder, or absolute); labels after TABs",
    )
    kinds.add_argument(
        "--tars",
        nargs="+",
        metavar="PATTERN",
        help='WebDataset shards: .tar files, folders of them, or patterns ("train-{000000..000099}.tar")',
    )
    kinds.add_argument(
        "--hf",
        metavar="NAME",
        help="a data set of Hugging Face: its name (or name:configuration), a folder that save_to_disk "
        "wrote, or a folder of parquet files; needs requirements-extras.txt",
    )
    kinds.add_argument("--scenes", type=_count, metavar="N", help="N drawn scenes, with ground truth")
    _add_details(parser.add_argument_group("more about the pictures"))


def _add_details(more: argparse._ArgumentGroup) -> None:
    """The arguments that some sources take, and those that all take."""
    more.add_argument(
        "--coco-instances", type=Path, metavar="FILE", help="instances_*.json: categories and outlines"
    )
    more.add_argument("--coco-captions", type=Path, metavar="FILE", help="captions_*.json: words as labels")
    more.add_argument(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="what the classes are called: LOC_synset_mapping.txt, imagenet_class_index.json, lines of "
        "key and name, or one name per line (default: the folders' or the data set's names)",
    )
    more.add_argument("--split", metavar="SPLIT", help="split of the data set --hf (default: train)")
    more.add_argument(
        "--image-column", metavar="COLUMN", help="column of the pictures (default: the only one there is)"
    )
    more.add_argument(
        "--label-column", metavar="COLUMN", help="column of the classes (default: the only one there is)"
    )
    more.add_argument("--seed", type=int, metavar="S", help="seed of the first scene (default: 0)")
    more.add_argument("--limit", type=_count, metavar="N", help="only N pictures: the first ones")
    more.add_argument(
        "--spread",
        action="store_true",
        help="with --limit: spread evenly over all, instead of the first ones",
    )


def open_source(args: argparse.Namespace) -> Source:
    """The source that the arguments name.

    Raises SourceError when it cannot be opened, or when arguments do not go together.
    """
    kind = next(name for name in _KINDS if getattr(args, name) is not None)
    for name, kinds in _BELONGS.items():
        if getattr(args, name) is not None and kind not in kinds:
            needed = " or ".join(_KINDS[other] for other in kinds)
            raise SourceError(f"--{name.replace('_', '-')} goes with {needed}, not with {_KINDS[kind]}")
    if args.spread and args.limit is None:
        raise SourceError("--spread needs --limit N: how many pictures to spread")
    return limited(_whole(kind, args), args.limit, args.spread)


def _whole(kind: str, args: argparse.Namespace) -> Source:
    """The source without a limit."""
    names: ClassNames | None = None
    if args.class_names is not None:
        names = read_class_names(args.class_names)
    match kind:
        case "images":
            return FolderSource(args.images)
        case "imagenet":
            return ImageFolderSource(args.imagenet, names)
        case "coco_images":
            if args.coco_instances is None and args.coco_captions is None:
                raise SourceError(
                    "--coco-images needs --coco-instances FILE or --coco-captions FILE; index a folder "
                    "without annotations with --images"
                )
            return CocoSource(args.coco_images, args.coco_instances, args.coco_captions)
        case "list":
            return TextListSource(args.list, names)
        case "tars":
            return TarSource(args.tars, names)
        case "hf":
            return HuggingFaceSource(args.hf, args.split, args.image_column, args.label_column, names)
        case _:
            return SceneSource(args.scenes, args.seed or 0)


def _count(text: str) -> int:
    """An argument that counts something: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
