"""Draws the picture with its patch grid, the heat of the chosen neuron, the marked patch and the legend."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from explorer.records import Cell, Grid
from explorer.ui.heat import data_uri, heat_uri, ramp_css

LONGEST_SIDE = 896
EMPTY = '<div class="stage empty"><p>Choose an example, or upload a picture.</p></div>'


def photo_uri(image: Image.Image) -> str:
    """The picture as a data URI, scaled down to what a screen can show."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=90)
    return data_uri(stream.getvalue())


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3f}%"


def stage(
    photo: str, title: str, grid: Grid, values: np.ndarray | None, name: str, marked: Sequence[Cell] = ()
) -> str:
    """The stage as HTML.

    photo: data URI; values: (rows, cols) map of the chosen neuron, or None; name: that neuron's name.
    """
    box = grid.covered
    place = (
        f"left:{_percent(box.left, grid.width)};top:{_percent(box.top, grid.height)};"
        f"width:{_percent(box.right - box.left, grid.width)};"
        f"height:{_percent(box.bottom - box.top, grid.height)};"
        f"--rows:{grid.rows};--cols:{grid.cols}"
    )
    shape = f"aspect-ratio:{grid.width}/{grid.height};--ratio:{grid.width / grid.height:.4f}"
    hint = f"{grid.rows} by {grid.cols} patches. Arrow keys move over them, Enter chooses one."
    return (
        f'<div class="stage" style="{shape}">'
        f'<img class="photo" src="{photo}" alt="{escape(title)}" draggable="false">'
        f'<div class="cover" style="{place}" data-rows="{grid.rows}" data-cols="{grid.cols}" '
        f'data-map="{_numbers(values)}" tabindex="0" role="application" aria-label="{escape(title)}: {hint}">'
        f'<img class="heat" alt="" src="{_heat(values)}"><div class="grid"></div>'
        f'{_marks(marked)}<div class="cursor"></div></div></div>'
        f'<div class="legend"{"" if values is not None else " data-idle"}>{_legend(values, name)}</div>'
    )


def _heat(values: np.ndarray | None) -> str:
    """The heat picture; one clear pixel when no neuron is chosen, so that the element stays in place."""
    return heat_uri(np.zeros((1, 1)) if values is None else values)


def _numbers(values: np.ndarray | None) -> str:
    if values is None:
        return ""
    return json.dumps([[round(float(value), 2) for value in row] for row in values], separators=(",", ":"))


def _marks(marked: Sequence[Cell]) -> str:
    """The marked patches; a hidden one when there are none."""
    if not marked:
        return '<div class="mark" hidden></div>'
    return "".join(f'<div class="mark" style="--row:{cell.row};--col:{cell.col}"></div>' for cell in marked)


def _legend(values: np.ndarray | None, name: str) -> str:
    if values is None:
        return '<span class="what">Choose a neuron to see where it fires.</span>'
    peak = float(values.max())
    scale = (
        f'<span class="scale"><span class="num">0</span><span class="bar" style="background:{ramp_css()}">'
        f'</span><span class="num">{peak:.2f}</span></span>'
    )
    quiet = '<span class="scale">silent in this picture</span>'
    return f'<span class="what">{escape(name)}</span>{scale if peak > 0 else quiet}'
