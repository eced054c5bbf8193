"""The left column: example pictures, the picture with its heat, uploads. Layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import LATEST, LOOK, QUIET, Hub, html
from explorer.ui.workspace.stage import EMPTY, NO_PHOTO, TEMPLATE


class Picture(NamedTuple):
    """The components of the column."""

    shelf: gr.HTML
    stage: gr.HTML
    upload: gr.UploadButton


def draw() -> Picture:
    """Lay out the column."""
    shelf = html("shelf", script="buttons.js", events=("example",))
    blank = {"photo": NO_PHOTO, "caption": "", "ratio": 1}
    stage = html("stage", EMPTY, "stage.js", ("patches", "back"), html_template=TEMPLATE, **blank)
    upload = gr.UploadButton("Upload", elem_id="upload", type="filepath", size="sm")
    return Picture(shelf, stage, upload)


def wire(hub: Hub, parts: Picture) -> None:
    """Open pictures, mark patches."""
    s = hub.states
    waits = {**LATEST, "show_progress": "minimal", "show_progress_on": parts.stage}
    for event in (
        hub.page.load(hub.opening.start, None, hub.opened, **QUIET),
        parts.shelf.example(hub.opening.open_example, s.visit, hub.opened, **waits),
        parts.upload.upload(hub.opening.open_upload, [s.visit, parts.upload], hub.opened, **waits),
    ):
        hub.then_settle(event)
    parts.stage.patches(hub.looking.pick_patches, [s.visit, s.focus], hub.shown, **LOOK)
    parts.stage.back(hub.looking.whole_picture, [s.visit, s.focus], hub.shown, **LOOK)
