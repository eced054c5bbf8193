"""Do the shipped cases hold? `python -m explorer.evals.cases` replays them; `--make` makes them anew.

Every case is answered again on the session's model, untouched and steered, and compared word for word with
what its file says; its story's promises (what steering loses, gains and keeps) are checked too. The exit
status is 1 when any does not hold. The floats of another CPU may differ in the last bit, so a word may too.
On another model than a case's own nothing holds, and the report says what differs.
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
from explorer.session.opening import is_embedded
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.folder.is_dir():
            raise CaseError(f"--folder {self.folder}: there is no such folder")


def make(session: Session, folder: Path) -> None:
    """Write every recipe's case, once all are made.

    Raises CaseError for one that does not do what it promises, and for another model than the embedded one.
    """
    if not is_embedded(session.lvlm.model_id):
        raise CaseError(
            f"the recipes name neurons of the embedded model, and {session.lvlm.model_id} has others: leave "
            "out --make, or --model and --sae"
        )
    examples, recipes, files = load_examples(), load_recipes(), {}
    for key, recipe in recipes.items():
        if key not in examples:
            raise CaseError(f"there is no example {key!r} for the recipe of that key")
        files[folder / f"{key}{ENDING}"] = write(made(session, examples[key], recipe))
    for path, data in files.items():
        path.write_bytes(data)


def run(config: CasesConfig) -> dict[str, Any]:
    """The report: each case, whether it holds, and what differs."""
    session = Session.chosen(config)
    if config.make:
        make(session, config.folder)
    recipes, told, cases = load_recipes(), [], load_shipped(config.folder)
    if not cases:
        raise CaseError(
            f"{config.folder} holds no case files (*{ENDING}); --make makes those that ship there"
        )
    for key, case in cases.items():
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
