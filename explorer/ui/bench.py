"""The bench: rows of neurons with a slider each. Turns rows into edits and back; draws nothing.

A row whose slider was never moved has no value and is no edit, so putting a neuron on the bench
changes nothing. The rows travel as JSON and are checked whenever they come from a browser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import get_args

import numpy as np

from explorer.errors import ExplorerError
from explorer.records import Box, Cell, Edit, Grid, Mode
from explorer.session import View
from explorer.ui import checks

MOST_ROWS = 8
REGIONS = ("all", "active", "patch", "seen")
_MOST_CELLS = 10_000

Seen = Callable[[str], np.ndarray]
"""Gives the patches that show a concept, (rows, cols) bool; raises ExplorerError for an unknown one."""


@dataclass(frozen=True)
class Row:
    """One neuron on the bench.

    name: what a person reads; rest: its strongest activation in the picture, where an untouched "set"
    slider stands; value: None until moved; region: "all" patches, the "active" ones, one "patch", or those
    where its concept is "seen"; concept: what the neuron stands for, "" when nobody can tell where that is.
    """

    neuron: int
    name: str
    rest: float
    value: float | None = None
    mode: Mode = "set"
    region: str = "active"
    patch: Cell | None = None
    concept: str = ""


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
    value, patch = entry.get("value"), entry.get("patch")
    region = checks.one_of(entry.get("region", "active"), "region", REGIONS)
    if patch is not None and not (isinstance(patch, list) and len(patch) == 2):
        raise ExplorerError(f"neuron {neuron}: the patch is not a pair of row and column")
    if region == "patch" and patch is None:
        raise ExplorerError(f"neuron {neuron}: click a patch first, then choose it as the region")
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
        patch=None if patch is None else checks.cell(patch[0], patch[1], grid),
        concept=concept,
    )


def new_row(neuron: int, name: str, view: View, concept: str = "", seen: bool = False) -> Row:
    """A neuron as it comes onto the bench: untouched, where it fires, or everywhere if it does not fire.

    concept: what it stands for, where that can be told; seen: begin where that concept is seen.
    """
    peak = float(view.map(neuron).max())
    region = "seen" if seen else "active" if peak > 0 else "all"
    return Row(neuron, name, round(peak, 2), region=region, concept=concept)


def add(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows with one more; unchanged when its neuron is already there. Raises ExplorerError when full."""
    if any(other.neuron == row.neuron for other in rows):
        return list(rows)
    if len(rows) >= MOST_ROWS:
        raise ExplorerError(f"the bench is full ({MOST_ROWS} neurons); remove one first")
    return [*rows, row]


def settle(text: object, view: View) -> list[Row]:
    """The rows of a browser on another picture: rest follows it, patches outside its grid are dropped."""
    rows = []
    for row in parse(text, view, any_patch=True):
        fresh = replace(row, rest=round(float(view.map(row.neuron).max()), 2))
        if row.patch and not (row.patch.row < view.grid.rows and row.patch.col < view.grid.cols):
            fresh = replace(fresh, patch=None, region="all" if row.region == "patch" else row.region)
        rows.append(fresh)
    return rows


def edits(rows: Sequence[Row], grid: Grid, seen: Seen) -> list[Edit]:
    """What the moved sliders ask for. Raises ExplorerError for a concept that cannot be looked for."""
    return [
        Edit(row.neuron, row.value, row.mode, _patches(row, grid, seen))
        for row in rows
        if row.value is not None
    ]


def _patches(row: Row, grid: Grid, seen: Seen) -> np.ndarray | str | None:
    """The region of a row as an edit takes it."""
    if row.region == "seen":
        return seen(row.concept)
    if row.region != "patch" or row.patch is None:
        return None if row.region == "all" else "active"
    mask = np.zeros((grid.rows, grid.cols), np.bool_)
    mask[row.patch] = True
    return mask
