"""The workspace tab: its components, and which action each of them starts. Knows no model and no store."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gradio as gr

from explorer.ui import panels
from explorer.ui.desk import NOTHING_MOVED, Desk
from explorer.ui.stage import EMPTY

SCRIPTS = Path(__file__).resolve().parents[2] / "assets" / "ui"

MOST_ANSWERS = 32
"""Answers in the making at once, of all visitors; the session deals out the model among them, fairly."""

STAGE_TEMPLATE = """${value}
<div class="tools">
  <label><input type="checkbox" data-raw> raw patches</label>
  <label><input type="checkbox" data-grid checked> grid</label>
  <label>heat <input type="range" data-heat min="0" max="1" step="0.05" value="1"></label>
</div>"""


class Parts(NamedTuple):
    """The components of the workspace."""

    visit: gr.State
    focus: gr.State
    said: gr.State
    notices: gr.HTML
    shelf: gr.HTML
    stage: gr.HTML
    upload: gr.UploadButton
    concept: gr.Textbox
    find: gr.Button
    cards: gr.HTML
    prompt: gr.Textbox
    ask: gr.Button
    questions: gr.HTML
    baseline: gr.HTML
    steered: gr.HTML
    replace: gr.Checkbox
    bench: gr.HTML


def _html(name: str, value: str = "", script: str | None = None, **more: object) -> gr.HTML:
    """An HTML part with an id and, where it does something, its script from assets/ui."""
    code = None if script is None else (SCRIPTS / script).read_text(encoding="utf-8")
    return gr.HTML(value, elem_id=name, js_on_load=code, apply_default_css=False, **more)


def _picture_column() -> dict[str, object]:
    with gr.Column(elem_id="picture-column", min_width=0):
        shelf = _html("shelf", script="buttons.js")
        stage = _html("stage", EMPTY, "stage.js", html_template=STAGE_TEMPLATE)
        upload = gr.UploadButton("Upload a picture", elem_id="upload", type="filepath", size="sm")
        _html("paste", '<p class="quiet">or paste one, or drop it on the picture</p>')
    return {"shelf": shelf, "stage": stage, "upload": upload}


def _neurons_column() -> dict[str, object]:
    with gr.Column(elem_id="neurons-column", min_width=0):
        with gr.Row(elem_id="finder"):
            concept = gr.Textbox(
                label="Find neurons for", placeholder="fork and knife", max_lines=1, container=False, scale=3
            )
            find = gr.Button("Find", size="sm", scale=0, min_width=64)
        cards = _html("cards", script="buttons.js")
    return {"concept": concept, "find": find, "cards": cards}


def _answers_column() -> dict[str, object]:
    with gr.Column(elem_id="answers-column", min_width=0):
        with gr.Row(elem_id="asker"):
            prompt = gr.Textbox(
                label="Question", placeholder="Describe the image.", max_lines=2, container=False, scale=3
            )
            ask = gr.Button("Ask", size="sm", variant="primary", scale=0, min_width=64)
        questions = _html("questions", script="buttons.js")
        with gr.Row(elem_id="answers"):
            with gr.Column(min_width=0):
                _html("baseline-title", "<h2>The model says</h2>")
                baseline = _html("baseline", panels.WAITING)
            with gr.Column(min_width=0):
                _html("steered-title", "<h2>Steered, it says</h2>")
                steered = _html("steered", panels.hint(NOTHING_MOVED))
        _html("bench-title", "<h2>Bench</h2>")
        bench = _html("bench", "", "bench.js", html_template='<div class="rows"></div>', marked=None)
        replace = gr.Checkbox(
            label="Feed the SAE's reconstruction, as in the paper",
            elem_id="replace",
            container=False,
        )
    return {
        "prompt": prompt,
        "ask": ask,
        "questions": questions,
        "baseline": baseline,
        "steered": steered,
        "bench": bench,
        "replace": replace,
    }


def draw() -> Parts:
    """Lay out the workspace inside the present Blocks."""
    states = {"visit": gr.State(None), "focus": gr.State(None), "said": gr.State(None)}
    notices = _html("notices")
    with gr.Row(elem_id="workspace"):
        parts = {**states, "notices": notices, **_picture_column(), **_neurons_column(), **_answers_column()}
    return Parts(**parts)  # type: ignore[arg-type]


def wire(page: gr.Blocks, parts: Parts, desk: Desk) -> None:
    """Tie every action to its handler. Events that a newer one overtakes run once more, on the newest."""
    p = parts
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    latest = {**quiet, "trigger_mode": "always_last"}
    quick = {**latest, "queue": False}
    picture = [p.visit, p.focus, p.said, p.stage, p.cards]
    opened = [*picture, p.shelf, p.notices, p.questions, p.prompt, p.baseline, p.steered, p.bench]
    focused = [p.focus, p.stage, p.cards]

    steer = {"fn": desk.steer, "inputs": [p.visit, p.said, p.bench, p.replace]}
    steer |= {"outputs": [p.baseline, p.steered], "concurrency_limit": MOST_ANSWERS}
    asked = {"fn": desk.ask, "inputs": [p.visit, p.prompt], "outputs": [p.baseline, p.questions, p.said]}
    asked |= {"concurrency_limit": MOST_ANSWERS}

    for moved in (p.bench.input, p.replace.input):
        moved(**steer, **latest)
        moved(desk.hurry, [p.visit, p.bench, p.replace], None, **quick)

    def then_answer(event: gr.events.Dependency) -> None:
        event.success(**asked, **latest).success(**steer, **latest)

    for event in (
        page.load(desk.start, None, opened, **quiet),
        p.shelf.example(desk.open_example, p.visit, opened, **latest),
        p.upload.upload(desk.open_upload, [p.visit, p.upload], opened, **latest),
    ):
        then_answer(event.success(desk.settle, [p.visit, p.bench], p.bench, **quick))
    then_answer(p.questions.ask(desk.choose_question, p.visit, p.prompt, **quick))
    for trigger in (p.prompt.submit, p.ask.click):
        then_answer(trigger(desk.stop, p.visit, None, **quick))

    p.stage.patch(desk.pick_patch, p.visit, [*focused, p.bench], **quick)
    for back in (p.stage.back, p.cards.back, p.cards.pool):
        back(desk.whole_picture, p.visit, [*focused, p.bench], **quick)
    p.cards.pick(desk.pick_neuron, [p.visit, p.focus], focused, **quick)
    p.cards.put(desk.put, [p.visit, p.focus, p.bench], p.bench, **quick)
    p.cards.best(desk.put_best, [p.visit, p.focus, p.bench], p.bench, **quick)
    for trigger in (p.concept.submit, p.find.click):
        trigger(desk.find, [p.visit, p.focus, p.concept], focused, **quick)
