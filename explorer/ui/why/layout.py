"""Why does the model say this? Words by neurons, attribution, repair, sweeps: layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import Hub


class Why(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons."""

    emitters: tuple[gr.HTML, ...] = ()


def draw() -> Why:
    """Lay out the components inside the present tab."""
    return Why()


def wire(hub: Hub, parts: Why) -> None:
    """Tie every action to its handler."""
