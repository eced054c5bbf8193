"""Draws a page of neurons: a tile for each, the way through the pages, and what to say when none is left.

Knows the shared records and HTML. Keeps nothing but what `Strips` keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from explorer.records import NeuronSummary
from explorer.ui.buttons import does
from explorer.ui.exemplars import Strips
from explorer.ui.gallery.query import PER_PAGE
from explorer.ui.marks import badge, name_of, percent

SHOWN = 5
"""Exemplars on a tile."""

LOADING = (
    '<p class="quiet waiting">Reading the store …</p><ol class="tiles" aria-hidden="true">'
    + '<li class="tile blank"></li>' * PER_PAGE
    + "</ol>"
)


def number(value: float | None, digits: int = 2) -> str:
    """A number in few digits; a dash for an unknown one."""
    return "–" if value is None else f"{value:.{digits}f}"


def size(value: float) -> str:
    """An activation in few digits, however small."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def statistics(summary: NeuronSummary) -> str:
    """The four numbers of a tile as a definition list."""
    sure = percent(summary.precision) if summary.label else "–"
    facts = (
        ("fires", percent(summary.fires), "Share of the indexed pictures in which it fires"),
        ("peak", size(summary.peak), "Strongest activation over all indexed pictures"),
        ("precision", sure, "Share of its exemplars that show its label"),
        ("monosem.", number(summary.monosemanticity), "Monosemanticity: how alike its pictures are, -1 to 1"),
    )
    return (
        '<dl class="facts">'
        + "".join(
            f'<div title="{title}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, title in facts
        )
        + "</dl>"
    )


def star(neuron: int, said: str, on: bool) -> str:
    """The button that puts a neuron among the favourites, or takes it off. said: the neuron in words."""
    asks = does("star", neuron=neuron, on=not on)
    title = "Take it out of the favourites" if on else "Keep it among the favourites"
    return (
        f'<button type="button" class="star" {asks} aria-pressed="{str(on).lower()}" title="{title}" '
        f'aria-label="Favourite: {said}">{"★" if on else "☆"}</button>'
    )


def tile(neuron: int, summary: NeuronSummary, own: str, strip: str, starred: bool | None) -> str:
    """One neuron. own: people's name; strip: its exemplars as HTML; starred: None when nobody may star."""
    name = escape(name_of(neuron, summary, own))
    shown = f'<span class="id">#{neuron}</span>' if own or summary.label else ""
    said = f"neuron {neuron}, {name}" if shown else name
    return (
        f'<li class="tile" data-neuron="{neuron}"><header>'
        f'<button type="button" class="open" {does("page", neuron=neuron)} '
        f'aria-label="Open the page of {said}"><span class="name">{name}</span>{shown}</button>'
        f'<button type="button" class="alike" {does("similar", neuron=neuron)} '
        f'title="List the neurons with the nearest directions" '
        f'aria-label="Similar to {said}">Similar</button>'
        f"{'' if starred is None else star(neuron, said, starred)}</header>"
        f'<div class="strip" {does("page", neuron=neuron)}>{strip}</div>'
        f"{statistics(summary)}"
        f'<footer>{badge(summary.neuron_class)}<span class="does">'
        f'<button type="button" {does("pick", neuron=neuron)} title="Show where it fires in my picture" '
        f'aria-label="On my picture: {said}">On my picture</button>'
        f'<button type="button" {does("put", neuron=neuron)} title="Put it on the bench, to steer with it" '
        f'aria-label="To the bench: {said}">To the bench</button></span></footer></li>'
    )


def tiles(neurons: Sequence[int], strips: Strips, starred: Collection[int] | None) -> str:
    """The neurons of one page. starred: the favourites, None when nobody may change them."""
    summaries, own = strips.summaries(neurons), strips.own(neurons)
    items = (
        tile(
            neuron,
            summaries[neuron],
            own.get(neuron, ""),
            strips.strip(neuron, SHOWN),
            None if starred is None else neuron in starred,
        )
        for neuron in neurons
    )
    return f'<ol class="tiles">{"".join(items)}</ol>'


def pager(page: int, pages: int) -> str:
    """The way through the pages; nothing when there is but one. page: from 0."""
    if pages < 2:
        return ""
    return (
        '<nav class="pager" aria-label="Pages">'
        f"{_step('Previous', page - 1, page > 0)}"
        f'<label>Page <input type="number" min="1" max="{pages}" value="{page + 1}" data-page '
        f'aria-label="Page number"></label><span class="quiet">of {pages:,}</span>'
        f"{_step('Next', page + 1, page + 1 < pages)}</nav>"
    )


def _step(words: str, page: int, there: bool) -> str:
    asks = does("alter", page=page) if there else "disabled"
    return f'<button type="button" {asks}>{words}</button>'
