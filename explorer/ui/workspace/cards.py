"""Draws neurons as cards: name, activation, how often it fires, a strip of exemplars with their heat.

Knows the shared records and HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from explorer.records import NeuronSummary
from explorer.ui.buttons import does
from explorer.ui.exemplars import ALL, STRIP, Strips
from explorer.ui.marks import name_of, percent
from explorer.ui.visit import Entry, Heading


def card(entry: Entry, summary: NeuronSummary | None, exemplars: str, share: float, chosen: bool) -> str:
    """One neuron. exemplars: its strip as HTML; share: its activation against the strongest card's (0..1)."""
    neuron, value = entry.neuron, entry.value
    name = escape(name_of(neuron, summary))
    number = (
        f'<span class="id">#{neuron}</span>' if summary is not None and summary.label else "<span></span>"
    )
    put = does("put", neuron=neuron) if entry.alpha is None else does("put", neuron=neuron, alpha=entry.alpha)
    width = f"{100 * min(max(share, 0), 1):.1f}%"
    facts = escape(entry.note)
    if summary is not None:
        sure = f" · {percent(summary.precision)} of exemplars show it" if summary.label else ""
        facts += f"{' · ' if facts else ''}fires in {percent(summary.fires)} of pictures{sure}"
    return (
        f'<li class="card{" chosen" if chosen else ""}">'
        f'<button type="button" class="choose" {does("pick", neuron=neuron)} '
        f'aria-pressed="{str(chosen).lower()}" '
        f'aria-label="Show where neuron {neuron}, {name}, fires">'
        f'<span class="name">{name}</span>{number}'
        f'<span class="meter" aria-hidden="true"><i style="width:{width}"></i></span>'
        f'<span class="num">{value:.2f}</span></button>'
        f'<button type="button" class="put" {put} title="Put on the bench" '
        f'aria-label="Put neuron {neuron}, {name}, on the bench">+</button>'
        f'<div class="strip" {does("pick", neuron=neuron)}>{exemplars}</div><p class="facts">{facts}</p></li>'
    )


def cards(
    heading: Heading,
    entries: Sequence[Entry],
    chosen: int | None,
    strips: Strips,
    empty: str,
    above: str = "",
) -> str:
    """The whole column. empty: what to say when there are no entries; above: HTML over the cards."""
    summaries = strips.summaries([entry.neuron for entry in entries])
    top = max((entry.value for entry in entries), default=0.0) or 1.0
    items = "".join(
        card(
            entry,
            summaries.get(entry.neuron),
            strips.strip(entry.neuron, ALL if entry.neuron == chosen else STRIP),
            entry.value / top,
            entry.neuron == chosen,
        )
        for entry in entries
    )
    return (
        f'<header class="heading"><h2>{escape(heading.title)}</h2>{_way(heading)}'
        f'<p class="quiet">{escape(heading.note)}</p></header>{above}'
        + (f'<ol class="cards">{items}</ol>' if items else f'<p class="empty">{escape(empty)}</p>')
    )


def _way(heading: Heading) -> str:
    """Beside the heading: how to pool, or the way back to the whole picture."""
    pool = heading.pool
    if not pool:
        back = '<button type="button" class="back" ' + does("back") + ">Whole picture</button>"
        best = (
            '<button type="button" class="best" ' + does("best") + ">Put the best three on the bench</button>"
        )
        return back + (best if heading.found else "")
    buttons = "".join(
        f'<button type="button" {does("pool", pool=name)} aria-pressed="{str(name == pool).lower()}">'
        f"{name}</button>"
        for name in ("mean", "max")
    )
    return f'<span class="pool" role="group" aria-label="Pool the patches by">{buttons}</span>'
