"""Below: the bench of sliders, and the settings beside it. Layout and events."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import QUICK, Hub, html


class Bench(NamedTuple):
    """The components of the row."""

    bench: gr.HTML
    settings: gr.HTML


def draw() -> Bench:
    """Lay out the row."""
    with gr.Column(elem_id="bench-column", min_width=0):
        html("bench-title", "<h2>Bench</h2>")
        bench = html("bench", "", "bench.js", html_template='<div class="rows"></div>', marked=None)
    with gr.Column(elem_id="settings-column", min_width=0):
        html("settings-title", "<h2>Steering</h2>")
        settings = html("settings", "", "settings.js", html_template='<div class="settings"></div>')
    return Bench(bench, settings)


def wire(hub: Hub, parts: Bench) -> None:
    """Steer when sliders or settings move; "put" of every emitter; the best of a search."""
    s = hub.states
    for moved in (parts.bench.input, parts.settings.input):
        moved(**hub.steer)
        moved(hub.steering.hurry, [s.visit, parts.bench, parts.settings], None, **QUICK)
    put = [s.visit, s.focus, parts.bench]
    for part in hub.emitters:
        event = hub.then_steer(part.put(hub.steering.put, put, parts.bench, **QUICK))
        if part is not hub.cards:
            hub.then_go(event, "workspace")
    hub.cards.best(hub.steering.put_best, put, parts.bench, **QUICK)
