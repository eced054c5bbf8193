"""The command `stats`: what does a store hold?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from index.commands import common

if TYPE_CHECKING:
    from index.stats import Stats

DESCRIPTION = "Tells what a store was built from, how large it is, and what kinds of neurons it holds."
EPILOG = f"""examples:
  python -m index stats stores/embedded
  neurons count as always-on from 90 % of the images on:
    python -m index stats stores/embedded --always-share 0.9
  for another program:
    python -m index stats stores/embedded --json

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    common.add_store(parser)
    parser.add_argument(
        "--always-share",
        type=common.share,
        default=1.0,
        metavar="SHARE",
        help="a neuron is always-on when it is in the top-20 of at least this share of images (default: 1)",
    )
    parser.add_argument(
        "--rare-share",
        type=common.share,
        default=0.001,
        metavar="SHARE",
        help="a neuron is rare when it fires in less than this share of the images (default: 0.001)",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    from index.stats import stats

    found = stats(common.store_of(args), args.always_share, args.rare_share)
    print(as_json(found) if args.json else describe(found, args))
    return 0


def as_json(found: Stats) -> str:
    """The figures as JSON, each record as an object."""
    from dataclasses import asdict

    plain = found._asdict()
    files = found.manifest["files"].items()
    plain["manifest"]["files"] = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files}
    for name in ("tables", "labels", "skipped"):
        plain[name] = [row._asdict() for row in plain[name]]
    plain["always_on"] = [asdict(row) for row in found.always_on]
    return json.dumps(plain, indent=1)


def describe(found: Stats, args: argparse.Namespace) -> str:
    """The figures, for people."""
    lines = [*_origin(found), *_sizes(found), *_neurons(found, args), *_names(found), *_skipped(found)]
    return "\n".join(lines)


def _origin(found: Stats) -> list[str]:
    """Where the store comes from."""
    about = found.manifest
    cls = ", CLS included" if about["include_cls"] else ""
    parts = f" in {about['n_parts']} parts" if about["n_parts"] > 1 else ""
    return [
        f"built {about['created']}{parts} from {about['source']}",
        f"  {about['n_images']:,} images, {about['n_skipped']:,} could not be read",
        f"  model {about['model_id']}, block {about['block']}, {about['dtype']}; {about['preprocessing']}",
        f"  SAE {about['sae_id'][:12]}: {about['n_neurons']:,} neurons; "
        f"{about['rows']} x {about['cols']} patches",
        f"  score: {about['score']} over patches{cls}; {about['places']} exemplars per neuron at most; "
        f"batches of {about['batch']}; sample of about {min(about['sample'], about['n_images']):,} images",
        f"  unexplained variance: {about['fvu'].get('0.5', 0):.3f} in the median, "
        f"{about['fvu'].get('0.99', 0):.3f} or more for 1 image in 100",
    ]


def _sizes(found: Stats) -> list[str]:
    """Files and tables."""
    files = {name: facts[0] for name, facts in found.manifest["files"].items()}
    lines = [f"{common.size_words(sum(files.values()))}:"]
    lines += [f"  {name:<20} {common.size_words(size):>12}" for name, size in files.items()]
    lines += [
        f"    {table.table:<18} {common.size_words(table.bytes):>12} {table.rows:>12,} rows"
        for table in found.tables
    ]
    return lines


def _neurons(found: Stats, args: argparse.Namespace) -> list[str]:
    """Classes, how often neurons fire, and the strongest that always do."""
    classes = ", ".join(f"{number:,} {name.replace('_', '-')}" for name, number in found.classes.items())
    lines = [f"neurons: {classes}"]
    if found.fires:
        shares = ", ".join(f"{float(q):.0%}: {value:.2%}" for q, value in found.fires.items())
        lines.append(f"  share of images on which living neurons fire, by quantile: {shares}")
    if found.monosemanticity:
        middle, chance = found.monosemanticity["0.5"], found.manifest["monosemanticity_baseline"] or 0.0
        lines.append(f"  monosemanticity {middle:.3f} in the median (any two images: {chance:.3f})")
    if found.always_on:
        lines.append(
            f"  in the top-20 of at least {args.always_share:.0%} of the images, the strongest first:"
        )
        lines += [
            f"    neuron {one.neuron}: in {one.in_top:.1%}, mean {one.mean:.3g} {one.label}".rstrip()
            for one in found.always_on
        ]
    return lines


def _names(found: Stats) -> list[str]:
    """How many neurons have a name."""
    if not found.named:
        return ["names: none (the source has no labels)"]
    total = sum(found.named.values())
    kinds = ", ".join(f"{number:,} by {kind}" for kind, number in found.named.items())
    most = ", ".join(f"{name} ({number})" for name, number in found.labels)
    return [
        f"names: {total:,} of {found.live:,} living neurons ({total / max(found.live, 1):.0%}): {kinds}",
        f"  most often: {most}",
    ]


def _skipped(found: Stats) -> list[str]:
    """Why pictures were left out."""
    if not found.skipped:
        return []
    return ["pictures that could not be read:", *(f"  {row.number:,} x {row.name}" for row in found.skipped)]
