"""What people keep of neurons: own names, notes, favourites and lists. One method per action.

Keeps nothing of a visitor; what people write goes to the store, where everybody sees it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

import gradio as gr

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import FAVOURITES, Note
from explorer.session import Session
from explorer.ui.hub import Rules
from explorer.ui.marks import name_of
from explorer.ui.neuron import desk
from explorer.ui.plain import plainly
from explorer.ui.sent import sent

LISTS_NAMED = 12
"""Lists whose neurons are shown; the gallery filters by any."""

FILE_NAME = "neuron-notes.json"


class Redrawn(NamedTuple):
    """What changes when people keep something, in the order of the page's outputs (`layout.wire`)."""

    head: object
    keeping: object


class Keeping:
    """The actions on what people keep of the neurons of one session."""

    def __init__(self, session: Session, rules: Rules) -> None:
        self.session, self.rules = session, rules

    @plainly
    def star(self, neuron: int | None, event: gr.EventData) -> Redrawn:
        """Put the open neuron on the favourites, or take it off."""
        there = self._writable(neuron)
        change = self.session.add_to_list if sent(event, "on") is True else self.session.remove_from_list
        change(FAVOURITES, there)
        return self._redrawn(there)

    @plainly
    def enlist(self, neuron: int | None, event: gr.EventData) -> Redrawn:
        """Put the open neuron on a list, which may be new."""
        there = self._writable(neuron)
        name = checks.text(sent(event, "list"), "the name of the list", desk.LONGEST_LIST)
        if not name:
            raise ExplorerError("give the list a name, for instance: tableware")
        self.session.add_to_list(name, there)
        return self._redrawn(there)

    @plainly
    def unlist(self, neuron: int | None, event: gr.EventData) -> Redrawn:
        """Take the open neuron off a list."""
        there = self._writable(neuron)
        name = checks.text(sent(event, "list"), "the name of the list", desk.LONGEST_LIST)
        self.session.remove_from_list(name, there)
        return self._redrawn(there)

    @plainly
    def save(self, neuron: int | None, event: gr.EventData) -> Redrawn:
        """Keep the own name and the note. Of two people who write at once the later wins, and is told what
        the other wrote."""
        there = self._writable(neuron)
        meant = checks.whole(sent(event, "neuron"), "neuron", self.session.sae.n_neurons)
        if meant != there:
            raise ExplorerError(f"neuron {there} is open now; go back to neuron {meant} to save its note")
        name = checks.text(sent(event, "name"), "the name", desk.LONGEST_NAME)
        note = _written(sent(event, "note"))
        before = self.session.note(there)
        self.session.set_note(there, name, note)
        held = kept(self.session, there)
        replaced = before if before and before.changed != sent(event, "changed") else None
        if replaced and held.note and replaced[1:3] == held.note[1:3]:
            replaced = None
        return self._redrawn(there, str(time.time_ns()), replaced)

    @plainly
    def export(self) -> dict:
        """All notes and lists as a file for the browser to save."""
        if self.session.store is None:
            raise ExplorerError("there is no store, so nobody has kept anything")
        text = json.dumps(self.session.export_notes(), ensure_ascii=False, indent=1)
        return gr.update(file=json.dumps({"name": FILE_NAME, "text": text, "at": time.time_ns()}))

    def _writable(self, neuron: int | None) -> int:
        """The open neuron, once it is clear that notes may be written."""
        if self.rules.read_only:
            raise ExplorerError("this page is read-only: names, notes and lists cannot be changed here")
        if self.session.store is None:
            raise ExplorerError("there is no store to keep names, notes and lists in; build one first")
        if neuron is None:
            raise ExplorerError("no neuron is open; choose one in the gallery")
        return neuron

    def _redrawn(self, neuron: int, saved: str = "", replaced: Note | None = None) -> Redrawn:
        held = kept(self.session, neuron)
        head = desk.head(neuron, self.session.sae.n_neurons, self.session.summary(neuron), held, True)
        return Redrawn(head, desk.keeping(neuron, held, True, saved, replaced))


def kept(session: Session, neuron: int) -> desk.Kept:
    """What people keep of a neuron."""
    everything = tuple(session.lists())[:LISTS_NAMED]
    linked = [neuron for one in everything for neuron in one.neurons[: desk.MOST_LINKS]]
    return desk.Kept(session.note(neuron), session.lists_of(neuron), everything, names_of(session, linked))


def names_of(session: Session, neurons: Sequence[int]) -> dict[int, str]:
    """What people read for each of several neurons: their own name, else the label, else the number."""
    several = list(dict.fromkeys(neurons))
    summaries, notes = session.summaries(several), session.notes(several)
    own = {neuron: note.name for neuron, note in notes.items()}
    return {neuron: name_of(neuron, summaries[neuron], own.get(neuron, "")) for neuron in several}


def _written(value: object) -> str:
    """A note as it was typed, with its lines. Raises ExplorerError."""
    if value is not None and not isinstance(value, str):
        raise ExplorerError(f"the note {str(value)[:40]!r} is not a text")
    note = (value or "").replace("\r\n", "\n").strip()
    if len(note) > desk.LONGEST_NOTE:
        raise ExplorerError(f"the note has {len(note):,} characters; use at most {desk.LONGEST_NOTE:,}")
    return note
