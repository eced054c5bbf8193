"""Draws the line over the neurons: how many there are, the views, the order, and the filters in use.

Knows the query and HTML. Every control asks for the event "alter" with the fields that it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from explorer.ui.buttons import does
from explorer.ui.gallery.query import FILTERS, PER_PAGE, Query, cleared, off
from explorer.ui.marks import CLASSES, percent

VIEW_WORDS = {"cards": "Cards", "overview": "Overview", "map": "Map"}
COLOUR_WORDS = {"class": "class", "label": "label", "entropy": "entropy"}

SORT_WORDS = {
    "neuron": ("number", False),
    "label": ("name", False),
    "fires": ("firing rate", True),
    "in_top": ("share in the top 20", True),
    "peak": ("peak", True),
    "mean": ("mean activation", True),
    "precision": ("label precision", True),
    "average_precision": ("average precision", True),
    "monosemanticity": ("monosemanticity", True),
    "entropy": ("label entropy", False),
    "given": ("likeness", False),
}
"""Of each order: what the page calls it, and whether it is descending when first chosen."""

_RANGE_WORDS = {
    "fires": ("fires in", percent),
    "peak": ("peak", "{:.3g}".format),
    "precision": ("label precision", percent),
    "monosemanticity": ("monosemanticity", "{:.2f}".format),
}


def filter_words(query: Query, name: str) -> str:
    """A filter in use, in words."""
    value = getattr(query, name)
    if name in _RANGE_WORDS:
        words, shown = _RANGE_WORDS[name]
        low, high = value
        if low is None:
            return f"{words} ≤ {shown(high)}"
        return f"{words} ≥ {shown(low)}" if high is None else f"{words} {shown(low)} to {shown(high)}"
    if name == "classes":
        return " or ".join(CLASSES[one][0] for one in value)
    if name == "given":
        return {
            "picture": "like your picture",
            "patches": "like the marked patches",
            "similar": f"similar to neuron {query.like}",
        }.get(query.origin, f"{len(value)} chosen neurons")
    return {
        "text": f"“{value}”",
        "label": f"label {value.replace('_', ' ')}",
        "listed": f"in {value}",
    }[name]


def chips(query: Query) -> str:
    """The filters in use, each with a way to take it off; "" without any."""
    active = query.active()
    if not active:
        return ""
    items = "".join(
        f'<li><button type="button" class="chip" {does("alter", **off(name, query))} '
        f'aria-label="Remove the filter {escape(filter_words(query, name))}">'
        f'{escape(filter_words(query, name))}<span aria-hidden="true"> ×</span></button></li>'
        for name in active
    )
    return f'<ul class="chips" aria-label="Filters in use">{items}<li>{_clear(query)}</li></ul>'


def _clear(query: Query) -> str:
    return f'<button type="button" class="plain" {does("alter", **cleared(query))}>Clear all filters</button>'


def switch(label: str, name: str, words: Mapping[str, str], chosen: str) -> str:
    """A row of buttons of which one is pressed."""
    buttons = "".join(
        f'<button type="button" {does("alter", **{name: key})} aria-pressed="{str(key == chosen).lower()}">'
        f"{text}</button>"
        for key, text in words.items()
    )
    return f'<span class="switch" role="group" aria-label="{label}">{buttons}</span>'


def order(query: Query) -> str:
    """The choice of the order and its direction."""
    keys = [key for key in SORT_WORDS if key != "given" or query.given is not None]
    options = "".join(
        f'<option value="{key}" data-descending="{str(SORT_WORDS[key][1]).lower()}"'
        f"{' selected' if key == query.sort else ''}>{SORT_WORDS[key][0]}</option>"
        for key in keys
    )
    way = "Descending" if query.descending else "Ascending"
    turn = (
        ""
        if query.sort == "given"
        else (
            f'<button type="button" class="way" {does("alter", descending=not query.descending)} '
            f'aria-label="{way}; turn the order round" title="{way}; turn the order round">'
            f"{'↓' if query.descending else '↑'}</button>"
        )
    )
    choice = f'<select data-sort aria-label="Sort by">{options}</select>'
    return f'<label class="order">Sort by {choice}</label>{turn}'


def head(query: Query, total: int, everything: int) -> str:
    """The whole line. total: neurons that pass the filters; everything: all there are."""
    of = f' <span class="quiet">of {everything:,}</span>' if total != everything else ""
    named = f"{total:,}{of} {'neuron' if total == 1 and not of else 'neurons'}"
    tools = order(query) if query.view == "cards" else switch("Colour by", "colour", COLOUR_WORDS, query.tint)
    lead = "" if query.view == "cards" else '<span class="quiet">Colour by</span>'
    return (
        f'<div class="line"><h2 class="count" aria-live="polite">{named}</h2>{_turn(query, total)}'
        f'<span class="tools">{lead}{tools}</span>'
        f"{switch('Show as', 'view', VIEW_WORDS, query.view)}</div>{chips(query)}"
    )


def _turn(query: Query, total: int) -> str:
    """Which page this is, with the ways to its neighbours; nothing when there is but one."""
    pages = -(-total // PER_PAGE)
    if query.view != "cards" or pages < 2:
        return '<span class="turn"></span>'

    def step(words: str, mark: str, page: int) -> str:
        asks = does("alter", page=page) if 0 <= page < pages else "disabled"
        return f'<button type="button" {asks} title="{words}" aria-label="{words}">{mark}</button>'

    before, after = step("Previous page", "‹", query.page - 1), step("Next page", "›", query.page + 1)
    return f'<span class="turn"><span>page {query.page + 1:,} of {pages:,}</span>{before}{after}</span>'


def empty(query: Query, left: Mapping[str, int]) -> str:
    """Instead of the tiles. left: how many neurons pass without each of the filters in use."""
    freed = sorted((name for name in left if left[name]), key=lambda name: (-left[name], FILTERS.index(name)))
    ways = "".join(
        f'<li><button type="button" class="chip" {does("alter", **off(name, query))}>'
        f"Without {escape(filter_words(query, name))}: "
        f"{left[name]:,} neuron{'' if left[name] == 1 else 's'}</button></li>"
        for name in freed
    )
    hint = "Take one of them off:" if freed else "None would pass without any one of them either."
    return (
        '<div class="none"><h2>No neuron passes all these filters</h2>'
        f'<p class="quiet">{hint}</p><ul class="chips">{ways}</ul>{_clear(query)}</div>'
    )
