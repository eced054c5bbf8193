"""The left column: example pictures, the picture with its heat, uploads. Layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import LATEST, QUICK, QUIET, Hub, html
from explorer.ui.workspace.stage import EMPTY

STAGE_TEMPLATE = """${value}
<div class="tools">
  <label><input type="checkbox" data-raw> raw patches</label>
  <label><input type="checkbox" data-grid checked> grid</label>
  <label>heat <input type="range" data-heat min="0" max="1" step="0.05" value="1"></label>
</div>"""


class Picture(NamedTuple):
    """The components of the column."""

    shelf: gr.HTML
    stage: gr.HTML
    upload: gr.UploadButton


def draw() -> Picture:
    """Lay out the column."""
    shelf = html("shelf", script="buttons.js", events=("example",))
    stage = html("stage", EMPTY, "stage.js", html_template=STAGE_TEMPLATE)
    upload = gr.UploadButton("Upload a picture", elem_id="upload", type="filepath", size="sm")
    html("paste", '<p class="quiet">or paste one, or drop it on the picture</p>')
    return Picture(shelf, stage, upload)


def wire(hub: Hub, parts: Picture) -> None:
    """Open pictures, mark patches."""
    s = hub.states
    for event in (
        hub.page.load(hub.opening.start, None, hub.opened, **QUIET),
        parts.shelf.example(hub.opening.open_example, s.visit, hub.opened, **LATEST),
        parts.upload.upload(hub.opening.open_upload, [s.visit, parts.upload], hub.opened, **LATEST),
    ):
        hub.then_settle(event)
    parts.stage.patch(hub.looking.pick_patch, [s.visit, s.focus], hub.shown, **QUICK)
    parts.stage.back(hub.looking.whole_picture, s.visit, hub.shown, **QUICK)
