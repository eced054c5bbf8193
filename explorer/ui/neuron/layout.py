"""One neuron's own page, in place of the gallery's list: layout and events.

While a neuron is open, assets/ui/neuron.css hides the list, which therefore stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from explorer.ui.hub import EVERYWHERE, LATEST, QUICK, QUIET, Hub, html
from explorer.ui.neuron.keeping import Keeping
from explorer.ui.neuron.lens import DIALOG
from explorer.ui.neuron.pages import Pages


class Neuron(NamedTuple):
    """The components. open: the number of the open neuron, a visitor's own, or None."""

    open: gr.State
    head: gr.HTML
    sheet: gr.HTML
    here: gr.HTML
    keeping: gr.HTML
    numbers: gr.HTML
    lens: gr.HTML

    @property
    def emitters(self) -> tuple[gr.HTML, ...]:
        """Those whose buttons put, pick and open neurons."""
        return (self.head, self.sheet, self.keeping)


def draw() -> Neuron:
    """Lay out the components inside the present tab."""
    opened = gr.State(None)
    with gr.Column(elem_id="neuron-page", min_width=0):
        head = html("neuron-head", "", "neuron.js", (*EVERYWHERE, "leave", "star", "attempt"))
        with gr.Row(elem_id="neuron-body"):
            with gr.Column(elem_id="neuron-left", min_width=0):
                sheet = html("neuron-sheet", "", "buttons.js", (*EVERYWHERE, "similar"))
            with gr.Column(elem_id="neuron-right", min_width=0):
                here = html("neuron-here")
                numbers = html("neuron-numbers")
                events = (*EVERYWHERE, "save", "enlist", "unlist", "export")
                keeping = html("neuron-keeping", "", "neuron.js", events, file=None)
        lens = html("neuron-lens", "", "neuron-lens.js", ("enlarge",), html_template=DIALOG)
    return Neuron(opened, head, sheet, here, keeping, numbers, lens)


def wire(
    hub: Hub,
    parts: Neuron,
    refresh: Callable[[Any], Any] | None = None,
    show_similar: Callable[[Any], gr.events.Dependency] | None = None,
) -> None:
    """Tie every action to its handler. refresh: draws the gallery's list anew after an event;
    show_similar: lets an event that carries a neuron list those like it there.

    What may be refused goes through the queue: the browser shows no message of events outside it.
    """
    pages = Pages(hub.looking, hub.rules)
    keeping = Keeping(hub.session, hub.rules)
    s = hub.states
    shown = [parts.open, parts.head, parts.sheet, parts.here, parts.keeping, parts.numbers]
    for part in hub.emitters:
        hub.then_go(_paged(part)(pages.open, s.visit, shown, **LATEST), "gallery")
    hub.page.load(pages.linked, s.visit, [*shown, hub.tabs], **QUIET)
    left = parts.head.leave(pages.leave, None, shown, **QUICK)
    if refresh is not None and hub.session.store is not None:
        refresh(left)
    if show_similar is not None and hub.session.store is not None:
        show_similar(parts.sheet.similar).success(pages.leave, None, shown, **QUICK)
    s.visit.change(pages.look_again, [s.visit, parts.open], [parts.here, parts.numbers], **QUICK)
    tried = parts.head.attempt(pages.attempt, [s.visit, s.focus], hub.shown, **LATEST)
    hub.then_go(tried, "workspace")
    parts.lens.enlarge(pages.enlarge, parts.open, parts.lens, **LATEST)

    kept = [parts.head, parts.keeping]
    parts.head.star(keeping.star, parts.open, kept, **LATEST)
    parts.keeping.enlist(keeping.enlist, parts.open, kept, **LATEST)
    parts.keeping.unlist(keeping.unlist, parts.open, kept, **LATEST)
    saved = parts.keeping.save(keeping.save, parts.open, kept, **LATEST)
    saved.success(pages.show_cards, [s.visit, s.focus], hub.shown, **QUICK)
    parts.keeping.export(keeping.export, None, parts.keeping, **LATEST)


def _paged(part: gr.HTML) -> Callable[..., gr.events.Dependency]:
    """The event "page" of a part. `part.page` is the framework's own: the name of the web page it is on."""
    return part.__getattr__("page")
