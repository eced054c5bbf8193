"""Looking at the picture's neurons: patches, cards, search, heat. One method per action.

Each method takes what the browser holds and the visitor's own records, and returns what to show. Keeps
nothing of a visitor, so any number of them may share it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import gradio as gr
import numpy as np

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import Activation, Cell, Grid, TextMatch
from explorer.session import Session, View
from explorer.ui.exemplars import Strips
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Entry, Focus, Heading, Listing, Visit
from explorer.ui.workspace.cards import Beside, cards
from explorer.ui.workspace.stage import stage
from explorer.ui.workspace.suggesting import known, wanted

TOP = 20
FOUND = 8
SUGGESTED = 6
SAID = 60
"""Matches of a text that are looked at; those that fire in the picture are shown first."""


class Shown(NamedTuple):
    """What changes when the focus does, in the order of the page's outputs (`Hub.shown`).

    bench: an update of what the bench takes as the marked patches.
    """

    focus: Focus
    stage: str
    cards: str
    bench: dict


UNCHANGED = Shown(*(gr.skip() for _ in Shown._fields))


class Looking:
    """The actions on pictures and neurons of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.strips = Strips(session)

    def show(self, visit: Visit | None, focus: Focus, look: int | None = None) -> Shown:
        """Draw the picture and the cards for a focus. For all parts of the page.

        look: the number of the request (`Visit.study.looks`), None for one that begins now. UNCHANGED when
        the reply to a newer request, or another picture, has been shown meanwhile.
        """
        view = there(visit).view
        look = look or visit.study.looks.ask()
        marked = [list(cell) for cell in focus.patches] or None
        shown = Shown(focus, self._stage(visit, focus), self._cards(view, focus), gr.update(marked=marked))
        return shown if visit.study.land(look, focus) else UNCHANGED

    @plainly
    def pick_patches(self, visit: Visit | None, focus: Focus | None, event: gr.EventData) -> Shown:
        """The neurons of the marked patches; without any, those of the whole picture.

        The chosen neuron stays chosen if it fires there, else the strongest takes its place.
        """
        view, focus = there(visit).view, focus or Focus()
        cells = _cells(sent(event, "cells"), view.grid)
        if not cells:
            return self.show(visit, Focus(pool=focus.pool, neuron=focus.neuron))
        top = [one.neuron for one in _among(view, cells, focus.pool, TOP)]
        kept = focus.neuron if focus.neuron in top else top[0] if top else None
        return self.show(visit, Focus("patches", focus.pool, cells, neuron=kept))

    @plainly
    def whole_picture(self, visit: Visit | None, focus: Focus | None) -> Shown:
        """Back to the neurons of the whole picture, with no patch marked."""
        there(visit)
        return self.show(visit, Focus(pool=focus.pool if focus else "mean"))

    @plainly
    def choose_pool(self, visit: Visit | None, focus: Focus | None, event: gr.EventData) -> Shown:
        """Pool the patches by mean or maximum, those of the picture or the marked ones."""
        there(visit)
        pool = checks.one_of(sent(event, "pool"), "pooling", ("mean", "max"))
        former = focus if focus and focus.source == "patches" else Focus()
        return self.show(visit, replace(former, pool=pool))  # type: ignore[arg-type]

    @plainly
    def pick_neuron(self, visit: Visit | None, focus: Focus | None, event: gr.EventData) -> Shown:
        """Show where a neuron fires; picking it again takes the heat off."""
        neuron = checks.whole(sent(event, "neuron"), "neuron", there(visit).view.n_neurons)
        focus = focus or Focus()
        return self.show(visit, replace(focus, neuron=None if focus.neuron == neuron else neuron))

    @plainly
    def find(self, visit: Visit | None, focus: Focus | None, words: object) -> Shown:
        """The neurons that stand for a concept, else those whose labels, words or notes say it."""
        concept = checks.text(words, "the concept", checks.LONGEST_CONCEPT)
        if not concept:
            raise wanted(self.session, "type what to look for")
        view, focus = there(visit).view, focus or Focus()
        found = self.session.find(concept, 1) or self._said(view, concept)
        neuron = found[0].neuron if found else None
        return self.show(visit, Focus("concept", focus.pool, focus.patches, concept, neuron=neuron))

    def _said(self, view: View, words: str) -> list[TextMatch]:
        """Neurons whose labels, words or notes say it: people's own first, then the strongest here."""
        hits = self.session.search(words, SAID)
        return sorted(hits, key=lambda hit: (not hit.own, -float(view.map(hit.neuron).max())))[:FOUND]

    def _stage(self, visit: Visit, focus: Focus) -> str:
        view, neuron = visit.view, focus.neuron
        if neuron is None and focus.listing is not None:
            values, name = focus.listing.map, focus.listing.map_name
        else:
            values = None if neuron is None else view.map(neuron)
            name = "" if neuron is None else self.strips.title(neuron)
        return stage(visit.title, view.grid, values, name, focus.patches)

    def _cards(self, view: View, focus: Focus) -> str:
        listing = self.listing(view, focus)
        beside = Beside(focus.neuron, focus.source != "picture", self._values(focus))
        return cards(listing, beside, self.strips)

    def _values(self, focus: Focus) -> str:
        """What the listing's values are, for the histogram beside each; "" for no activations."""
        if focus.source == "given":
            return ""
        if focus.source == "picture" and self.session.store is not None:
            return "score" if self.session.store.manifest.score == focus.pool else "active"
        return "active"

    def listing(self, view: View, focus: Focus) -> Listing:
        """Which neurons the cards show for a focus."""
        if focus.source == "given" and focus.listing is not None:
            return focus.listing
        if focus.source == "concept":
            return self._sought(view, focus.concept)
        if focus.source == "patches" and focus.patches:
            heading = _patches_heading(focus)
            found, empty = _among(view, focus.patches, focus.pool, TOP), "No neuron fires here."
        else:
            pooled = "on average over its patches" if focus.pool == "mean" else "at their strongest patch"
            heading = Heading("Whole picture", f"Strongest {pooled}.", focus.pool)
            found, empty = view.top(TOP, focus.pool), "No neuron fires in this picture."
        return Listing(heading, tuple(Entry(*one) for one in found), empty)

    def _sought(self, view: View, concept: str) -> Listing:
        found = self.session.find(concept, FOUND)
        said = [] if found else self._said(view, concept)
        note = "Their labels, words or notes say it." if said else "Best first."
        note = f"{note} With their peak in this picture." if found or said else ""
        heading = Heading(f"“{concept}”", note, found=bool(found))
        entries = tuple(Entry(hit.neuron, float(view.map(hit.neuron).max())) for hit in found or said)
        return Listing(heading, entries, "" if entries else self._nothing())

    def _nothing(self) -> str:
        """What to say when a search finds nothing, with words that would find something."""
        names = known(self.session, SUGGESTED)
        such = f", such as {', '.join(names)}" if names else ""
        return f"No neuron is known for this. Try one plain word{such}, or mark a patch that shows it."


