"""The right column: the question, both answers, their gauges, the SAE alone. Layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.buttons import does
from explorer.ui.hub import AT_ONCE, LATEST, MOST_ANSWERS, QUICK, QUIET, Hub, html
from explorer.ui.workspace import gauges, panels
from explorer.ui.workspace.steering import NOTHING_MOVED

SAID = "<h2>The model says</h2>"
PIN = f"""<h2>Steered, it says</h2>
<button type="button" class="pin" {does("pin")} title="Keep this answer below, to compare">Pin</button>"""

SPOKEN = '<div class="live" aria-live="polite" aria-atomic="true">${value}</div>'
"""Read out once it is complete: a growing answer is marked as busy."""


class Answers(NamedTuple):
    """The components of the column. alone: a visitor's `gauges.Alone`."""

    prompt: gr.Textbox
    ask: gr.Button
    questions: gr.HTML
    baseline: gr.HTML
    steered: gr.HTML
    head: gr.HTML
    bars: gr.HTML
    arm: gr.HTML
    alone: gr.State


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
            html("baseline-title", SAID)
            baseline = html("baseline", panels.WAITING, "words.js", ("why",))
        with gr.Column(min_width=0):
            head = html("steered-title", PIN, "buttons.js", ("pin",))
            steered = html("steered", panels.hint(NOTHING_MOVED), "words.js", ("why",), html_template=SPOKEN)
    bars = html("gauges", gauges.bars(None))
    arm = html("sae-alone", gauges.panel(gauges.Alone()), "buttons.js", ("arm",))
    return Answers(prompt, ask, questions, baseline, steered, head, bars, arm, gr.State(None))


def wire(hub: Hub, parts: Answers) -> None:
    """Ask; after each complete answer its gauges, and the SAE alone where it is wanted."""
    s, gauging = hub.states, gauges.Gauging(hub.session)
    hub.then_answer(parts.questions.ask(hub.steering.choose_question, s.visit, parts.prompt, **QUICK))
    for trigger in (parts.prompt.submit, parts.ask.click):
        hub.then_answer(trigger(hub.steering.stop, s.visit, None, **AT_ONCE))
    s.told.change(gauging.show, [s.visit, s.told], parts.bars, **LATEST)
    alone = ([s.visit, s.said, hub.settings, parts.alone], [parts.arm, parts.alone])
    shared = {"concurrency_limit": MOST_ANSWERS}
    parts.arm.arm(gauging.toggle, *alone, **LATEST, **shared)
    s.said.change(gauging.renew, *alone, **QUIET, trigger_mode="multiple", **shared)
