"""Tells an explanation of a word in plain words: the list of cards, and above it the word and its repairs.

Knows the records of the analysis and HTML; nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from explorer.analyze.explaining import Explained, Suspect
from explorer.analyze.repair import Repair
from explorer.records import Edit
from explorer.ui.buttons import does
from explorer.ui.visit import Entry, Heading, Listing

Named = Callable[[int], str]
"""Gives a neuron's name with its number."""

REPAIRS_SHOWN = 6


def amount(value: float) -> str:
    """Nats with one digit, without a sign; two below 1."""
    size = abs(value)
    return f"{size:.1f}" if size >= 1 or size < 0.005 else f"{size:.2f}"


def number(value: float) -> str:
    """A value of a neuron, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def listing(known: Explained, named: Named, context: str = "", stopped: bool = False) -> Listing:
    """The list for the cards column.

    context: what else holds of the answer explained, such as the bench that it was made with; stopped: the
    person does not want to wait for the rest.
    """
    text = known.asked.text
    measured = any(one.measured is not None for one in known.suspects)
    if measured:
        order = f"By what it loses at {number(known.value)}, less what other words lose."
    else:
        order = "A first guess, from one gradient; being measured now."
    heading = Heading(f"Why “{text}”?", order)
    entries = tuple(_entry(one, known) for one in known.suspects)
    return Listing(
        heading,
        entries,
        empty="No neuron that fires here speaks for this word.",
        above=above(known, named, context, stopped),
        map=known.map,
        map_name=f"Support for “{text}”",
    )


def _entry(one: Suspect, known: Explained) -> Entry:
    """A card. Its button asks for the value nearest to 0 that takes the word out, once there is one."""
    text = known.asked.text
    if one.measured is None:
        verb = "supports" if one.estimate >= 0 else "works against"
        return Entry(one.neuron, one.estimate, f"{verb} “{text}” by about {amount(one.estimate)} nats")
    verb, way = ("takes", "away from") if one.measured >= 0 else ("adds", "to")
    note = f"{verb} {amount(one.measured)} nats {way} “{text}”"
    if one.others is not None and one.others >= 0.005:
        note += f", {amount(one.others)} from other words"
    if one.removal is not None:
        value = one.removal.edits[0].value
        return Entry(one.neuron, one.measured, f"At {number(value)} {gone(one.removal)} (+); {note}", value)
    tried = "No value tried removes the word alone; " if one.tried else ""
    return Entry(one.neuron, one.measured, tried + note)


def gone(trial: Repair) -> str:
    """What a trial that takes the word out does besides."""
    lost = f"loses {_listed(trial.lost)}" if trial.lost else ""
    added = f"brings {_listed(trial.added)}" if trial.added else ""
    more = " and ".join(part for part in (lost, added) if part)
    return f"the word goes; the answer also {more}" if more else "the word goes, nothing else changes"


def _listed(words: tuple[str, ...]) -> str:
    shown = ", ".join(f"“{word}”" for word in words[:3])
    return shown + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def above(known: Explained, named: Named, context: str, stopped: bool) -> str:
    """The word's likelihood and the repairs, over the cards."""
    chance = math.exp(min(known.log_prob, 0.0))
    said = f"{_share(chance)} likely here (log-probability {number(round(known.log_prob, 2) or 0.0)} nats)"
    if known.asked.instead is not None:
        lead = "ahead of" if known.score >= 0 else "behind"
        said += f"; {amount(known.score)} nats {lead} “{escape(known.asked.instead)}”"
    said += "" if said.endswith(".”") else "."
    more = f" {escape(context)}" if context else ""
    return (
        f'<section class="why" aria-label="Repairs"><p class="quiet">{said}{more}</p>'
        f'<div class="why-head"><h3>Repairs</h3>{_progress(known, stopped)}</div>'
        f'<ol class="repairs" tabindex="0" aria-label="Edits that take the word out">'
        f"{_repairs(known, named, stopped)}</ol></section>"
    )


def _share(chance: float) -> str:
    return (
        "< 0.1 %" if chance < 0.001 else f"{100 * chance:.1f} %" if chance < 0.1 else f"{100 * chance:.0f} %"
    )


def _progress(known: Explained, stopped: bool) -> str:
    """How far the trials are, and the way to end them."""
    if known.complete or stopped:
        how = "stopped after" if stopped and not known.complete else "all"
        return f'<span class="num" role="status">{how} {known.done} trials</span>'
    if not known.total:
        return (
            '<span class="num" role="status">measuring …</span>'
            f'<button type="button" class="halt" {does("halt")}>Stop</button>'
        )
    return (
        f'<progress max="{known.total}" value="{known.done}" aria-label="Trials"></progress>'
        f'<span class="num">{known.done} of {known.total} tried</span>'
        f'<button type="button" class="halt" {does("halt")}>Stop</button>'
    )


def _repairs(known: Explained, named: Named, stopped: bool) -> str:
    if known.repairs:
        return "".join(_repair(one, named) for one in known.repairs[:REPAIRS_SHOWN])
    if known.complete or (stopped and known.total):
        said = "No edit tried takes the word out."
    elif stopped:
        said = "Stopped before anything was tried."
    else:
        said = "Edits that take the word out and leave the rest will appear here."
    return f'<li class="quiet">{said}</li>'


def _repair(one: Repair, named: Named) -> str:
    """One repair as a button that applies it."""
    sent = [[edit.neuron, edit.value, region_of(edit)] for edit in one.edits]
    value, where = number(one.edits[0].value), one.edits[0].patches
    names = " + ".join(named(edit.neuron) for edit in one.edits)
    place = "everywhere" if where is None else "where it fires" if len(one.edits) == 1 else "where they fire"
    clean = not one.lost and not one.added
    return (
        f'<li><button type="button" class="mend" {does("mend", edits=sent)} title="Apply this repair">'
        f"Set <b>{escape(names)}</b> to {value} {place}</button>"
        f'<span class="after{" clean" if clean else ""}">{escape(one.answer)}</span></li>'
    )


def region_of(edit: Edit) -> str:
    """The bench's name of an edit's patches: all of them, or those where the neuron fires."""
    return "all" if edit.patches is None else "active"
