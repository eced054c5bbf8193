"""Are other projects' SAEs read as their own code means them? `python -m explorer.evals.peers`

Makes random SAEs over the options of every project whose package is installed here (dictionary-learning,
sae-lens, eai-sparsify, overcomplete, saev), saves them with the project's own code, opens them with load_sae,
and compares activations and reconstructions of random vectors. Prints a line for each kind: how many were
tried, how many were refused, on how many vectors the others were compared, and the largest distances. The
exit status is 1 when one is refused or is further off than the tolerance. Nothing else needs these packages,
and some of them want old versions of others: install them in an environment of their own.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.evals.command import WRONG
from explorer.evals.peers import dictionary_learning, overcomplete, sae_lens, saev, sparsify
from explorer.evals.peers.made import Codes, Made, Peer
from explorer.sae import load_sae

PEERS: Mapping[str, Peer] = {
    "dictionary-learning": dictionary_learning,
    "sae-lens": sae_lens,
    "eai-sparsify": sparsify,
    "overcomplete": overcomplete,
    "saev": saev,
}
"""The projects, by the names of their packages."""
APART = 1
"""Exit status when an SAE does not agree or cannot be opened."""
TOLERANCE = 1e-4
VECTORS = 64
NOISE = 1e-5
"""Vectors whose firing neurons change under noise of this size are left out: there, rounding decides."""
COLUMNS = ("project", "kind", "tried", "refused", "vectors", "max |dz|", "max |dx_hat|")


class Trial(NamedTuple):
    """How one SAE did.

    vectors: how many were compared; dz, dx_hat: the largest distances; error: why it was refused, if it was.
    """

    project: str
    kind: str
    seed: int
    vectors: int = 0
    dz: float = 0.0
    dx_hat: float = 0.0
    error: str = ""

    def agrees(self, tolerance: float) -> bool:
        """Whether it was opened and is near enough."""
        return not self.error and self.vectors > 0 and max(self.dz, self.dx_hat) <= tolerance


def trial(project: str, peer: Peer, seed: int) -> Trial:
    """Make one SAE, open it, compare. Raises ImportError where the project's package cannot be imported."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        with torch.no_grad():
            made = peer.make(Random(seed), Path(folder))
            try:
                sae = load_sae(made.path, made.hints)
            except SAEError as error:
                told = " ".join(str(error).replace(folder, "").split())
                return Trial(project, made.kind, seed, error=told)
            x, codes = _steady(made)
            z = sae.encode(x)
            x_hat = sae.decode(z, x)
    return Trial(project, made.kind, seed, len(x), _apart(z, codes.z), _apart(x_hat, codes.x_hat))


def _steady(made: Made) -> tuple[Tensor, Codes]:
    """Vectors [n, d] that fire the same neurons when they are moved a little, and what the project says."""
    x = torch.randn(VECTORS, made.width) * torch.rand(VECTORS, 1) * 4 + torch.randn(made.width)
    fires = made.run(x).z != 0
    for _ in range(4):
        moved = made.run(x + NOISE * torch.randn_like(x)).z != 0
        x, fires = x[(moved == fires).all(1)], fires[(moved == fires).all(1)]
    return x, made.run(x)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest distance; infinity where one is not finite."""
    if ours.shape != theirs.shape:
        return float("inf")
    distance = (ours - theirs).abs()
    return float(distance.nan_to_num(nan=float("inf")).max()) if distance.numel() else 0.0


def _told(done: Trial) -> str:
    """What is wrong with an SAE that was opened."""
    far = f"off by {done.dz:.1e} in z and {done.dx_hat:.1e} in x_hat"
    return far if done.vectors else "no vector was left to compare: all lie where rounding decides"


def table(trials: Sequence[Trial]) -> str:
    """One line for each project and kind, as text in columns."""
    kinds: dict[tuple[str, str], list[Trial]] = {}
    for done in trials:
        kinds.setdefault((done.project, done.kind), []).append(done)
    rows = [COLUMNS]
    for (project, kind), group in sorted(kinds.items()):
        refused = sum(bool(done.error) for done in group)
        worst = max(done.dz for done in group), max(done.dx_hat for done in group)
        counts = len(group), refused, sum(done.vectors for done in group)
        rows.append((project, kind, *map(str, counts), *(f"{value:.1e}" for value in worst)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(argv: Sequence[str] | None = None, peers: Mapping[str, Peer] = PEERS) -> int:
    """The command. argv: None for the process's own; peers: the projects. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m explorer.evals.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--number", type=int, default=100, help="SAEs of each project")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next ones count on")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest distance that agrees")
    parser.add_argument("--only", choices=tuple(peers), help="one project alone")
    chosen = parser.parse_args(argv)
    if chosen.number < 1:
        print(f"{parser.prog}: error: --number is {chosen.number}; give 1 or more", file=sys.stderr)
        return WRONG
    wanted = {name: peer for name, peer in peers.items() if chosen.only in (None, name)}
    here = {name: peer for name, peer in wanted.items() if importlib.util.find_spec(peer.PACKAGE)}
    if not here:
        print(f"none of {', '.join(wanted)} is installed here, so there is nothing to compare with")
        return 0
    trials, broken = [], []
    for name, peer in here.items():
        try:
            trials += [trial(name, peer, seed) for seed in range(chosen.seed, chosen.seed + chosen.number)]
        except ImportError as error:
            broken.append(f"{name} is installed but cannot be imported ({error})")
    apart = [done for done in trials if not done.agrees(chosen.tolerance)]
    for done in apart:
        print(f"{done.project}, seed {done.seed}, {done.kind}: {done.error or _told(done)}")
    missing = [f"{name} is not installed" for name in wanted if name not in here]
    print("\n".join([table(trials), "", *missing, *broken]))
    print(f"{len(trials) - len(apart)} of {len(trials)} agree within {chosen.tolerance:g}")
    return APART if apart or broken else 0


if __name__ == "__main__":
    sys.exit(main())
