"""Draws neurons as cards: name, activation, class, how often it fires, a strip of exemplars with their heat.

Knows the shared records and HTML.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from explorer.records import NeuronSummary
from explorer.ui.buttons import does
from explorer.ui.exemplars import ALL, STRIP, Strips
from explorer.ui.marks import badge, histogram_svg, name_of, number, percent
from explorer.ui.visit import Entry, Heading, Listing

GAUGE_WIDTH, GAUGE_HEIGHT = 84, 22


class Beside(NamedTuple):
    """What the cards need beside their list.

    chosen: the neuron whose heat is shown; back: offer the way to the whole picture; values: what the
    entries' values are: a "score" of the picture, "active" on patches, or "" when they are no activations.
    """

    chosen: int | None = None
    back: bool = False
    values: str = "score"


class Known(NamedTuple):
    """What a card says of its neuron. exemplars, gauge: HTML."""

    name: str
    summary: NeuronSummary | None
    exemplars: str
    gauge: str


def cards(listing: Listing, beside: Beside, strips: Strips) -> str:
    """The whole column."""
    neurons = [entry.neuron for entry in listing.entries]
    summaries, own = strips.summaries(neurons), strips.own(neurons)
    top = max((abs(entry.value) for entry in listing.entries), default=0.0) or 1.0
    items = []
    for entry in listing.entries:
        chosen, summary = entry.neuron == beside.chosen, summaries.get(entry.neuron)
        name = name_of(entry.neuron, summary, own.get(entry.neuron, ""))
        gauge = _histogram(entry, beside.values, strips) if beside.values else _bar(entry.value / top)
        exemplars = strips.strip(entry.neuron, ALL if chosen else STRIP)
        items.append(card(entry, Known(name, summary, exemplars, gauge), chosen))
    shown = f'<ol class="cards">{"".join(items)}</ol>'
    empty = f'<div class="cards"><p class="empty">{escape(listing.empty)}</p></div>'
    return _head(listing.heading, beside.back) + listing.above + (shown if items else empty)


def card(entry: Entry, known: Known, chosen: bool) -> str:
    """One neuron."""
    neuron, name = entry.neuron, escape(known.name)
    numbered = f'<span class="id">#{neuron}</span>' if not known.name.endswith(f" {neuron}") else ""
    put = does("put", neuron=neuron) if entry.alpha is None else does("put", neuron=neuron, alpha=entry.alpha)
    at = "" if entry.alpha is None else f" at {entry.alpha:g}"
    return (
        f'<li class="card{" chosen" if chosen else ""}"><div class="head">'
        f'<button type="button" class="choose" {does("pick", neuron=neuron)} '
        f'aria-pressed="{str(chosen).lower()}" title="Show where it fires" '
        f'aria-label="{name}, neuron {neuron}: show where it fires; here {number(entry.value)}">'
        f'<span class="name">{name}</span>{numbered}<span class="gauge">{known.gauge}</span>'
        f'<span class="num">{number(entry.value)}</span></button>'
        f'<button type="button" class="put" {put} title="Put on the bench{at}" '
        f'aria-label="Put neuron {neuron}, {name}, on the bench{at}">+</button></div>'
        f'<div class="strip" {does("pick", neuron=neuron)}>{known.exemplars}</div>'
        f'<div class="facts">{_facts(entry, known)}'
        f'<button type="button" class="open" {does("page", neuron=neuron)} '
        f'aria-label="Open the page of neuron {neuron}, {name}">Open</button></div></li>'
    )


def _facts(entry: Entry, known: Known) -> str:
    """The note of the list, then what the store knows, in one line."""
    summary, facts, long = known.summary, [], []
    if summary is not None:
        facts.append(f"in {percent(summary.fires)} of pictures")
        long.append(f"Fires in {percent(summary.fires)} of the indexed pictures.")
    if summary is not None and summary.label:
        label, share = summary.label.replace("_", " "), percent(summary.precision)
        facts.append(f"{share} show {'it' if label == known.name else label}")
        long.append(f"{share} of its exemplars show {label}.")
    note = f'<b class="note">{escape(entry.note)}</b>' if entry.note else ""
    mark = badge(summary.neuron_class) if summary is not None else ""
    shown = f'<span title="{escape(" ".join(long))}">{escape(" · ".join(facts))}</span>'
    return f'<span class="said">{mark}{note}{shown}</span>'


def _histogram(entry: Entry, values: str, strips: Strips) -> str:
    """The value's place among those of the indexed pictures."""
    which = "score" if values == "score" else "active"
    histogram = strips.histogram(entry.neuron, which)
    if histogram is None:
        return ""
    among = "the indexed pictures" if which == "score" else "patches of the indexed pictures"
    label = f"{number(entry.value)} here, among {among} where it fires (logarithmic)"
    return histogram_svg(histogram, entry.value, label, GAUGE_WIDTH, GAUGE_HEIGHT)


def _bar(share: float) -> str:
    """A value against the largest of the list, to the right of the middle, or to the left if below 0."""
    wide = 50 * min(abs(share), 1.0)
    left = 50 - wide if share < 0 else 50
    way = "down" if share < 0 else "up"
    return f'<span class="effect {way}"><i style="left:{left:.1f}%;width:{wide:.1f}%"></i></span>'


def _head(heading: Heading, back: bool) -> str:
    """What the list is of, how it is pooled, and the way back to the whole picture."""
    ways = ""
    if heading.pool:
        buttons = "".join(
            f'<button type="button" {does("pool", pool=name)} title="{words}" '
            f'aria-pressed="{str(name == heading.pool).lower()}">{name}</button>'
            for name, words in (("mean", "By their average"), ("max", "By their strongest patch"))
        )
        ways += f'<span class="pool" role="group" aria-label="Pool the patches by">{buttons}</span>'
    if back:
        ways += f'<button type="button" class="back" {does("back")}>Whole picture</button>'
    best = (
        f'<button type="button" class="best" {does("best")}>Put the best three on the bench</button>'
        if heading.found
        else ""
    )
    return (
        f'<header class="heading"><h2>{escape(heading.title)}</h2><span class="ways">{ways}</span>'
        f'<p class="quiet">{escape(heading.note)}</p>{best}</header>'
    )
