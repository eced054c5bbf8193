"""The whole page: title, tabs, theme and style. `build` gives the Blocks, `LOOK` what `launch` needs."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from explorer.session import Session
from explorer.ui import panels, workspace
from explorer.ui.desk import Desk
from explorer.ui.examples import load_examples

STYLE = Path(__file__).resolve().parents[2] / "assets" / "ui" / "style.css"
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
UPLOADS_KEPT = 3600
"""Seconds after which uploaded files are removed."""

VISITORS = 200
"""Visitors whose pictures are kept at a time; the oldest makes room."""


def build(session: Session) -> gr.Blocks:
    """The page on one session."""
    desk = Desk(session, load_examples())
    with gr.Blocks(title="Visual neurons", fill_width=True, delete_cache=(600, UPLOADS_KEPT)) as page:
        gr.HTML(panels.title_line(session), elem_id="title", apply_default_css=False)
        workspace.wire(page, workspace.draw(), desk)
    page.queue(default_concurrency_limit=8, max_size=64)
    return page


def theme() -> gr.themes.Base:
    """A plain theme on the machine's own fonts, with one accent."""
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", font=SANS, font_mono=MONO, radius_size="md", text_size="sm"
    )


def look() -> dict[str, object]:
    """Arguments of `launch` that decide how the page looks."""
    return {"theme": theme(), "css": STYLE.read_text(encoding="utf-8"), "footer_links": []}
