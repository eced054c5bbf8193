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

LONGEST_SIDE, FINEST_SIDE = 896, 2048
PIXELS_OF_PATCH = 16
"""Pixels of the shown photo for a patch, where the grid is so fine that one looks at it closely."""
NO_PHOTO = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

EMPTY = (
    '<div class="over"><p class="quiet">Opening the first picture …</p></div>'
    '<div class="legend"><div class="map"></div><div class="readout"></div></div>'
)

TEMPLATE = """<div class="figure" style="--ratio:${ratio}">
<div class="window"><img class="photo" src="${photo}" alt="${caption}" draggable="false"></div>
${value}
<div class="tools">
  <label title="Show each patch as a square of one colour"><input type="checkbox" data-raw> raw</label>
  <label title="Show the lines between the patches"><input type="checkbox" data-grid checked> grid</label>
  <label title="How much the heat hides of the picture">heat
    <input type="range" data-heat min="0" max="1" step="0.05" value="1" aria-label="Opacity of the heat">
  </label>
  <span class="zoom" role="group" aria-label="Look closer">
    <button type="button" data-zoom="out" aria-label="Smaller"
      title="Smaller: minus key, Ctrl and wheel, pinch. 0 shows the whole picture.">&minus;</button>
    <button type="button" data-zoom="in" aria-label="Larger"
      title="Larger: plus key, Ctrl and wheel, pinch. Wheel or middle button then move it.">+</button>
  </span>
</div>
</div>"""
"""The component's html_template; its value is what `stage` draws."""

IDLE = "Click a patch, or drag over several."
IDLE_CROPPED = "Click a patch. The dark margins go unseen."
IDLE_FINE = "Drag over patches; + brings single ones near."
IDLE_MARKED = "Shift adds, Alt removes."
FINE = 40
"""Rows or columns from which on single patches are too small to be hit without looking closer."""


def photo_uri(image: Image.Image, grid: Grid | None = None) -> str:
    """The picture as a data URI, scaled down to what a screen can show; larger where its grid is fine."""
    cells = 0 if grid is None else max(grid.rows, grid.cols)
    side = min(FINEST_SIDE, max(LONGEST_SIDE, PIXELS_OF_PATCH * cells))
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
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
        "Shift and arrow keys mark more, Escape clears; plus and minus look closer and back, 0 shows all."
    )
    cropped = _cropped(grid)
    margins = ' title="The model does not see the dark margins."' if cropped else ""
    inside = ' title=""' if cropped else ""
    return (
        f'<div class="over"{margins}><div class="sheet">'
        f'<div class="cover"{inside} style="{place}" data-rows="{grid.rows}" '
        f'data-cols="{grid.cols}" data-map="{_numbers(values)}" data-marked="{_cells(marked)}" '
        f'tabindex="0" role="application" aria-label="{escape(title)}: {hint}">'
        f'<img class="heat" alt="" src="{_heat(values)}"><div class="grid"></div>'
        f'<svg class="marks" viewBox="0 0 {grid.cols} {grid.rows}" preserveAspectRatio="none" '
        f'aria-hidden="true"><path class="outer"/><path class="inner"/></svg>'
        f'<div class="cursor"></div></div></div><div class="part" aria-hidden="true"><i></i></div></div>'
        f'<div class="legend"><div class="map">{_legend(values, name)}</div>{_readout(marked, grid)}</div>'
    )


def _cropped(grid: Grid) -> bool:
    """Whether the grid leaves margins of the picture unseen, by a pixel at least."""
    box = grid.covered
    return box.left >= 1 or box.top >= 1 or box.right <= grid.width - 1 or box.bottom <= grid.height - 1


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
    """The map as JSON, four digits a value; "" for none."""
    if values is None:
        return ""
    size = np.abs(values.astype(np.float64))
    scale = 10.0 ** (3 - np.floor(np.log10(np.where(size > 0, size, 1.0))))
    rounded = (np.rint(values * scale) / scale).ravel().tolist()
    texts = [repr(value) if value else "0" for value in rounded]
    cols = values.shape[1]
    rows = (",".join(texts[start : start + cols]) for start in range(0, len(texts), cols))
    return f"[[{'],['.join(rows)}]]"


def _cells(marked: Sequence[Cell]) -> str:
    return json.dumps([list(cell) for cell in marked], separators=(",", ":")) if marked else ""


def _legend(values: np.ndarray | None, name: str) -> str:
    if values is None:
        return '<span class="what quiet">Choose a neuron to see where it fires.</span>'
    low, high = _span(values)
    zero = f'<b style="left:{100 * -low / (high - low):.1f}%" title="0"></b>' if low < 0 < high else ""
    scale = (
        f'<span class="scale" data-low="{low:.6g}" data-high="{high:.6g}">'
        f'<span class="num">{number(low)}</span>'
        f'<span class="bar" style="background:{ramp_css()}">{zero}<i></i></span>'
        f'<span class="num">{number(high)}</span></span>'
    )
    quiet = '<span class="scale">silent in this picture</span>'
    shown = escape(name)
    return f'<span class="what" title="{shown}">{shown}</span>{scale if high > low else quiet}'


def _readout(marked: Sequence[Cell], grid: Grid) -> str:
    """The line that says what is under the pointer, with the marked patches and the way to clear them."""
    said, idle = "", IDLE
    if _cropped(grid):
        idle = IDLE_CROPPED
    elif max(grid.rows, grid.cols) >= FINE:
        idle = IDLE_FINE
    if marked:
        idle = IDLE_MARKED
        words = "1 patch" if len(marked) == 1 else f"{len(marked)} patches"
        said = f'<span class="many">{words}</span><button type="button" class="clear">Clear</button>'
    here = f'<span class="here" aria-live="polite" data-idle="{idle}">{idle}</span>'
    return f'<div class="readout">{here}{said}</div>'
