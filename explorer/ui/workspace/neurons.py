"""The middle column: neurons as cards, and the search among them. Layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import EVERYWHERE, LOOK, Hub, html

EVENTS = (*EVERYWHERE, "back", "pool", "best", "mend", "halt")
"""What buttons in the cards ask for."""


FIRST = (
    '<header class="heading"><h2>Whole picture</h2><span class="ways"></span>'
    '<p class="quiet">Looking for the neurons that fire …</p></header>'
)


class Neurons(NamedTuple):
    """The components of the column."""

    concept: gr.Textbox
    find: gr.Button
    cards: gr.HTML


def draw(sought: str) -> Neurons:
    """Lay out the column. sought: what may be looked for, as an example."""
    with gr.Row(elem_id="finder"):
        concept = gr.Textbox(
            label="Find neurons for", placeholder=sought, max_lines=1, container=False, scale=3
        )
        find = gr.Button("Find", size="sm", scale=0, min_width=64)
    return Neurons(concept, find, html("cards", FIRST, script="buttons.js", events=EVENTS))


def wire(hub: Hub, parts: Neurons) -> None:
    """Search; choose and pool; "pick" of every emitter: its heat on the picture."""
    s = hub.states
    for trigger in (parts.concept.submit, parts.find.click):
        trigger(hub.looking.find, [s.visit, s.focus, parts.concept], hub.shown, **LOOK)
    parts.cards.back(hub.looking.whole_picture, [s.visit, s.focus], hub.shown, **LOOK)
    parts.cards.pool(hub.looking.choose_pool, [s.visit, s.focus], hub.shown, **LOOK)
    for part in hub.emitters:
        event = part.pick(hub.looking.pick_neuron, [s.visit, s.focus], hub.shown, **LOOK)
        if part is not hub.cards:
            hub.then_go(event, "workspace")
