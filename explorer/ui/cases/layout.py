"""The cases tab: set-ups saved, opened and replayed: layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import Hub


class Cases(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons."""

    emitters: tuple[gr.HTML, ...] = ()


def draw() -> Cases:
    """Lay out the components inside the present tab."""
    return Cases()


def wire(hub: Hub, parts: Cases) -> None:
    """Tie every action to its handler."""
