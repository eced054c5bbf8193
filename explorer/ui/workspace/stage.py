"""Draws the picture's patch grid, the heat of the chosen neuron, the marked patches and the legend.

assets/ui/stage.js marks patches in the browser, and says the value under the pointer. The photo itself is a
property of the component (`frame`), so that a click sends it no second time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from explorer.records import Cell, Grid
from explorer.ui.heat import data_uri, heat_uri, ramp_css
from explorer.ui.marks import number

LONGEST_SIDE = 896
NO_PHOTO = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

EMPTY = (
    '<div class="over"><p class="quiet">Opening the first picture …</p></div>'
    '<div class="legend"><div class="map"></div><div class="readout"></div></div>'
)

TEMPLATE = """<div class="figure" style="--ratio:${ratio}">
<img class="photo" src="${photo}" alt="${caption}" draggable="false">
${value}
<div class="tools">
  <label title="Show each patch as a square of one colour"><input type="checkbox" data-raw> raw</label>
  <label title="Show the lines between the patches"><input type="checkbox" data-grid checked> grid</label>
  <label title="How much the heat hides of the picture">heat
    <input type="range" data-heat min="0" max="1" step="0.05" value="1" aria-label="Opacity of the heat">
  </label>
</div>
</div>"""
"""The component's html_template; its value is what `stage` draws."""

IDLE = "Click a patch, or drag over several."
IDLE_MARKED = "Shift adds, Alt removes."


def photo_uri(image: Image.Image) -> str:
    """The picture as a data URI, scaled down to what a screen can show."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    return data_uri(stream.getvalue())


def frame(photo: str, title: str, grid: Grid) -> dict[str, object]:
    """The properties that the template takes beside the value. photo: data URI."""
    return {"photo": photo, "caption": escape(title), "ratio": round(grid.width / grid.height, 4)}


def stage(title: str, grid: Grid, values: np.ndarray | None, name: str, marked: Sequence[Cell] = ()) -> str:
    """What lies over the photo, and the legend under it, as HTML.

    values: (rows, cols) map to show, or None; name: what it is a map of; marked: the marked patches.
    """
    box = grid.covered
    place = (
        f"left:{_percent(box.left, grid.width)};top:{_percent(box.top, grid.height)};"
        f"width:{_percent(box.right - box.left, grid.width)};"
        f"height:{_percent(box.bottom - box.top, grid.height)};"
        f"--rows:{grid.rows};--cols:{grid.cols}"
    )
    hint = (
        f"{grid.rows} by {grid.cols} patches. Arrow keys move over them, Enter marks one, "
        "Shift and arrow keys mark more, Escape clears."
    )
    whole = box == (0, 0, grid.width, grid.height)
    margins = "" if whole else ' title="The model does not see the dark margins."'
    inside = "" if whole else ' title=""'
    return (
        f'<div class="over"{margins}><div class="cover"{inside} style="{place}" data-rows="{grid.rows}" '
        f'data-cols="{grid.cols}" data-map="{_numbers(values)}" data-marked="{_cells(marked)}" '
        f'tabindex="0" role="application" aria-label="{escape(title)}: {hint}">'
        f'<img class="heat" alt="" src="{_heat(values)}"><div class="grid"></div>'
        f'<svg class="marks" viewBox="0 0 {grid.cols} {grid.rows}" preserveAspectRatio="none" '
        f'aria-hidden="true"><path class="outer"/><path class="inner"/></svg>'
        f'<div class="cursor"></div></div></div>'
        f'<div class="legend"><div class="map">{_legend(values, name)}</div>{_readout(marked)}</div>'
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3f}%"


def _span(values: np.ndarray) -> tuple[float, float]:
    """The ends of the colour scale: 0, or the lowest value where there are some below; and the highest."""
    return min(0.0, float(values.min())), float(values.max())


def _heat(values: np.ndarray | None) -> str:
    """The heat picture; one pixel when there is no map, so that the element stays in place."""
    if values is None:
        return heat_uri(np.zeros((1, 1)))
    low, high = _span(values)
    return heat_uri(values - low, high - low)


def _numbers(values: np.ndarray | None) -> str:
    if values is None:
        return ""
    return json.dumps([[float(f"{value:.4g}") for value in row] for row in values], separators=(",", ":"))


def _cells(marked: Sequence[Cell]) -> str:
    return json.dumps([list(cell) for cell in marked], separators=(",", ":")) if marked else ""


def _legend(values: np.ndarray | None, name: str) -> str:
    if values is None:
        return '<span class="what quiet">Choose a neuron to see where it fires.</span>'
    low, high = _span(values)
    scale = (
        f'<span class="scale" data-low="{low:.6g}" data-high="{high:.6g}">'
        f'<span class="num">{number(low)}</span>'
        f'<span class="bar" style="background:{ramp_css()}"><i></i></span>'
        f'<span class="num">{number(high)}</span></span>'
    )
    quiet = '<span class="scale">silent in this picture</span>'
    shown = escape(name)
    return f'<span class="what" title="{shown}">{shown}</span>{scale if high > low else quiet}'


def _readout(marked: Sequence[Cell]) -> str:
    """The line that says what is under the pointer, with the marked patches and the way to clear them."""
    said, idle = "", IDLE
    if marked:
        idle = IDLE_MARKED
        words = "1 patch" if len(marked) == 1 else f"{len(marked)} patches"
        said = f'<span class="many">{words}</span><button type="button" class="clear">Clear</button>'
    here = f'<span class="here" aria-live="polite" data-idle="{idle}">{idle}</span>'
    return f'<div class="readout">{here}{said}</div>'
