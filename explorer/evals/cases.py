"""Do the shipped cases hold? `python -m explorer.evals.cases` replays them; `--make` makes them anew.

Every case is answered again on the session's model, untouched and steered, and compared word for word with
what its file says; its story's promises (what steering loses, gains and keeps) are checked too. The exit
status is 1 when any does not hold. The floats of another CPU may differ in the last bit, so a word may too.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.cases.case import ENDING, write
from explorer.cases.examples import load_examples
from explorer.cases.recipes import load_recipes, made, unkept
from explorer.cases.replay import replay
from explorer.cases.shipped import FOLDER, load_shipped
from explorer.errors import CaseError
from explorer.evals.command import run_command
from explorer.session import Session
from explorer.vlm.loading import Choice

BROKEN = 1
"""Exit status when a case does not hold."""


@dataclass(frozen=True)
class CasesConfig(Choice):
    """Which cases, and on what."""

    make: bool = False
    """make the shipped cases anew from the examples and the recipes, then replay them"""
    folder: Path = FOLDER
    """folder of the case files"""
    out: Path | None = None
    """file that the report is written to as well"""


def make(session: Session, folder: Path) -> None:
    """Write every recipe's case. Raises CaseError for one that does not do what it promises."""
    examples, recipes = load_examples(), load_recipes()
    for key, recipe in recipes.items():
        if key not in examples:
            raise CaseError(f"there is no example {key!r} for the recipe of that key")
        (folder / f"{key}{ENDING}").write_bytes(write(made(session, examples[key], recipe)))


def run(config: CasesConfig) -> dict[str, Any]:
    """The report: each case, whether it holds, and what differs."""
    session = Session.chosen(config)
    if config.make:
        make(session, config.folder)
    recipes, told = load_recipes(), []
    for key, case in load_shipped(config.folder).items():
        now = replay(session, case)
        broken = unkept(recipes[key], case) if key in recipes else []
        told.append(
            {
                "case": key,
                "holds": now.holds and not broken,
                "differences": [*now.differences, *broken],
                "untouched": now.baseline,
                "steered": now.steered,
            }
        )
        print(f"{'holds  ' if told[-1]['holds'] else 'DIFFERS'} {key}", file=sys.stderr)
    return {"cases": told, "hold": sum(one["holds"] for one in told), "of": len(told)}


def main() -> int:
    """The command."""
    found: list[dict[str, Any]] = []

    def measure(config: CasesConfig) -> dict[str, Any]:
        found.append(run(config))
        return found[0]

    status = run_command(CasesConfig, measure, "python -m explorer.evals.cases", __doc__)
    return status or (BROKEN if found and found[0]["hold"] < found[0]["of"] else 0)


if __name__ == "__main__":
    sys.exit(main())
