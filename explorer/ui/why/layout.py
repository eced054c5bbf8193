"""Why does the model say this? Words by neurons, attribution, repair, sweeps: layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import MOST_ANSWERS, QUICK, QUIET, Hub
from explorer.ui.why.asking import Asking

STREAM = {**QUIET, "trigger_mode": "multiple", "concurrency_limit": MOST_ANSWERS}
"""A newer analysis begins at once; it ends the older one itself."""


class Why(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons."""

    emitters: tuple[gr.HTML, ...] = ()


def draw() -> Why:
    """Lay out the components inside the present tab."""
    return Why()


def wire(hub: Hub, parts: Why) -> None:
    """Tie every action to its handler."""
    s = hub.states
    asking = Asking(hub.session, hub.looking, hub.steering)
    hub.baseline.why(asking.why_said, [s.visit, s.said, hub.settings], hub.shown, **STREAM)
    hub.steered.why(asking.why_told, [s.visit, s.told], hub.shown, **STREAM)
    hub.cards.halt(asking.halt, s.visit, None, **QUICK)
    hub.then_steer(hub.cards.mend(asking.mend, [s.visit, hub.bench], hub.bench, **QUICK))
