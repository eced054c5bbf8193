"""What a neuron stands for, as HTML: exemplars, weaker pictures, labels, words, neurons near it.

Knows the shared records and HTML; asks no session and no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from explorer.records import Exemplar, IntervalExemplar, LabelEvidence, Word
from explorer.ui.buttons import does
from explorer.ui.exemplars import thumbnail
from explorer.ui.marks import percent
from explorer.ui.neuron.numbers import UNKNOWN, short

TILE = 112
"""Pixels of an exemplar's picture; it is shown a little smaller."""

LABELS_NAMED = 6


class Near(NamedTuple):
    """A neuron beside this one. name: as people read it; strip: its exemplars as HTML; words: how near."""

    neuron: int
    name: str
    strip: str
    words: str


def loudest(shown: Sequence[Exemplar]) -> float:
    """The activation at the top of the colour scale of all pictures of a neuron."""
    return max((float(one.patch_map.max()) for one in shown), default=0.0)


def exemplars(shown: Sequence[Exemplar], peak: float) -> str:
    """The strongest pictures, each a button that enlarges it. peak: the top of the colour scale."""
    if not shown:
        return _section("Strongest pictures", '<p class="quiet">It never fired while indexing.</p>')
    tiles = "".join(
        f"<li>{_tile(one, 'strong', peak, f'Enlarge exemplar {one.rank + 1} of {len(shown)}')}</li>"
        for one in shown
    )
    note = "Bright where it fires. Choose one to enlarge it."
    return _section("Strongest pictures", f'<ol class="tiles strong">{tiles}</ol>', note)


def intervals(shown: Sequence[IntervalExemplar], peak: float) -> str:
    """Pictures from further down, with the span of scores that each stands for; on the same scale."""
    if not shown:
        return ""
    tiles = "".join(
        f"<li>{_tile(one, 'weaker', peak, f'Enlarge the picture of scores {_span(one)}')}"
        f'<span class="num">{_span(one)}</span></li>'
        for one in shown
    )
    note = "One for each span of scores below the peak: the strongest alone flatter a neuron."
    return _section("Weaker pictures", f'<ol class="tiles weaker">{tiles}</ol>', note)


def _span(one: IntervalExemplar) -> str:
    return f"{one.low:.2g}–{one.high:.2g}"


def _tile(one: Exemplar, kind: str, peak: float, label: str) -> str:
    shows = said(one.labels)
    words = f"{label}, score {short(one.score)}" + (f": {shows}" if shows else "")
    return (
        f'<button type="button" class="tile" data-kind="{kind}" data-rank="{one.rank}" '
        f'aria-label="{escape(words)}" aria-haspopup="dialog">{thumbnail(one, peak, TILE)}</button>'
    )


def said(labels: Sequence[str]) -> str:
    """Labels in plain words; not escaped."""
    more = ", ..." if len(labels) > LABELS_NAMED else ""
    return ", ".join(label.replace("_", " ") for label in labels[:LABELS_NAMED]) + more


def labels(evidence: Sequence[LabelEvidence], name: str = "") -> str:
    """The labels that the neuron could stand for, as a table. name: the one that became its name."""
    if not evidence:
        return _section("Labels", '<p class="quiet">No label of the indexed pictures fits it.</p>')
    kinds = len({one.kind for one in evidence}) > 1
    rows = "".join(
        f"<tr{' class=named' if one.label == name else ''}>"
        f'<th scope="row">{escape(one.label.replace("_", " "))}'
        f"{f' <span class=quiet>{escape(one.kind)}</span>' if kinds else ''}</th>"
        f'<td class="share">{_meter(one.precision)}'
        f"{percent(one.precision)}</td><td>{one.lift:.1f} ×</td>"
        f"<td>{_known(one.average_precision)}</td><td>{one.images:,}</td></tr>"
        for one in evidence
    )
    heads = (
        '<th scope="col">label</th><th scope="col" title="Share of its exemplars that show it">exemplars</th>'
        '<th scope="col" title="How much more often than in all pictures">lift</th>'
        '<th scope="col" title="Average precision of the score as a detector of the label">detector</th>'
        '<th scope="col" title="Indexed pictures that show it">pictures</th>'
    )
    table = f'<table class="labels"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return _section("Labels", table, "What its exemplars show, best first.")


def _known(value: float | None) -> str:
    return UNKNOWN if value is None else short(value)


def words(raised: Sequence[Word]) -> str:
    """The words that the model says more easily once the neuron is turned up."""
    note = "What the model says more easily with it turned up, in nats."
    if not raised:
        return _section("Words it raises", '<p class="quiet">None are known.</p>', note)
    top = max(abs(one.gain) for one in raised) or 1.0
    rows = "".join(
        f"<li><span>{escape(one.word)}</span>"
        f"{_meter(max(one.gain, 0) / top)}"
        f'<span class="num">{"+" if one.gain >= 0 else "−"}{short(abs(one.gain))}</span></li>'
        for one in raised
    )
    return _section("Words it raises", f'<ol class="words">{rows}</ol>', note)


def others(title: str, note: str, empty: str, found: Sequence[Near], more: str = "") -> str:
    """Neurons beside this one as small cards that open their pages. more: HTML below them."""
    if not found:
        return _section(title, f'<p class="quiet">{escape(empty)}</p>')
    cards = "".join(
        f'<li><button type="button" class="other" {does("page", neuron=one.neuron)} '
        f'aria-label="Open neuron {one.neuron}, {escape(one.name)}: {escape(one.words)}">'
        f'<span class="pictures">{one.strip}</span>'
        f'<span class="line"><span class="name">{escape(one.name)}</span>'
        f"{'' if one.name == f'neuron {one.neuron}' else f'<span class=id>#{one.neuron}</span>'}</span>"
        f'<span class="num">{escape(one.words)}</span></button></li>'
        for one in found
    )
    return _section(title, f'<ol class="others">{cards}</ol>{more}', note)


def all_similar(neuron: int) -> str:
    """The way to the gallery's list of the neurons like this one."""
    return f'<button type="button" class="more" {does("similar", neuron=neuron)}>More in the gallery</button>'


def pair(left: str, right: str) -> str:
    """Two sections side by side."""
    return f'<div class="pair">{left}{right}</div>'


def nothing(why: str) -> str:
    """What is shown without a store. why: what is wrong, and after the last ": " the command that helps."""
    command = why.rpartition(": ")[2]
    told = (
        "<p>Exemplars, numbers, labels, words and neighbours come from a store of indexed pictures. "
        f"Build one, then start the page again:</p><p><code>{escape(command)}</code></p>"
    )
    return f'<div class="sheets">{_section("Nothing to show yet", told)}</div>'


def _meter(share: float) -> str:
    return f'<span class="meter" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></span>'


def _section(title: str, body: str, note: str = "") -> str:
    told = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f"<section><header><h2>{escape(title)}</h2>{told}</header>{body}</section>"
