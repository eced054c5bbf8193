"""The gallery tab: all neurons as cards, filters, search, charts of the whole SAE. Layout and events."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import gradio as gr

from explorer.ui import notices
from explorer.ui.gallery.browsing import Browsing
from explorer.ui.gallery.tiles import LOADING
from explorer.ui.hub import EVERYWHERE, LATEST, QUICK, Hub, html
from explorer.ui.workspace.looking import Looking

EVENTS = (*EVERYWHERE, "alter", "star", "alike", "similar")


class Gallery(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons.

    list_column: everything but a neuron's own page; filters: holds the query as its value, as JSON.
    """

    emitters: tuple[gr.HTML, ...]
    list_column: gr.Column
    filters: gr.HTML
    head: gr.HTML
    tiles: gr.HTML
    charts: gr.Column
    chart: gr.Plot
    caption: gr.HTML
    points: gr.HTML

    @property
    def shown(self) -> list[Any]:
        """Outputs of a handler that returns `browsing.Shown`."""
        return [self.filters, self.head, self.tiles, self.charts, self.chart, self.caption]


def draw() -> Gallery:
    """Lay out the components inside the present tab."""
    with gr.Column(elem_id="gallery-list") as column:
        choices = {"facets": None, "classes": None, "labels": None, "lists": None, "go": None}
        form = '<div class="filters"></div>'
        filters = html("gallery-filters", "", "gallery-filters.js", EVENTS, html_template=form, **choices)
        with gr.Column(elem_id="gallery-results", min_width=0):
            head = html("gallery-head", "", "gallery.js", EVENTS)
            tiles = html("gallery-tiles", LOADING, "gallery.js", EVENTS)
            with gr.Column(elem_id="gallery-charts", visible=False, min_width=0) as charts:
                chart = gr.Plot(show_label=False, container=False, elem_id="gallery-chart")
                caption = html("gallery-caption", elem_classes="caption")
            points = html("gallery-points", "", "gallery-points.js", EVERYWHERE)
    emitters = (filters, head, tiles, points)
    return Gallery(emitters, column, filters, head, tiles, charts, chart, caption, points)


def wire(hub: Hub, parts: Gallery) -> None:
    """Tie every action to its handler."""
    if hub.session.store is None:
        parts.tiles.value = no_store(notices.trouble(hub.session, hub.rules))
        parts.list_column.elem_classes = ["bare"]
        return
    browsing = _browsing(hub)
    s, held, shown = hub.states, parts.filters, parts.shown
    held.ready(browsing.ready, held, shown, **LATEST)
    held.input(browsing.filtered, held, shown, **LATEST)
    held.alike(browsing.alike, [held, s.visit, s.focus], shown, **LATEST)
    held.random(browsing.random, None, held, **QUICK)
    for part in (held, parts.head, parts.tiles):
        part.alter(browsing.alter, held, shown, **LATEST)
        part.star(browsing.star, held, shown, **LATEST)
    show_similar(hub, parts, parts.tiles.similar)


_OF_PAGES: WeakKeyDictionary[Looking, Browsing] = WeakKeyDictionary()
"""The one `Browsing` of each page that is served, so that its charts are kept once."""


def _browsing(hub: Hub) -> Browsing:
    """The actions of this page's gallery."""
    if hub.looking not in _OF_PAGES:
        _OF_PAGES[hub.looking] = Browsing(hub.session, hub.looking.strips, hub.rules.read_only)
    return _OF_PAGES[hub.looking]


def show_similar(hub: Hub, parts: Gallery, listener: Callable[..., Any]) -> gr.events.Dependency:
    """Let an event that carries a neuron list those like it in the gallery.

    listener: the event of some part, as in `show_similar(hub, shown, one.card.similar)`. Chain to the
    result whatever brings the list into sight.
    """
    return listener(_browsing(hub).similar, parts.filters, parts.shown, **LATEST)


def refresh(hub: Hub, parts: Gallery, event: gr.events.Dependency) -> gr.events.Dependency:
    """Once an event has succeeded, draw the list anew: names, favourites and lists may have changed."""
    return event.success(_browsing(hub).ready, parts.filters, parts.shown, **LATEST)


def no_store(trouble: str) -> str:
    """What the tab says without a store. trouble: why, and after its last colon what to run."""
    why, colon, command = trouble.rpartition(": ")
    run = f"<pre><code>{escape(command)}</code></pre>" if colon else ""
    said = (why if colon else trouble).removesuffix("; build one with")
    return (
        '<div class="none"><h2>There is nothing to browse yet</h2>'
        "<p>The gallery shows what an index of pictures found for every neuron: "
        f"{escape(said)}. Build one, then start the page again:</p>{run}"
        "<p>For your own pictures put <code>--images FOLDER</code> in place of the scenes, another folder "
        "after <code>--out</code>, and serve it with <code>python app.py --store FOLDER</code>. "
        "Pictures, sliders and answers of the workspace work meanwhile.</p></div>"
    )
