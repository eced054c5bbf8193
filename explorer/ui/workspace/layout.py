"""The workspace tab: picture, neurons, answers, bench. Lays them out; knows no model and no store."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import Hub, html
from explorer.ui.workspace import answers, benching, neurons, picture


class Workspace(NamedTuple):
    """The parts of the workspace."""

    notices: gr.HTML
    picture: picture.Picture
    neurons: neurons.Neurons
    answers: answers.Answers
    bench: benching.Bench


def draw(sought: str) -> Workspace:
    """Lay out the workspace inside the present tab. sought: what may be looked for, as an example."""
    notices = html("notices")
    with gr.Row(elem_id="workspace"):
        with gr.Column(elem_id="picture-column", min_width=0):
            one = picture.draw()
        with gr.Column(elem_id="neurons-column", min_width=0):
            two = neurons.draw(sought)
        with gr.Column(elem_id="answers-column", min_width=0):
            three = answers.draw()
        with gr.Row(elem_id="bench-row"):
            four = benching.draw()
    return Workspace(notices, one, two, three, four)


def wire(hub: Hub, parts: Workspace) -> None:
    """Tie every action to its handler."""
    picture.wire(hub, parts.picture)
    neurons.wire(hub, parts.neurons)
    answers.wire(hub, parts.answers)
    benching.wire(hub, parts.bench, parts.answers.head)
