"""Looking at the picture's neurons: patches, cards, search, heat. One method per action.

Each method takes what the browser holds and the visitor's own records, and returns what to show. Keeps
nothing of a visitor, so any number of them may share it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import gradio as gr

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import TextMatch
from explorer.session import Session, View
from explorer.ui.exemplars import Strips
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Entry, Focus, Heading, Listing, Visit
from explorer.ui.workspace.cards import cards
from explorer.ui.workspace.stage import stage

TOP = 20
FOUND = 8
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


class Looking:
    """The actions on pictures and neurons of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.strips = Strips(session)

    def show(self, visit: Visit | None, focus: Focus) -> Shown:
        """Draw the picture and the cards for a focus. For all parts of the page."""
        view = there(visit).view
        visit.study.focus = focus
        marked = [list(cell) for cell in focus.patches] or None
        return Shown(
            focus, self._stage(there(visit), focus), self._cards(view, focus), gr.update(marked=marked)
        )

    @plainly
    def pick_patch(self, visit: Visit | None, focus: Focus, event: gr.EventData) -> Shown:
        """The neurons of one patch."""
        view = there(visit).view
        place = checks.cell(sent(event, "row"), sent(event, "col"), view.grid)
        top = view.top_at(place.row, place.col, 1)
        neuron = top[0].neuron if top else None
        return self.show(visit, Focus("patches", focus.pool, (place,), neuron=neuron))

    @plainly
    def whole_picture(self, visit: Visit | None, event: gr.EventData) -> Shown:
        """Back to the neurons of the whole picture, pooled by mean or maximum."""
        pool = checks.one_of(sent(event, "pool") or "mean", "pooling", ("mean", "max"))
        return self.show(visit, Focus(pool=pool))  # type: ignore[arg-type]

    @plainly
    def pick_neuron(self, visit: Visit | None, focus: Focus, event: gr.EventData) -> Shown:
        """Show where a neuron fires; picking it again takes the heat off."""
        neuron = checks.whole(sent(event, "neuron"), "neuron", there(visit).view.n_neurons)
        return self.show(visit, replace(focus, neuron=None if focus.neuron == neuron else neuron))

    @plainly
    def find(self, visit: Visit | None, focus: Focus, words: object) -> Shown:
        """The neurons that stand for a concept, else those whose labels, words or notes say it."""
        concept = checks.text(words, "the concept", checks.LONGEST_CONCEPT)
        if not concept:
            raise ExplorerError("type what to look for, for instance: fork and knife")
        found = self.session.find(concept, 1) or self._said(there(visit).view, concept)
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
        return stage(visit.photo, visit.title, view.grid, values, name, focus.patches)

    def _cards(self, view: View, focus: Focus) -> str:
        listing = self.listing(view, focus)
        told = (listing.heading, listing.entries, focus.neuron, self.strips, listing.empty, listing.above)
        return cards(*told)

    def listing(self, view: View, focus: Focus) -> Listing:
        """Which neurons the cards show for a focus."""
        if focus.source == "given" and focus.listing is not None:
            return focus.listing
        if focus.source == "patches" and focus.patches:
            row, col = focus.patches[0]
            heading = Heading(f"Patch {row + 1}, {col + 1}", "Strongest at this row and column.")
            entries, empty = view.top_at(row, col, TOP), "No neuron fires at this patch."
        elif focus.source == "concept":
            return self._sought(view, focus.concept)
        else:
            pooled = "on average over its patches" if focus.pool == "mean" else "at their strongest patch"
            heading = Heading("Whole picture", f"Strongest {pooled}.", focus.pool)
            entries, empty = view.top(TOP, focus.pool), "No neuron fires in this picture."
        return Listing(heading, tuple(Entry(*one) for one in entries), empty)

    def _sought(self, view: View, concept: str) -> Listing:
        found = self.session.find(concept, FOUND)
        said = [] if found else self._said(view, concept)
        note = "Their labels, words or notes say it." if said else "Best first."
        heading = Heading(f"“{concept}”", f"{note} With their peak in this picture.", found=bool(found))
        entries = tuple(Entry(hit.neuron, float(view.map(hit.neuron).max())) for hit in found or said)
        return Listing(heading, entries, "No neuron is known for this. Try one word, such as cake or dog.")
