"""How the shipped cases are made: the examples' pictures and stories, and a bench for each that does it.

assets/cases/recipes.json holds for each key the bench, with patches as spans ("3:4-7" is row 3, columns 4 to
7), and what the answers have to show: the concepts that steering "loses", "gains" and "keeps". Knows the
drawn world's concepts; the answers come from a session.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.cases.case import Case
from explorer.cases.examples import Example
from explorer.cases.replay import captured
from explorer.cases.shipped import FOLDER
from explorer.errors import CaseError
from explorer.session import Session
from explorer.world import mentions

RECIPES_FILE = FOLDER / "recipes.json"


@dataclass(frozen=True)
class Recipe:
    """One shipped case. key: of its example; bench: JSON of its rows; loses, gains, keeps: concepts that the
    untouched answer names and the steered one does not, the other way round, and that both name."""

    key: str
    question: str
    bench: str
    settings: str
    loses: tuple[str, ...]
    gains: tuple[str, ...]
    keeps: tuple[str, ...]


def load_recipes(path: Path = RECIPES_FILE) -> dict[str, Recipe]:
    """The recipes by key, in their order. Raises CaseError when the file is missing or damaged."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {str(entry["key"]): _recipe(entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(f"cannot read the recipes in {path}: {error!r}") from error


def _recipe(entry: dict[str, Any]) -> Recipe:
    effects = (tuple(map(str, entry.get(name, ()))) for name in ("loses", "gains", "keeps"))
    rows = [{**row, "patches": _cells(row.get("patches", ""))} for row in entry["bench"]]
    bench, how = json.dumps(rows), json.dumps(entry.get("settings", {}))
    return Recipe(str(entry["key"]), str(entry.get("question", "")), bench, how, *effects)


def _cells(places: str) -> list[list[int]]:
    """The patches of spans of columns, row by row."""
    found = []
    for row, spans in (part.split(":") for part in places.split()):
        for first, _, last in (span.partition("-") for span in spans.split(",")):
            found += [[int(row), col] for col in range(int(first), int(last or first) + 1)]
    return found


def made(session: Session, example: Example, recipe: Recipe) -> Case:
    """The case of a recipe. Raises CaseError when its answers do not show what it promises."""
    view = session.look(example.image)
    question = recipe.question or session.lvlm.default_prompt
    case = captured(
        *(session, view, example.title, example.story, question, recipe.bench, recipe.settings),
        session.answer(view, question),
    )
    broken = unkept(recipe, case)
    if broken:
        raise CaseError(f"the case {recipe.key}: {'; '.join(broken)}")
    return case


def unkept(recipe: Recipe, case: Case) -> list[str]:
    """The promises of a recipe that a case's answers do not keep."""
    before, after = set(mentions(case.baseline)), set(mentions(case.steered or ""))
    wanted = {
        "loses": before - after,
        "gains": after - before,
        "keeps": before & after,
    }
    return [
        f"it {name} {', '.join(getattr(recipe, name)) or 'nothing'}, but the answers are "
        f"{case.baseline!r} and {case.steered!r}"
        for name, found in wanted.items()
        if set(getattr(recipe, name)) != found
    ]
