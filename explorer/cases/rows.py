"""The bench: rows of neurons with a slider each. Turns rows into edits and back; draws nothing.

A row whose slider was never moved has no value and is no edit, so putting a neuron on the bench
changes nothing; nor is a muted one. The rows travel as JSON and are checked whenever they come from
a browser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import get_args

import numpy as np

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import Box, Cell, Edit, Grid, Mode
from explorer.session import View

MOST_ROWS = 24
REGIONS = ("all", "active", "marked", "seen")
_MOST_CELLS = 1 << 16

Seen = Callable[[str], np.ndarray]
"""Gives the patches that show a concept, (rows, cols) bool; raises ExplorerError for an unknown one."""


@dataclass(frozen=True)
class Row:
    """One neuron on the bench.

    name: what a person reads; rest: its activation in the picture that is furthest from 0, where an untouched
    "set" slider stands; value: None until moved; region: "all" patches, the "active" ones, the "marked" ones,
    or those where its concept is "seen"; patches: the marked ones; concept: what the neuron stands for, ""
    when nobody can tell where that is; muted: kept, but not applied; absent: the concept is seen nowhere in
    the picture, so that a row confined to it does nothing.
    """

    neuron: int
    name: str
    rest: float
    value: float | None = None
    mode: Mode = "set"
    region: str = "active"
    patches: tuple[Cell, ...] = ()
    concept: str = ""
    muted: bool = False
    absent: bool = False


def dump(rows: Sequence[Row]) -> str:
    """The rows as JSON."""
    return json.dumps([asdict(row) for row in rows])


def parse(text: object, view: View, any_patch: bool = False) -> list[Row]:
    """The rows in a browser's JSON. Raises ExplorerError for anything that does not fit the picture.

    any_patch: take patches outside its grid too.
    """
    try:
        entries = json.loads(text) if isinstance(text, str) and text else []
    except ValueError as error:
        raise ExplorerError(f"the bench is not readable: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ExplorerError("the bench is not a list of rows")
    if len(entries) > MOST_ROWS:
        raise ExplorerError(f"the bench has {len(entries)} neurons; it holds at most {MOST_ROWS}")
    return [_row(entry, view, any_patch) for entry in entries]


def _row(entry: dict, view: View, any_patch: bool) -> Row:
    grid = Grid(_MOST_CELLS, _MOST_CELLS, 1, 1, Box(0, 0, 1, 1)) if any_patch else view.grid
    neuron = checks.whole(entry.get("neuron"), "neuron", view.n_neurons)
    value = entry.get("value")
    patches = _cells(entry.get("patches"), neuron, grid)
    region = checks.one_of(entry.get("region", "active"), "region", REGIONS)
    if region == "marked" and not patches:
        raise ExplorerError(f"neuron {neuron}: mark a patch first, then choose it as the region")
    concept = checks.text(entry.get("concept"), "the concept", checks.LONGEST_CONCEPT)
    if region == "seen" and not concept:
        raise ExplorerError(f"neuron {neuron} stands for no known concept; choose another region")
    return Row(
        neuron=neuron,
        name=checks.text(entry.get("name"), "the name", 80),
        rest=checks.finite(entry.get("rest", 0.0), "the activation"),
        value=None if value is None else checks.finite(value, f"neuron {neuron}: the value"),
        mode=checks.one_of(entry.get("mode", "set"), "mode", get_args(Mode)),  # type: ignore[arg-type]
        region=region,
        patches=patches,
        concept=concept,
        muted=_flag(entry, "muted", neuron),
        absent=_flag(entry, "absent", neuron),
    )


def _flag(entry: dict, name: str, neuron: int) -> bool:
    value = entry.get(name, False)
    if not isinstance(value, bool):
        raise ExplorerError(f"neuron {neuron}: {name} is either true or false")
    return value


def _cells(value: object, neuron: int, grid: Grid) -> tuple[Cell, ...]:
    """Marked patches, each once, row by row."""
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(one, list) and len(one) == 2 for one in entries):
        raise ExplorerError(f"neuron {neuron}: the patches are not pairs of row and column")
    if len(entries) > _MOST_CELLS:
        raise ExplorerError(f"neuron {neuron}: {len(entries)} patches are more than a picture has")
    return checks.cells(entries, grid)


_DEEDS = {"set": "set to {}", "add": "{:+}", "scale": "times {}"}
_PLACES = {"all": "everywhere", "active": "where it fires"}


def in_words(row: Row) -> str:
    """What a row does, in words."""
    name = row.name if row.name.endswith(f" {row.neuron}") else f"{row.name} #{row.neuron}"
    if row.value is None:
        return f"{name}: untouched"
    number = int(row.value) if row.value == int(row.value) else round(row.value, 3)
    deed = _DEEDS[row.mode].format(number).replace("-", "−")
    count = len(row.patches)
    place = _PLACES.get(row.region) or (
        f"where {row.concept.replace('_', ' ')} is seen"
        if row.region == "seen"
        else f"at {count} marked patch{'es' if count > 1 else ''}"
    )
    return f"{name} {deed} {place}{' (muted)' if row.muted else ''}"


def new_row(
    neuron: int, name: str, view: View, concept: str = "", seen: bool = False, absent: bool = False
) -> Row:
    """A neuron as it comes onto the bench: untouched, where it fires, or everywhere if it does not fire.

    concept: what it stands for, where that can be told; seen: begin where that concept is seen; absent: it is
    seen nowhere.
    """
    rest = strongest(view, neuron)
    region = "seen" if seen else "active" if rest else "all"
    return Row(neuron, name, rest, region=region, concept=concept, absent=absent)


def strongest(view: View, neuron: int) -> float:
    """The activation furthest from 0: two digits after the point, below 1 three in all; 0 if silent."""
    seen = view.map(neuron)
    value = float(seen.flat[np.abs(seen).argmax()])
    return round(value, 2) if abs(value) >= 1 else float(f"{value:.3g}")


def add(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows with one more; unchanged when its neuron is already there. Raises ExplorerError when full."""
    if any(other.neuron == row.neuron for other in rows):
        return list(rows)
    if len(rows) >= MOST_ROWS:
        raise ExplorerError(f"the bench is full ({MOST_ROWS} neurons); remove one first")
    return [*rows, row]


