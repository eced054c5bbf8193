"""Below: the bench of sliders, the settings beside it, undo and presets for both. Layout and events."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import gradio as gr

from explorer.cases import settings as asked
from explorer.session import Session
from explorer.steer.decoding import ALPHA
from explorer.ui.hub import AT_ONCE, QUICK, Hub, html
from explorer.ui.workspace import compare
from explorer.ui.workspace.presets import offered
from explorer.ui.workspace.reach import USUAL

TOOLS = """<div class="desk">
<h2>Bench</h2>
<button type="button" data-tool="undo" title="Undo (Ctrl+Z)" disabled>Undo</button>
<button type="button" data-tool="redo" title="Redo (Ctrl+Shift+Z)" disabled>Redo</button>
<button type="button" data-tool="reset" title="All sliders back to rest">Reset all</button>
<button type="button" data-tool="presets" aria-haspopup="dialog">Presets</button>
<div data-tool="menu" class="menu" popover role="dialog" aria-label="Presets">
<ul data-tool="list"></ul>
<div class="keep">
<input data-tool="name" type="text" maxlength="60" placeholder="a name" aria-label="Name of the preset">
<button type="button" data-tool="save">Keep what is set now</button></div>
<p class="quiet" data-tool="said" role="status"></p>
</div>
</div>"""


class Bench(NamedTuple):
    """The components of the row."""

    bench: gr.HTML
    settings: gr.HTML
    steps: gr.HTML
    pinned: gr.HTML
    pins: gr.State


def draw() -> Bench:
    """Lay out the row."""
    with gr.Column(elem_id="bench-column", min_width=0):
        steps = html("steps", "", "steps.js", html_template=TOOLS, presets=[], sae="")
        rows = '<div class="rows" tabindex="-1"></div>'
        shown = {"html_template": rows, "marked": None, "reach": USUAL, "elem_classes": "controls"}
        bench = html("bench", "", "bench.js", **shown)
    with gr.Column(elem_id="settings-column", min_width=0):
        html("settings-title", "<h2>Steering</h2>")
        start = asked.dump(asked.Settings())
        place = '<div class="settings"></div>'
        settings = html(
            "settings", start, "settings.js", html_template=place, facts=None, elem_classes="controls"
        )
    pinned = html("pinned", "", "buttons.js", ("restore", "unpin", "unpin_all"))
    return Bench(bench, settings, steps, pinned, gr.State(()))


def facts(session: Session) -> dict[str, Any]:
    """What the settings panel tells and offers on this session. always_on: None without a store."""
    stored = session.store is not None
    return {
        "always_on": len(session.always_on()) if stored else None,
        "alphas": ALPHA,
        "defaults": asdict(asked.Settings()),
        "longest": asked.LONGEST_ANSWER,
    }


def wire(hub: Hub, parts: Bench, head: gr.HTML) -> None:
    """Steer when sliders or settings move, or go back; "put" of every emitter; the best of a search.

    head: of the steered answer, with the button that pins it.
    """
    s, session = hub.states, hub.session
    parts.settings.props["facts"] = facts(session)
    parts.steps.props.update(
        presets=offered(session.store is not None), sae=str(getattr(session.sae, "id", ""))
    )
    for moved in (parts.bench.input, parts.settings.input):
        moved(**hub.steer)
        moved(hub.steering.hurry, [s.visit, parts.bench, parts.settings], None, **AT_ONCE)
    hub.then_answer(parts.settings.length(hub.steering.stop, s.visit, None, **AT_ONCE))
    settle = (hub.steering.settle, [s.visit, parts.bench], parts.bench)
    hub.then_steer(parts.steps.restored(*settle, **QUICK))
    hub.then_answer(parts.steps.reasked(*settle, **QUICK))
    _wire_pins(hub, parts, head)
    put = [s.visit, s.focus, parts.bench]
    for part in hub.emitters:
        event = hub.then_steer(part.put(hub.steering.put, put, parts.bench, **QUICK))
        if part is not hub.cards:
            hub.then_go(event, "workspace")
    hub.cards.best(hub.steering.put_best, put, parts.bench, **QUICK)


def _wire_pins(hub: Hub, parts: Bench, head: gr.HTML) -> None:
    """Pin, take off, put back."""
    s, kept = hub.states, [parts.pins, parts.pinned]
    head.pin(compare.pin, [s.visit, s.said, s.told, parts.pins], kept, **QUICK)
    parts.pinned.unpin(compare.unpin, parts.pins, kept, **QUICK)
    parts.pinned.unpin_all(compare.unpin_all, None, kept, **QUICK)
    back = parts.pinned.restore(
        compare.restore, [s.visit, parts.pins], [parts.bench, parts.settings], **QUICK
    )
    settled = back.success(hub.steering.settle, [s.visit, parts.bench], parts.bench, **QUICK)
    hub.then_steer(settled)
