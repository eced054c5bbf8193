"""Pinned steered answers: kept beside one another, with what made them, and put back on the bench.

One method per action. The pins are the visitor's, in `gr.State`; nothing of a visitor is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from explorer.cases import checks, rows, settings
from explorer.errors import ExplorerError
from explorer.ui.buttons import does
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Said, Told, Visit
from explorer.ui.workspace.words import mark

MOST_PINS = 12


@dataclass(frozen=True)
class Pin:
    """A steered answer as it stood.

    title: of the picture; prompt: the question; said, text: the untouched and the steered answer; bench,
    settings: what made it, as JSON; done: the same in words, one line each.
    """

    title: str
    prompt: str
    said: str
    text: str
    bench: str
    settings: str
    done: tuple[str, ...]


Pins = tuple[Pin, ...]


@plainly
def pin(visit: Visit | None, said: Said | None, told: Told | None, pins: Pins) -> tuple[Pins, str]:
    """Pin the present steered answer; one that is pinned already stays once."""
    view = there(visit).view
    if said is None or told is None:
        raise ExplorerError("there is no steered answer yet; move a slider on the bench first")
    on_it = [row for row in rows.parse(told.bench, view) if row.value is not None and not row.muted]
    done = (*map(rows.in_words, on_it), *settings.in_words(settings.parse(told.settings)))
    fresh = Pin(visit.title, told.prompt, said.text, told.text, told.bench, told.settings, done)
    if fresh in pins:
        return pins, drawn(pins)
    if len(pins) >= MOST_PINS:
        raise ExplorerError(f"{MOST_PINS} answers are pinned already; remove one first")
    kept = (*pins, fresh)
    return kept, drawn(kept)


@plainly
def unpin(pins: Pins, event: gr.EventData) -> tuple[Pins, str]:
    """Take a pin off."""
    place = _place(pins, event)
    kept = (*pins[:place], *pins[place + 1 :])
    return kept, drawn(kept)


@plainly
def unpin_all() -> tuple[Pins, str]:
    """Take all pins off."""
    return (), drawn(())


@plainly
def restore(visit: Visit | None, pins: Pins, event: gr.EventData) -> tuple[str, str]:
    """What made a pinned answer, for bench and settings."""
    there(visit)
    found = pins[_place(pins, event)]
    return found.bench, found.settings


def _place(pins: Pins, event: gr.EventData) -> int:
    if not pins:
        raise ExplorerError("no answer is pinned")
    return checks.whole(sent(event, "pin"), "the pinned answer", len(pins))


def drawn(pins: Pins) -> str:
    """The pins as HTML; "" without any."""
    if not pins:
        return ""
    items = "".join(_card(place, one) for place, one in enumerate(pins))
    clear = f'<button type="button" {does("unpin_all")}>Remove all</button>' if len(pins) > 1 else ""
    return f'<header><h2>Pinned answers</h2>{clear}</header><ol class="pins">{items}</ol>'


def _card(place: int, one: Pin) -> str:
    text = mark(one.said, one.text, buttons=False).after or '<span class="quiet">(no words)</span>'
    done = "".join(f"<li>{escape(line)}</li>" for line in one.done)
    return (
        f'<li class="pin"><p class="quiet">{escape(one.title)} · {escape(one.prompt)}</p>'
        f'<p class="said">{text}</p><ul class="done">{done}</ul><div class="do">'
        f'<button type="button" {does("restore", pin=place)}>Put back on the bench</button>'
        f'<button type="button" {does("unpin", pin=place)} aria-label="Remove pinned answer {place + 1}">'
        f"Remove</button></div></li>"
    )
