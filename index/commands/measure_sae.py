"""The command `measure-sae`: what an SAE, of any format, is worth on a model and pictures."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from index.commands import common

if TYPE_CHECKING:
    from explorer.sae import SAE

DESCRIPTION = (
    "Says what an SAE is and how it does on a model: how much of the variance it explains (whole, and from\n"
    "the first Matryoshka groups), how many neurons fire on a patch, how many never do, and whether the\n"
    "model's captions survive when its reconstruction takes the place of what the tower sees."
)
USAGE = "python -m index measure-sae (--images DIR | --scenes N | ...) [options]"
EPILOG = f"""examples:
  a public SAE on LLaVA-1.5, by 200 of your pictures:
    python -m index measure-sae --model llava-hf/llava-1.5-7b-hf --sae saes/matryoshka --images ~/Pictures \\
        --limit 200 --spread
  the embedded SAE on scenes that it was not trained on:
    python -m index measure-sae --scenes 200 --seed 900000

{common.EXIT_CODES}
"""
TOLD = ("format", "class", "model", "hook", "tokens", "warning")
"""What files say of their SAE that people should see."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from index.sources.opening import add_arguments as add_source

    add_source(parser)
    site = parser.add_argument_group("the model and its neurons")
    common.add_model(site)
    common.add_sae(site)
    site.add_argument("--include-cls", action="store_true", help="measure on the CLS token too")
    more = parser.add_argument_group("how to measure")
    more.add_argument(
        "--captions",
        type=common.natural,
        default=32,
        metavar="N",
        help="pictures that are captioned with and without the SAE; 0: none (default: %(default)s)",
    )
    common.add_json(more)
    common.add_machine(parser.add_argument_group("the machine"))


def run(args: argparse.Namespace) -> int:
    """Open, measure, print. Returns 0; an ExplorerError says in plain words what was wrong."""
    import numpy as np

    from explorer.errors import SAEError, SourceError
    from explorer.session.site import site_block
    from explorer.store.rows import SkippedRow
    from index.sources.opening import open_source
    from index.training.measures import Exam
    from index.training.pictures import ChosenPictures
    from index.training.stream import StreamConfig
    from index.training.tower import Eye

    source = open_source(args)
    pictures = ChosenPictures(source, np.arange(len(source), dtype=np.int64), "pictures")
    site = common.open_site(args)
    eye = Eye(site.lvlm, site_block(site.lvlm, site.sae), args.include_cls)
    eye.check()
    lost: list[SkippedRow] = []
    stream = StreamConfig(tower_batch=args.tower_batch, workers=args.workers)
    try:
        measures = Exam(eye, pictures, stream, args.captions, lost.extend).take(site.sae)
    except SAEError as error:
        if len(lost) < len(source):
            raise
        raise SourceError(
            f"none of the {len(source):,} pictures can be used; {lost[0].image_id}: {lost[0].reason}"
        ) from error
    if args.json:
        facts = {"model": site.lvlm.model_id, "block": eye.block, "sae": site.sae.id}
        print(json.dumps({**facts, "pictures": pictures.description, **measures.facts()}))
        return 0
    print(describe(site.sae, site.lvlm.model_id, eye.block))
    print("\n".join([*measures.words(site.sae), *common.skipped_words(lost, len(source))]))
    return 0


def describe(sae: SAE, model_id: str, block: int) -> str:
    """What an SAE is, for people: a line, and one more for what its files tell."""
    rule, k = sae.rule.kind, sae.rule.k
    if k:
        rule += f", {k} meant to fire" if rule == "jumprelu" else f" {k}"
    words = f"{sae.n_neurons:,} neurons of width {sae.width:,}, {rule}"
    words += f", inputs by {sae.scaling.kind}" if sae.scaling else ""
    words += f", {len(sae.group_sizes)} Matryoshka groups" if len(sae.group_sizes) > 1 else ""
    told = {name: sae.facts[name] for name in TOLD if sae.facts.get(name)}
    lines = [f"SAE {sae.short_id}: {words}; here on block {block} of {model_id}"]
    if told:
        lines.append("its files say: " + ", ".join(f"{name} {value}" for name, value in told.items()))
    return "\n".join(lines)
