"""Browsing all neurons: filters, pages, order, charts, search by likeness. One method per action.

Each method takes the query as the browser holds it and returns what to show. Keeps nothing of a visitor, so
any number of them may share it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from html import escape
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import FAVOURITES, Activation, NeuronPage
from explorer.session import Session
from explorer.ui.exemplars import Strips
from explorer.ui.gallery import figures
from explorer.ui.gallery.facets import Facets
from explorer.ui.gallery.head import empty, head
from explorer.ui.gallery.query import MOST_GIVEN, PER_PAGE, Query, dump, parse
from explorer.ui.gallery.tiles import pager, tiles
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Focus, Visit

FIGURES = {"overview": figures.overview_figure, "map": figures.map_figure}
KEPT_FIGURES = 6
"""Charts of all neurons, without filters: each view in each colour."""


Own = tuple[tuple[int, str], ...]
"""Neurons with the names that people gave them."""


class Shown(NamedTuple):
    """What changes when the query does, in the order of the page's outputs (`layout.shown`)."""

    filters: dict
    head: str
    tiles: dict
    charts: dict
    chart: Any
    caption: str | dict


class Browsing:
    """The actions on all neurons of one session's store. read_only: nobody changes favourites."""

    def __init__(self, session: Session, strips: Strips, read_only: bool = False) -> None:
        self.session, self.strips, self.read_only = session, strips, read_only
        self.facets = Facets(session)
        self._whole = lru_cache(maxsize=KEPT_FIGURES)(self._figure)

    @cached_property
    def n_neurons(self) -> int:
        """How many neurons the store knows."""
        return self.session.store.manifest.n_neurons if self.session.store is not None else 0

    def query(self, value: object, changes: Mapping[str, object] | None = None) -> Query:
        """What the browser asks for. Raises ExplorerError."""
        if self.session.store is None:
            raise ExplorerError("there is no store to browse; build one with: python -m index build")
        return parse(value, self.n_neurons, changes)

    @plainly
    def ready(self, value: object) -> Shown:
        """The gallery has come into sight: offer the filters and show what the query asks for."""
        shown = self.show(self.query(value))
        choices = {
            "facets": self.facets.ranges,
            "classes": self.facets.classes,
            "labels": self.facets.labels,
            "lists": self.facets.lists(),
        }
        return shown._replace(filters={**shown.filters, **choices})

    @plainly
    def filtered(self, value: object) -> Shown:
        """A filter was moved in the filters' own part, which therefore stays as it is."""
        return self.show(self.query(value))._replace(filters=gr.skip())

    @plainly
    def alter(self, value: object, event: gr.EventData) -> Shown:
        """A button changed some fields of the query: page, view, order, a filter."""
        changes = event._data if isinstance(event._data, dict) else {}
        return self.show(self.query(value, changes))

    @plainly
    def star(self, value: object, event: gr.EventData) -> Shown:
        """Put a neuron among the favourites, or take it off."""
        if self.read_only:
            raise ExplorerError("this page is read-only; nobody can change favourites here")
        query = self.query(value)
        neuron = checks.whole(sent(event, "neuron"), "neuron", self.n_neurons)
        change = self.session.add_to_list if sent(event, "on") is True else self.session.remove_from_list
        change(FAVOURITES, neuron)
        shown = self.show(query)
        return shown._replace(filters={**shown.filters, "lists": self.facets.lists()})

    @plainly
    def alike(self, value: object, visit: Visit | None, focus: Focus | None, event: gr.EventData) -> Shown:
        """The neurons whose exemplars look like the visitor's picture, or like its marked patches."""
        origin = checks.one_of(sent(event, "what"), "search by", ("picture", "patches"))
        view = there(visit).view
        if origin == "picture":
            found = self.session.by_picture(view, min(MOST_GIVEN, self.n_neurons))
        else:
            patches = () if focus is None else focus.patches
            if not patches:
                raise ExplorerError("no patch is marked; mark some on the picture in the workspace first")
            mask = np.zeros((view.grid.rows, view.grid.cols), np.bool_)
            mask[tuple(np.array(patches).T)] = True
            found = self.session.by_patches(view, mask, min(MOST_GIVEN, self.n_neurons))
        return self._given(value, found, origin)

    @plainly
    def similar(self, value: object, event: gr.EventData) -> Shown:
        """The neurons whose directions are nearest to that of one, which comes first."""
        neuron = checks.whole(sent(event, "neuron"), "neuron", self.n_neurons)
        found = self.session.similar(neuron, min(MOST_GIVEN, self.n_neurons) - 1)
        return self._given(value, [Activation(neuron, 1.0), *found], "similar", neuron)

    def _given(self, value: object, found: list[Activation], origin: str, like: int | None = None) -> Shown:
        """Show a list in its order, in place of the former filters."""
        former = self.query(value)
        given = tuple(dict.fromkeys(one.neuron for one in found))
        return self.show(
            Query(given=given, origin=origin, like=like, sort="given", view=former.view, colour=former.colour)
        )

    @plainly
    def random(self) -> dict:
        """Any neuron that is not dead; the filters' script asks for its page."""
        if self.session.store is None:
            raise ExplorerError("there is no store to browse; build one with: python -m index build")
        return gr.update(go={"neuron": self.session.random_neuron(), "once": secrets.token_hex(4)})

    def show(self, query: Query) -> Shown:
        """All that the gallery shows for a query."""
        query, page = self._page(query)
        cards = query.view == "cards"
        line = head(query, page.total, self.n_neurons)
        if cards:
            return Shown(
                gr.update(value=dump(query)),
                line,
                gr.update(value=self.cards(query, page), visible=True),
                gr.update(visible=False),
                gr.skip(),
                gr.skip(),
            )
        chosen = self._chosen(query) if query.active() else None
        figure = (
            self._whole(query.view, query.tint, self._own())
            if chosen is None
            else self._figure(query.view, query.tint, self._own(), chosen)
        )
        words = figures.caption(query.view, self.session.overview(), chosen)
        hidden = gr.update(value="", visible=False)
        return Shown(
            gr.update(value=dump(query)),
            line,
            hidden,
            gr.update(visible=True),
            figure,
            f"<p>{escape(words)}</p>",
        )

    def _page(self, query: Query) -> tuple[Query, NeuronPage]:
        """The neurons to show; a page behind the last one becomes the last."""
        page = self.session.browse(query.wanted(), query.page * PER_PAGE, PER_PAGE)
        last = max(-(-page.total // PER_PAGE) - 1, 0)
        if query.page <= last:
            return query, page
        return replace(query, page=last), self.session.browse(query.wanted(), last * PER_PAGE, PER_PAGE)

    def cards(self, query: Query, page: NeuronPage) -> str:
        """The tiles of a page and the way to the others, or what to loosen."""
        if not page.total:
            one_less = {name: query.without(name).wanted() for name in query.active()}
            return empty(
                query, {name: self.session.browse(less, 0, 1).total for name, less in one_less.items()}
            )
        starred = None if self.read_only else self._favourites()
        shown = tiles(page.neurons, self.strips, starred)
        return shown + pager(query.page, -(-page.total // PER_PAGE))

    def _favourites(self) -> frozenset[int]:
        return frozenset(
            neuron for one in self.session.lists() if one.name == FAVOURITES for neuron in one.neurons
        )

    def _chosen(self, query: Query) -> np.ndarray:
        """Which neurons pass the filters, [F] bool."""
        plain = replace(query, sort="neuron", descending=False)
        chosen = np.zeros(self.n_neurons, np.bool_)
        chosen[list(self.session.browse(plain.wanted(), 0, self.n_neurons).neurons)] = True
        return chosen

    def _figure(self, view: str, colour: str, own: Own = (), chosen: np.ndarray | None = None) -> Any:
        names = self._labels
        if own:
            names = list(names)
            for neuron, name in own:
                names[neuron] = escape(name)
        return FIGURES[view](self.session.overview(), names, chosen, colour)

    def _own(self) -> Own:
        """People's names of neurons."""
        return tuple((note.neuron, note.name) for note in self.session.notes().values() if note.name)

    @cached_property
    def _labels(self) -> list[str]:
        """The label of every neuron as plotly's HTML, or the word neuron."""
        return [escape(str(label).replace("_", " ")) or "neuron" for label in self.session.overview().labels]
