"""One neuron's own page: layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import Hub


class Neuron(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons."""

    emitters: tuple[gr.HTML, ...] = ()


def draw() -> Neuron:
    """Lay out the components inside the present tab."""
    return Neuron()


def wire(hub: Hub, parts: Neuron) -> None:
    """Tie every action to its handler."""