def _cells(value: object, grid: Grid) -> tuple[Cell, ...]:
    """Patches as a browser sends them, each once, row by row. Raises ExplorerError."""
    pairs = [] if value is None else value
    if not isinstance(pairs, list) or not all(isinstance(one, list) and len(one) == 2 for one in pairs):
        raise ExplorerError("the patches are not pairs of row and column")
    if len(pairs) > grid.rows * grid.cols:
        raise ExplorerError(f"{len(pairs)} patches are more than the {grid.rows * grid.cols} of this picture")
    return checks.cells(pairs, grid)


def _among(view: View, cells: tuple[Cell, ...], pool: str, k: int) -> list[Activation]:
    """The strongest neurons over some patches."""
    mask = np.zeros((view.grid.rows, view.grid.cols), np.bool_)
    mask[tuple(zip(*cells, strict=True))] = True
    return view.top_among(mask, k, pool)  # type: ignore[arg-type]


def _patches_heading(focus: Focus) -> Heading:
    """One patch by its place, several by their number."""
    if len(focus.patches) == 1:
        row, col = focus.patches[0]
        return Heading(f"Patch {row + 1}, {col + 1}", "Strongest at this row and column.")
    pooled = "on average over them" if focus.pool == "mean" else "at their strongest one"
    return Heading(f"{len(focus.patches)} patches", f"Strongest {pooled}.", focus.pool)
