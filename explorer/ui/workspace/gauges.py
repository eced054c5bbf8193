"""What steering did to the picture's patches, as small bars; and what the model says of the SAE alone.

One method per action. `Alone` is a visitor's record; nothing of a visitor is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import NamedTuple

import gradio as gr

from explorer.cases import rows, settings
from explorer.session import Session, View
from explorer.steer import Gauges
from explorer.ui.buttons import does
from explorer.ui.plain import plainly
from explorer.ui.sent import there
from explorer.ui.visit import Said, Told, Visit
from explorer.ui.workspace import panels
from explorer.ui.workspace.words import mark


class Gauge(NamedTuple):
    """What a gauge is called, which of the `Gauges` it shows, and what that means."""

    name: str
    field: str
    note: str
    meaning: str


GAUGES = (
    Gauge(
        "Change",
        "change",
        "over the whole picture",
        "How far the patches moved, against their own length, over the whole picture.",
    ),
    Gauge(
        "Largest",
        "largest",
        "at a single patch",
        "The same at the patch that moved furthest. Far above 100 % the model sees nothing it knows.",
    ),
    Gauge(
        "SAE error",
        "error",
        "of patches unexplained",
        "What the SAE does not explain of the untouched patches, as a share of their variance.",
    ),
    Gauge(
        "Error kept",
        "error_kept",
        "of it is still there",
        "100 % when the change is added to the patches; 0 % when the SAE's reconstruction replaces them.",
    ),
)


@dataclass(frozen=True, eq=False)
class Alone:
    """What the model says when it is fed the SAE's bare reconstruction, for one visitor.

    open: whether the panel shows it; view, said, length: what it was asked of, None while nothing was; text:
    the answer; change: its gauge of that name.
    """

    open: bool = False
    view: View | None = None
    said: Said | None = None
    length: int = 0
    text: str = ""
    change: float = 0.0


def percent(value: float) -> str:
    """A share as a person reads it; it may be negative or above one."""
    shown = f"{100 * value:.1f}" if abs(value) < 0.0995 and round(1000 * value) else f"{100 * value:,.0f}"
    return f"{'0' if shown in ('-0', '0.0', '-0.0') else shown.replace('-', '−')} %"


def bars(found: Gauges | None) -> str:
    """The gauges as HTML; without any, empty ones that take the same room."""
    items = "".join(_bar(gauge, None if found is None else getattr(found, gauge.field)) for gauge in GAUGES)
    return f'<dl class="gauges{"" if found else " none"}" aria-label="What steering did">{items}</dl>'


def _bar(gauge: Gauge, value: float | None) -> str:
    """One gauge: name, value, bar (full at 100 %), and a few words."""
    width = 0.0 if value is None else min(max(value, 0.0), 1.0)
    shown = "–" if value is None else percent(value)
    over = " over" if value is not None and value > 1.005 else ""
    return (
        f'<div title="{escape(gauge.meaning)}"><dt>{gauge.name}</dt><dd class="value">{shown}</dd>'
        f'<dd class="bar{over}" aria-hidden="true"><i style="width:{100 * width:.1f}%"></i></dd>'
        f'<dd class="note">{escape(gauge.note)}</dd></div>'
    )


def panel(alone: Alone, growing: str | None = None) -> str:
    """The button, and, once it is open, what the SAE alone leads to, with the changed words marked.

    growing: the text so far, while it is in the making.
    """
    label = "Hide the SAE alone" if alone.open else "Show the SAE alone"
    meaning = "What the model says of the SAE's bare reconstruction, with no neuron changed."
    button = (
        f'<button type="button" class="toggle" {does("arm")} aria-expanded="{str(alone.open).lower()}" '
        f'title="{escape(meaning)}">{label}</button>'
    )
    if not alone.open:
        return f'<div class="head">{button}</div>'
    if growing is not None:
        said = panels.answer(escape(growing), growing=True)
        return f'<div class="head">{button}<span class="quiet">{escape(meaning)}</span></div>{said}'
    if alone.said is None:
        return f'<div class="head">{button}</div>{panels.hint("Once the model has answered.")}'
    marked = mark(alone.said.text, alone.text, buttons=False)
    many = (
        f"{marked.changes} change{'s' if marked.changes > 1 else ''}" if marked.changes else "the same words"
    )
    note = f"Patches changed by {percent(alone.change)}; {many}."
    text = f'<p class="text" tabindex="0" aria-busy="false">{marked.after or "(no words)"}</p>'
    return f'<div class="head">{button}<span class="quiet">{note}</span></div>{text}'


class Gauging:
    """The actions of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @plainly
    def show(self, visit: Visit | None, told: Told | None) -> str:
        """The gauges of the present steered answer."""
        if visit is None or told is None:
            return bars(None)
        view, asked = visit.view, settings.parse(told.settings)
        edits = rows.edits(rows.parse(told.bench, view), view.grid, partial(self.session.where, view))
        return bars(self.session.steered(view, edits, asked.contrast(), asked.replace).gauges)

    @plainly
    def toggle(
        self, visit: Visit | None, said: Said | None, how: str, alone: Alone | None
    ) -> Iterator[tuple[str, Alone]]:
        """Open the panel, with its answer, or close it."""
        former = alone or Alone()
        if former.open:
            closed = replace(former, open=False)
            yield panel(closed), closed
            return
        yield from self._asked(there(visit), said, how, replace(former, open=True))

    @plainly
    def renew(
        self, visit: Visit | None, said: Said | None, how: str, alone: Alone | None
    ) -> Iterator[tuple[object, object]]:
        """The untouched answer has changed: an open panel follows."""
        if visit is None or alone is None or not alone.open:
            yield gr.skip(), gr.skip()
            return
        yield from self._asked(visit, said, how, alone)

    def _asked(self, visit: Visit, said: Said | None, how: str, alone: Alone) -> Iterator[tuple[str, Alone]]:
        """The open panel for an answer, which is asked for unless it is there already."""
        if said is None:
            waiting = Alone(open=True)
            yield panel(waiting), waiting
            return
        length = settings.parse(how).max_new_tokens
        if alone.view is visit.view and (alone.said, alone.length) == (said, length):
            yield panel(alone), alone
            return
        text, visitor = "", (visit.turn, "the SAE alone")
        yield panel(alone, growing=""), replace(alone, said=None)
        options = settings.Settings(replace=True, max_new_tokens=length).options()
        with closing(self.session.stream(visit.view, said.prompt, visitor=visitor, **options)) as growing:
            for text in growing:
                yield panel(alone, growing=text), gr.skip()
        change = self.session.steered(visit.view, replace=True).gauges.change
        known = Alone(True, visit.view, said, length, text, change)
        yield panel(known), known
