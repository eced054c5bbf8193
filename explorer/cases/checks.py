"""Checks what a browser sends. Nothing from there is trusted: a raw call can hold anything.

Each function returns the clean value or raises `ExplorerError` that quotes what was wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from explorer.errors import ExplorerError
from explorer.records import Cell, Grid

LONGEST_PROMPT = 500
LONGEST_CONCEPT = 80


def whole(value: object, name: str, below: int) -> int:
    """A whole number from 0 up to, and without, `below`."""
    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else value
    if not 0 <= number < below or number != int(number):
        raise ExplorerError(f"{name} {_quote(value)} does not exist; use a number from 0 to {below - 1}")
    return int(number)


def cell(row: object, col: object, grid: Grid) -> Cell:
    """A patch of the grid."""
    return Cell(whole(row, "the patch row", grid.rows), whole(col, "the patch column", grid.cols))


def cells(pairs: Sequence[Sequence[object]], grid: Grid) -> tuple[Cell, ...]:
    """Patches of the grid from pairs of row and column: each once, row by row; tens of thousands at once."""
    if not all(type(row) is int and type(col) is int for row, col in pairs):
        return tuple(sorted({cell(row, col, grid) for row, col in pairs}))
    inside = [(row, col) for row, col in pairs if 0 <= row < grid.rows and 0 <= col < grid.cols]  # type: ignore[operator]
    if len(inside) < len(pairs):
        for row, col in pairs:
            cell(row, col, grid)
    return tuple(map(Cell._make, sorted(set(inside))))


def finite(value: object, name: str, limit: float = 1e6) -> float:
    """A finite number of at most `limit` in size."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= limit:
        raise ExplorerError(f"{name} {_quote(value)} is not a number from {-limit:,.0f} to {limit:,.0f}")
    return float(value)


def one_of(value: object, name: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ExplorerError(f"{name} {_quote(value)} is unknown; use {' or '.join(map(repr, choices))}")
    return value


def text(value: object, name: str, longest: int) -> str:
    """A text without surrounding space, at most `longest` characters; None counts as empty."""
    if value is not None and not isinstance(value, str):
        raise ExplorerError(f"{name} {_quote(value)} is not a text")
    cleaned = " ".join((value or "").split())
    if len(cleaned) > longest:
        raise ExplorerError(f"{name} has {len(cleaned)} characters; use at most {longest}")
    return cleaned


def _quote(value: object) -> str:
    """The value as shown in a message: short, whatever it is."""
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"
