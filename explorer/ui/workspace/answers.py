"""The right column: the question, the untouched and the steered answer. Layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import QUICK, Hub, html
from explorer.ui.workspace import panels
from explorer.ui.workspace.steering import NOTHING_MOVED


class Answers(NamedTuple):
    """The components of the column."""

    prompt: gr.Textbox
    ask: gr.Button
    questions: gr.HTML
    baseline: gr.HTML
    steered: gr.HTML


def draw() -> Answers:
    """Lay out the column."""
    with gr.Row(elem_id="asker"):
        prompt = gr.Textbox(
            label="Question", placeholder="Describe the image.", max_lines=2, container=False, scale=3
        )
        ask = gr.Button("Ask", size="sm", variant="primary", scale=0, min_width=64)
    questions = html("questions", script="buttons.js", events=("ask",))
    with gr.Row(elem_id="answers"):
        with gr.Column(min_width=0):
            html("baseline-title", "<h2>The model says</h2>")
            baseline = html("baseline", panels.WAITING, "words.js", ("why",))
        with gr.Column(min_width=0):
            html("steered-title", "<h2>Steered, it says</h2>")
            steered = html("steered", panels.hint(NOTHING_MOVED), "words.js", ("why",))
    return Answers(prompt, ask, questions, baseline, steered)


def wire(hub: Hub, parts: Answers) -> None:
    """Ask."""
    s = hub.states
    hub.then_answer(parts.questions.ask(hub.steering.choose_question, s.visit, parts.prompt, **QUICK))
    for trigger in (parts.prompt.submit, parts.ask.click):
        hub.then_answer(trigger(hub.steering.stop, s.visit, None, **QUICK))
