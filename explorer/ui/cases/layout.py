"""The cases tab: stories that ship, cases of one's own, saving and opening: layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.cases.case import LONGEST_NOTES, LONGEST_TITLE, Case
from explorer.cases.shipped import load_shipped
from explorer.ui.cases import cards
from explorer.ui.cases.desk import Desk
from explorer.ui.hub import AT_ONCE, LATEST, QUICK, Hub, html

STORAGE = "visual-neurons-cases"
"""Under this name the browser holds the keys of the cases that it kept; they are sealed for no one else."""

SAVING = "<h2>Save what is on the workspace</h2>"
OPENING = (
    '<h2>Open a case file</h2><p class="quiet">Its picture, question, bench and settings come with it.</p>'
)
REPLAYS = 1
"""Replays that run at once: the next one starts from what the former one found out."""


class Cases(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons (none here)."""

    cases: dict[str, Case]
    shipped: gr.HTML
    own: gr.HTML
    preview: gr.HTML
    title: gr.Textbox
    notes: gr.Textbox
    file: gr.Button
    keep: gr.Button
    link: gr.HTML
    upload: gr.UploadButton
    download: gr.HTML
    keys: gr.BrowserState
    mine: gr.State
    verdicts: gr.State
    turn: gr.State
    emitters: tuple[gr.HTML, ...] = ()


def draw() -> Cases:
    """Lay out the components inside the present tab."""
    with gr.Row(elem_id="cases"):
        with gr.Column(elem_id="case-lists", min_width=0):
            shipped = html("shipped-cases", "", "cases.js", cards.EVENTS)
            own = html("own-cases", "", "cases.js", cards.EVENTS)
        with gr.Column(elem_id="case-desk", min_width=0):
            html("case-saving", SAVING)
            preview = html("case-preview")
            title = gr.Textbox(label="Title", max_lines=1, max_length=LONGEST_TITLE, elem_id="case-title")
            notes = gr.Textbox(
                label="Notes: what to look for, what to try",
                lines=3,
                max_lines=6,
                max_length=LONGEST_NOTES,
                elem_id="case-notes",
            )
            with gr.Row(elem_id="case-buttons"):
                file = gr.Button("Download as file", size="sm", min_width=0)
                keep = gr.Button("Keep on this server", size="sm", variant="primary", min_width=0)
            link = html("case-link", "", "cases.js")
            html("case-opening", OPENING)
            upload = gr.UploadButton(
                "Choose a case file", elem_id="case-upload", type="filepath", file_types=[".json"], size="sm"
            )
            download = html("case-download", "", "case-download.js", html_template="<span></span>")
    keys = gr.BrowserState([], storage_key=STORAGE, secret=STORAGE)
    mine, verdicts, turn = gr.State(()), gr.State(()), gr.State(None)
    parts = (shipped, own, preview, title, notes, file, keep, link, upload, download)
    return Cases(load_shipped(), *parts, keys, mine, verdicts, turn)


def wire(hub: Hub, parts: Cases) -> None:
    """Tie every action to its handler."""
    desk, s = Desk(hub, parts.cases), hub.states
    parts.shipped.value = desk.lists((), {})[0]
    parts.keep.visible = not hub.rules.read_only
    _wire_opening(hub, parts, desk)
    lists = [parts.shipped, parts.own, parts.verdicts, parts.turn]
    replays = {"concurrency_limit": REPLAYS, "concurrency_id": "replays", **LATEST}
    own = [parts.keys, parts.mine, parts.verdicts]
    for part in (parts.shipped, parts.own):
        part.case_replay(desk.replay_one, own[1:], lists, **replays)
        part.case_halt(desk.halt, parts.turn, None, **AT_ONCE)
        part.case_file(desk.case_file, None, parts.download, **LATEST)
        part.case_script(desk.case_script, None, parts.download, **LATEST)
    parts.shipped.case_all(desk.replay_shipped, own[1:], lists, **replays)
    parts.own.case_remove(desk.remove, own, [parts.keys, parts.mine, parts.own, parts.link], **QUICK)
    stands = [s.visit, s.said, s.told, hub.bench, hub.settings]
    hub.tabs.change(desk.preview, stands, [parts.preview, parts.title], **QUICK)
    saved = [*stands, parts.title, parts.notes]
    parts.file.click(desk.save_file, saved, parts.download, **LATEST)
    kept = [parts.keys, parts.mine, parts.own, parts.link]
    parts.keep.click(desk.keep, [*own, *saved], kept, **LATEST)
    hub.tabs.change(desk.listed, own, [parts.mine, parts.own], **QUICK)


def _wire_opening(hub: Hub, parts: Cases, desk: Desk) -> None:
    """Cases onto the workspace: by button, file and link.

    A link's settings take milliseconds, outside the queue; they are there before the first answer is.
    """
    s, opened = hub.states, [*hub.opened, hub.settings]
    for event in (
        parts.shipped.case_open(desk.open_case, s.visit, opened, **LATEST),
        parts.own.case_open(desk.open_case, s.visit, opened, **LATEST),
        parts.upload.upload(desk.open_file, [s.visit, parts.upload], opened, **LATEST),
    ):
        hub.then_go(event, "workspace")
        hub.then_settle(event)
    hub.opening.linked = desk.linked
    hub.page.load(desk.linked_settings, None, hub.settings, **QUICK)
