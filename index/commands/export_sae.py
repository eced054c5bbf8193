"""The command `export-sae`: an SAE in the format of another project, for its tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from index.commands import common

DESCRIPTION = (
    "Writes an SAE of any format that this program reads in the format of another project. The activations\n"
    "stay the same; what the other format cannot say is refused by name."
)
EPILOG = f"""examples:
  python -m index export-sae runs/mine/sae.safetensors exported --to saelens
  then, with SAELens:  from sae_lens import SAE; sae = SAE.load_from_disk("exported")

{common.EXIT_CODES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("sae", metavar="SAE", help="file, folder or hub name of the SAE")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder to write to")
    common.add_hints(parser)
    parser.add_argument(
        "--to",
        choices=("saelens",),
        default="saelens",
        help="saelens: cfg.json and sae_weights.safetensors, as SAELens 6 has them (default: saelens)",
    )


def run(args: argparse.Namespace) -> int:
    """Write, read it back, and say what was written."""
    from explorer.sae import load_sae
    from explorer.sae.export import to_saelens

    sae = common.open_sae(args)
    written = to_saelens(sae, args.out)
    load_sae(args.out)
    size = common.size_words(sum(path.stat().st_size for path in written))
    names = " and ".join(path.name for path in written)
    print(f"{args.out}: {names}, {sae.n_neurons:,} neurons of width {sae.width:,}, {size}")
    return 0