def settle(text: object, view: View, seen: Seen) -> list[Row]:
    """The rows of a browser on another picture: rest follows it, patches outside its grid are dropped.

    Rows whose concept is seen nowhere in it say so. One that cannot be looked for stays as it is.
    """
    rows = []
    for row in parse(text, view, any_patch=True):
        fresh = replace(row, rest=strongest(view, row.neuron), absent=_absent(row, seen))
        inside = tuple(c for c in row.patches if c.row < view.grid.rows and c.col < view.grid.cols)
        if inside != row.patches:
            lost = row.region == "marked" and not inside
            fresh = replace(fresh, patches=inside, region="all" if lost else row.region)
        rows.append(fresh)
    return rows


def _absent(row: Row, seen: Seen) -> bool:
    """Whether its concept is seen nowhere. False where nobody can tell."""
    try:
        return bool(row.concept) and not seen(row.concept).any()
    except ExplorerError:
        return False


def edits(rows: Sequence[Row], grid: Grid, seen: Seen) -> list[Edit]:
    """What the moved sliders ask for. Raises ExplorerError for a concept that cannot be looked for."""
    return [
        Edit(row.neuron, row.value, row.mode, _patches(row, grid, seen))
        for row in rows
        if row.value is not None and not row.muted
    ]


def _patches(row: Row, grid: Grid, seen: Seen) -> np.ndarray | str | None:
    """The region of a row as an edit takes it."""
    if row.region == "seen":
        return seen(row.concept)
    if row.region != "marked":
        return None if row.region == "all" else "active"
    mask = np.zeros((grid.rows, grid.cols), np.bool_)
    mask[tuple(zip(*row.patches, strict=True))] = True
    return mask
