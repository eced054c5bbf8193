"""The gallery tab: all neurons as cards, filters, search, maps of the whole SAE: layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import Hub


class Gallery(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons."""

    emitters: tuple[gr.HTML, ...] = ()


def draw() -> Gallery:
    """Lay out the components inside the present tab."""
    return Gallery()


def wire(hub: Hub, parts: Gallery) -> None:
    """Tie every action to its handler."""
