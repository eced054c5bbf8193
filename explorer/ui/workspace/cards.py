"""Draws neurons as cards: name, activation, how often it fires, a strip of exemplars with their heat.

Knows the shared records and HTML. `Strips` keeps the strips that were drawn lately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape

from explorer.records import Exemplar, NeuronSummary
from explorer.session import Session
from explorer.ui.buttons import does
from explorer.ui.heat import data_uri, heat_uri
from explorer.ui.visit import Entry, Heading

STRIP = 6
"""Exemplars on a card; the chosen neuron's card shows all that the store has."""

_KEPT_STRIPS = 1024


class Strips:
    """The store as the cards need it. A session without a store gives cards without exemplars."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._strip = lru_cache(maxsize=_KEPT_STRIPS)(self._draw_strip)

    def summaries(self, neurons: Sequence[int]) -> Mapping[int, NeuronSummary]:
        """What is known of the neurons, by neuron."""
        return {} if self._session.store is None else self._session.summaries(neurons)

    def strip(self, neuron: int, all_of_them: bool) -> str:
        """The neuron's exemplars as HTML."""
        return "" if self._session.store is None else self._strip(neuron, all_of_them)

    def _draw_strip(self, neuron: int, all_of_them: bool) -> str:
        exemplars = self._session.exemplars(neuron)
        return strip(exemplars if all_of_them else exemplars[:STRIP])

    def name(self, neuron: int) -> str:
        """The neuron's name for people: its label, or its number."""
        return name_of(neuron, self.summaries([neuron]).get(neuron))

    def label(self, neuron: int) -> str:
        """The concept that the neuron stands for, or ""."""
        summary = self.summaries([neuron]).get(neuron)
        return summary.label if summary is not None else ""

    def title(self, neuron: int) -> str:
        """The name with the number, each once."""
        name = self.name(neuron)
        return name if name.endswith(f" {neuron}") else f"{name} #{neuron}"


def name_of(neuron: int, summary: NeuronSummary | None) -> str:
    """The label in plain words, or "neuron N" when there is none."""
    return summary.label.replace("_", " ") if summary is not None and summary.label else f"neuron {neuron}"


def strip(exemplars: Sequence[Exemplar]) -> str:
    """Thumbnails with the heat of their patch maps, strongest first."""
    if not exemplars:
        return '<p class="quiet">Never fired while indexing.</p>'
    peak = max(float(exemplar.patch_map.max()) for exemplar in exemplars)
    return "".join(_thumbnail(exemplar, peak) for exemplar in exemplars)


def _thumbnail(exemplar: Exemplar, peak: float) -> str:
    shown = ", ".join(label.replace("_", " ") for label in exemplar.labels[:6])
    words = f"exemplar {exemplar.rank + 1}" + (f": {shown}" if shown else "")
    return (
        f'<span class="thumb" title="{escape(words)}"><img src="{data_uri(exemplar.thumbnail)}" '
        f'alt="{escape(words)}"><img class="heat" alt="" src="{heat_uri(exemplar.patch_map, peak)}"></span>'
    )


def percent(share: float) -> str:
    """A share in the fewest digits that say something."""
    if share <= 0:
        return "0 %"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


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
            strips.strip(entry.neuron, entry.neuron == chosen),
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
