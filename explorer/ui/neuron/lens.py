"""One exemplar enlarged: its picture as large as it can be had, its heat, and what is known of it.

A drawn scene is drawn anew, a file that is still there is read again; of anything else the store's
thumbnail serves. Keeps nothing.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from PIL import Image

from explorer.errors import ExplorerError
from explorer.images import load_image
from explorer.records import Exemplar, IntervalExemplar
from explorer.session import Session
from explorer.ui.heat import data_uri, heat_uri
from explorer.ui.neuron.numbers import short
from explorer.ui.neuron.sheet import said
from explorer.world import draw

SIDE = 560
"""Longest side of an enlarged picture in pixels."""

DIALOG = """<dialog class="lens" aria-labelledby="lens-title">
<div class="frame"><img class="photo" alt=""><img class="heat" alt="" hidden></div>
<div class="told"><header><h2 id="lens-title"></h2>
<button type="button" class="close" aria-label="Close" title="Close (Escape)">×</button></header>
<div class="facts"></div><p class="origin quiet"></p>
<label class="opacity">Heat <input type="range" min="0" max="1" step="0.05" value="0.8"></label>
<nav aria-label="Exemplars"><button type="button" class="plain" data-step="-1">Previous</button>
<span class="num"></span><button type="button" class="plain" data-step="1">Next</button></nav>
<p class="keys quiet">Arrow keys move on, Escape closes.</p></div></dialog>"""
"""The dialog, once in the page; assets/ui/neuron-lens.js fills it."""

_SCENE = re.compile(r"scene:(\w+):(\d+)")


def enlarged(session: Session, exemplar: Exemplar, count: int, peak: float) -> str:
    """The exemplar as JSON for the dialog of assets/ui/neuron-lens.js.

    count: how many of its kind there are; peak: the activation at the top of the colour scale.
    """
    weaker = isinstance(exemplar, IntervalExemplar)
    title = f"Exemplar {exemplar.rank + 1} of {count}"
    if weaker:
        title = f"Scores {exemplar.low:.2g} to {exemplar.high:.2g}"
    row, col = divmod(int(exemplar.patch_map.argmax()), exemplar.patch_map.shape[1])
    top = float(exemplar.patch_map.max())
    shows = said(exemplar.labels)
    facts = [
        f"Score {short(exemplar.score)}, strongest at row {row + 1}, column {col + 1} with {short(top)}.",
        f"Shows {shows}." if shows else "",
    ]
    return json.dumps(
        {
            "neuron": exemplar.neuron,
            "kind": "weaker" if weaker else "strong",
            "rank": exemplar.rank,
            "title": title,
            "facts": [fact for fact in facts if fact],
            "origin": exemplar.image_id,
            "photo": data_uri(picture(session, exemplar)),
            "heat": heat_uri(exemplar.patch_map, peak),
        }
    )


def picture(session: Session, exemplar: Exemplar) -> bytes:
    """The part of the exemplar's picture that its patches cover, encoded."""
    try:
        whole = _original(exemplar.origin)
        if whole is None:
            return exemplar.thumbnail
        box = session.lvlm.preprocess(whole, fixed=True).grid.covered
    except ExplorerError:  # the file is gone, or is no picture any more
        return exemplar.thumbnail
    shown = whole.crop(tuple(round(edge) for edge in box))
    shown.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _original(origin: str) -> Image.Image | None:
    """The picture behind an origin, upright RGB; None when only the store has it."""
    scene = _SCENE.fullmatch(origin)
    if scene:
        return draw(int(scene[2]), scene[1], size=SIDE).image
    path = Path(origin)
    return load_image(path) if path.is_absolute() and path.is_file() else None
