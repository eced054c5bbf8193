"""Are checkpoints read as their projects mean them? `python -m explorer.evals.formats FOLDER`

Walks a folder for checkpoints that lie beside an `io.safetensors` with inputs x [n, d], activations z [n, F]
and reconstructions x_hat [n, d] of the project's own code, opens each, and prints how far its answers are
from those: a line per checkpoint. --hints names a JSON file of what checkpoints cannot say of themselves, as
in {"mine/topk": {"top_k": 5}}. The exit status is 1 when one cannot be opened or is further off than the
tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from explorer.errors import ExplorerError, SAEError
from explorer.evals.command import WRONG
from explorer.sae import SAE, load_sae
from explorer.sae.loaders.found import need
from explorer.sae.loaders.reading import read_config, read_weights

IO = "io.safetensors"
APART = 1
"""Exit status when a checkpoint does not agree or cannot be opened."""
TOLERANCE = 1e-4
COLUMNS = ("checkpoint", "format", "class", "max |dz|", "max |dx_hat|", "error")


class Agreement(NamedTuple):
    """How one checkpoint does. dz, dx_hat: the largest distances, None where there was an error."""

    name: str
    format: str = ""
    kind: str = ""
    dz: float | None = None
    dx_hat: float | None = None
    error: str = ""

    def agrees(self, tolerance: float) -> bool:
        """Whether it was opened and is near enough."""
        return self.dz is not None and max(self.dz, self.dx_hat) <= tolerance

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        distances = ("" if value is None else f"{value:.1e}" for value in (self.dz, self.dx_hat))
        return (self.name, self.format, self.kind, *distances, self.error)


def compare(folder: Path, name: str, hints: Mapping[str, object] | None = None) -> Agreement:
    """Open the checkpoint in a folder and hold it against the `io.safetensors` there."""
    try:
        sae = load_sae(folder, hints)
        facts = str(sae.facts.get("format", "own")), str(sae.facts.get("class", sae.rule.kind))
    except ExplorerError as error:
        return Agreement(name, error=_short(error, folder))
    try:
        return Agreement(name, *facts, *distances(sae, folder / IO))
    except SAEError as error:
        return Agreement(name, *facts, error=_short(error, folder))


@torch.no_grad()
def distances(sae: SAE, path: Path) -> tuple[float, float]:
    """The largest |dz| and |dx_hat| on the vectors x of a file. Raises SAEError for one that does not fit."""
    held = read_weights(path).tensors
    names = {"x": "n d", "z": "n F", "x_hat": "n d"}
    sizes = {"d": sae.width, "F": sae.n_neurons}
    io = need(held, names, sizes, ignored=set(held) - set(names)).tensors
    z = sae.encode(io["x"])
    apart = z - io["z"], sae.decode(z, io["x"]) - io["x_hat"]
    return float(apart[0].abs().max()), float(apart[1].abs().max())


def table(lines: Sequence[Agreement]) -> str:
    """The lines as text in columns."""
    rows = [COLUMNS, *(line.cells() for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command. argv: None for the process's own. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m explorer.evals.formats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder of checkpoint folders, at any depth")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest distance that agrees")
    parser.add_argument("--hints", type=Path, help="JSON file: hints by the checkpoint's name in the table")
    chosen = parser.parse_args(argv)
    folders = {
        path.parent.relative_to(chosen.folder).as_posix(): path.parent
        for path in chosen.folder.glob(f"**/{IO}")
    }
    try:
        hints = {} if chosen.hints is None else read_config(chosen.hints)
        strange = [
            name for name, given in hints.items() if name not in folders or not isinstance(given, dict)
        ]
        if not folders or strange:
            what = f"no {IO}" if not folders else f"no checkpoint {strange[0]!r} that --hints could be for"
            raise SAEError(f"{chosen.folder} holds {what}")
    except SAEError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return WRONG
    lines = [compare(folder, name, hints.get(name)) for name, folder in sorted(folders.items())]
    print(table(lines))
    apart = [line for line in lines if not line.agrees(chosen.tolerance)]
    print(f"\n{len(lines) - len(apart)} of {len(lines)} agree within {chosen.tolerance:g}")
    return APART if apart else 0


def _short(error: Exception, folder: Path) -> str:
    """A message in one line, without the folder that stands in the first column."""
    return " ".join(str(error).replace(f"{folder}/", "").split())


if __name__ == "__main__":
    sys.exit(main())
