"""The command `verify`: is a store whole, and does the live model still say what it says?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from index.commands import common

if TYPE_CHECKING:
    from index.verify import Report

DESCRIPTION = (
    "Checks a store: the hashes of its files, its tables against FORMAT.md, and random exemplars\n"
    "through the live model. Each picture is opened again and indexed alone; the report says how far\n"
    "scores and patch maps are off, and ends with PASS or FAIL."
)
EPILOG = f"""examples:
  a store of the embedded model:
    python -m index verify stores/embedded
  one of another model, more exemplars:
    python -m index verify stores/mine --model llava-hf/llava-1.5-7b-hf --sae sae.safetensors --samples 200
  only the files and tables, without a model:
    python -m index verify stores/mine --no-model

{common.EXIT_CODES}; FAIL exits with 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    common.add_store(parser)
    common.add_model(parser)
    common.add_sae(parser)
    parser.add_argument(
        "--samples", type=common.count, default=32, metavar="N", help="exemplars to recompute (default: 32)"
    )
    parser.add_argument(
        "--seed", type=common.natural, default=0, metavar="S", help="of their random choice (default: 0)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=None,
        metavar="SHARE",
        help="how far a score may be off, as a share of itself (default: 0.001, or 0.05 for a store that was "
        "built in bfloat16)",
    )
    parser.add_argument("--no-model", action="store_true", help="check only the files and tables")
    common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Check, report, and return 0 for PASS."""
    from tqdm import tqdm

    from explorer.store import Store
    from index.verify import VerifyConfig, verify

    config = VerifyConfig(args.samples, args.seed, args.tolerance)
    folder = common.store_of(args)
    store = Store.open(folder)
    store.verify()
    print(f"{folder}: all hashes are right and the tables fit FORMAT.md")
    if args.no_model:
        print("PASS: the store is whole (no exemplar was recomputed)")
        return 0
    site = common.open_site(args)
    with tqdm(unit="img", file=sys.stderr, disable=args.quiet, dynamic_ncols=True, delay=0.001) as bar:
        report = verify(store, site.lvlm, site.sae, config, bar.update)
    print(describe(report))
    return 0 if report.passed else 1


def describe(report: Report) -> str:
    """The report, for people; the last line begins with PASS or FAIL."""
    lines = []
    if report.drifts:
        scores = sorted(drift.score for drift in report.drifts)
        steps, flips = max(d.steps for d in report.drifts), sum(d.flips for d in report.drifts)
        lines.append(
            f"{len(scores)} exemplars recomputed alone; off by: scores {scores[len(scores) // 2]:.1e} in the "
            f"median, {scores[-1]:.1e} at most (as a share); maps {steps:.1f} of 255 steps at most where the "
            f"neuron fires both times; {flips} patches fire only one time"
        )
    if report.lost:
        lines.append(f"{len(report.lost)} pictures cannot be opened any more:")
        lines += [f"  {lost.image_id}: {lost.reason}" for lost in report.lost[: common.SHOWN]]
        if len(report.lost) > common.SHOWN:
            lines.append(f"  and {len(report.lost) - common.SHOWN} more")
    for drift in report.failed[: common.SHOWN]:
        where = f"neuron {drift.neuron}, exemplar {drift.rank} ({drift.image_id})"
        lines.append(f"  {where}: score off by {drift.score:.1e}, map by {drift.steps:.1f} steps")
    return "\n".join([*lines, _verdict(report)])


def _verdict(report: Report) -> str:
    """The line that begins with PASS or FAIL."""
    if report.passed:
        return f"PASS: nothing is off by more than rounding explains (tolerance {report.tolerance:g})"
    if not report.drifts:
        return "FAIL: no exemplar could be recomputed; bring the pictures back, or use --no-model"
    return (
        f"FAIL: {len(report.failed)} of {len(report.drifts)} exemplars are off by more than the tolerance "
        f"{report.tolerance:g}; the pictures changed, or the model runs otherwise than in the build"
    )
