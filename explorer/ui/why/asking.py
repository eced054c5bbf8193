"""A click on a word of an answer: the neurons behind it in the cards, repairs above them, one click to apply.

One method per action; keeps nothing of a visitor, so any number of them may share it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import gradio as gr

from explorer.analyze.context import InContext
from explorer.analyze.explaining import Explained, explain
from explorer.analyze.meaning import asked_at
from explorer.cases import checks, rows, settings
from explorer.errors import ExplorerError
from explorer.session import Session
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Focus, Listing, Said, Told, Visit
from explorer.ui.why import telling
from explorer.ui.workspace.looking import UNCHANGED, Looking, Shown
from explorer.ui.workspace.steering import Steering

PACE = 0.45
"""Seconds between two updates of the list while trials are made: it holds many pictures."""

MOST_EDITS = rows.MOST_ROWS


class Spoken(NamedTuple):
    """An answer that is explained: by whom it was said, and what a person should know of that.

    session: asks of the picture as it was steered; held: neurons on the bench, which are not listed.
    """

    session: Session | InContext
    prompt: str
    text: str
    length: int
    held: tuple[int, ...] = ()
    context: str = ""


@dataclass(frozen=True, eq=False)
class Asking:
    """The actions on words of one session's answers."""

    session: Session
    looking: Looking
    steering: Steering

    @plainly
    def why_said(
        self, visit: Visit | None, said: Said | None, how: str, event: gr.EventData
    ) -> Iterator[Shown]:
        """Explain a word of the untouched answer."""
        there(visit)
        if said is None:
            raise ExplorerError("the answer is not complete yet; wait for its full stop")
        spoken = Spoken(self.session, said.prompt, said.text, settings.parse(how).max_new_tokens)
        yield from self._explained(visit, spoken, sent(event, "at"))

    @plainly
    def why_told(self, visit: Visit | None, told: Told | None, event: gr.EventData) -> Iterator[Shown]:
        """Explain a word of the steered answer, with its edits in place."""
        there(visit)
        if told is None:
            raise ExplorerError("the steered answer is not complete yet; wait for its full stop")
        yield from self._explained(visit, self.spoken(visit, told), sent(event, "at"))

    def spoken(self, visit: Visit, told: Told) -> Spoken:
        """A steered answer as it is explained: asked of the picture with its edits."""
        view, how = visit.view, settings.parse(told.settings)
        bench = rows.parse(told.bench, view)
        edits = rows.edits(bench, view.grid, partial(self.session.where, view))
        context = InContext(self.session, tuple(edits), how.contrast(), how.replace)
        note = "Explained with the bench and the settings that it was steered with."
        if how.method != "plain" or how.temperature > 0:
            note += " Trials are answered by plain decoding."
        held = tuple(dict.fromkeys(edit.neuron for edit in edits))
        return Spoken(context, told.prompt, told.text, how.max_new_tokens, held, note)

    def concepts(self) -> tuple[str, ...]:
        """What is known as one thing although it has several words."""
        probe = None if self.session.store is None else self.session.store.probe()
        return () if probe is None else tuple(probe.concepts)

    def _explained(self, visit: Visit, spoken: Spoken, at: object) -> Iterator[Shown]:
        """The list as it grows, for as long as the cards show it."""
        place = checks.whole(at, "the place in the answer", max(len(spoken.text), 1))
        asked = asked_at(spoken.session, spoken.text, place, self.concepts())
        cancel, look = visit.study.begin(), visit.study.looks.ask()
        growing = explain(
            spoken.session,
            visit.view,
            spoken.prompt,
            spoken.text,
            asked,
            leave_out=spoken.held,
            max_new_tokens=spoken.length,
            cancel=cancel,
        )
        mine: list[Listing] = []
        known: Explained | None = None
        try:
            for known in _paced(growing):
                listing = telling.listing(known, self.looking.strips.title, spoken.context)
                yield self._show(visit, look, mine, listing)
                if not self._looked_at(visit, mine):
                    cancel.set()
            if known is not None and not known.complete:
                last = telling.listing(known, self.looking.strips.title, spoken.context, stopped=True)
                yield self._show(visit, look, mine, last)
        finally:
            cancel.set()

    def _show(self, visit: Visit, look: int, mine: list[Listing], new: Listing) -> Shown:
        """The list in the cards; the first time also on the picture. A neuron that was chosen stays so.

        look: the number of the click on the word; mine: the lists of this analysis so far.
        """
        if not mine:
            shown = self.looking.show(visit, Focus("given", listing=new), look)
            mine += [] if shown is UNCHANGED else [new]
            return shown
        while self._looked_at(visit, mine):
            look = visit.study.looks.answered  # no look of its own: that would make a click late
            shown = self.looking.show(visit, replace(visit.study.focus or Focus(), listing=new), look)
            if shown is not UNCHANGED:  # else a card was clicked while this was drawn
                mine.append(new)
                return shown._replace(stage=gr.skip(), bench=gr.skip())
        return UNCHANGED

    def _looked_at(self, visit: Visit, mine: list[Listing]) -> bool:
        """Whether the cards still show this analysis."""
        focus = visit.study.focus
        return not visit.study.left and focus is not None and focus.listing in mine

    def halt(self, visit: Visit | None) -> None:
        """Enough: what is found so far stays."""
        if visit is not None:
            visit.study.stop()

    @plainly
    def mend(self, visit: Visit | None, bench: str, event: gr.EventData) -> str:
        """A repair onto the bench, each neuron at its value; one that is there already is moved."""
        view = there(visit).view
        on_it = rows.parse(bench, view)
        for neuron, value, region in _edits(sent(event, "edits"), view.n_neurons):
            fresh = self.steering.row(view, neuron)
            row = replace(fresh, value=value, mode="set", region=region)
            places = [i for i, other in enumerate(on_it) if other.neuron == neuron]
            if places:
                on_it[places[0]] = replace(on_it[places[0]], value=value, mode="set", region=region)
            else:
                on_it = rows.add(on_it, row)
        return rows.dump(on_it)


def _edits(data: object, n_neurons: int) -> list[tuple[int, float, str]]:
    """The neurons, values and regions of a repair that a browser sent."""
    if not isinstance(data, list) or not 0 < len(data) <= MOST_EDITS:
        raise ExplorerError(f"a repair has 1 to {MOST_EDITS} edits; click one of the list again")
    found = []
    for one in data:
        if not isinstance(one, list) or len(one) != 3:
            raise ExplorerError("an edit of a repair is a neuron, a value and a region")
        neuron = checks.whole(one[0], "neuron", n_neurons)
        value = checks.finite(one[1], f"neuron {neuron}: the value")
        found.append((neuron, value, checks.one_of(one[2], "region", ("all", "active"))))
    return found


def _paced(growing: Iterator[Explained]) -> Iterator[Explained]:
    """The states of an explanation, those left out that follow too soon and bring no first result."""
    last, shown, now = 0.0, None, None
    for now in growing:
        news = shown is None or not now.total or now.complete or (bool(now.repairs) and not shown.repairs)
        if news or time.monotonic() - last >= PACE:
            yield (shown := now)
            last = time.monotonic()
    if now is not None and now is not shown:
        yield now
