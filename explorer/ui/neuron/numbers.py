"""The numbers of a neuron: statistics with their explanations, and its two histograms, as HTML.

Knows the shared records and HTML; asks no session and no store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from explorer.records import Histogram, NeuronSummary
from explorer.ui.marks import percent

UNKNOWN = "–"


class Fact(NamedTuple):
    """One number: what it is called, the number as text, and what it means in one line."""

    name: str
    value: str
    meaning: str


class Group(NamedTuple):
    """Numbers that belong together."""

    title: str
    facts: tuple[Fact, ...]


class Mark(NamedTuple):
    """A value marked in a histogram. kind: "peak" or "yours", which decides its look."""

    value: float
    words: str
    kind: str


def short(value: float | None) -> str:
    """A number in three digits or so; a dash for an unknown one."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def groups(summary: NeuronSummary, baseline: float | None) -> tuple[Group, ...]:
    """The statistics of a neuron. baseline: the monosemanticity of chance, when the store knows it."""
    named = bool(summary.label)
    chance = "" if baseline is None else f" Two pictures at random give {short(baseline)}."
    pictures = (
        Fact("fires in", percent(summary.fires), "Share of the indexed pictures where it fires at all."),
        Fact(
            "in the top 20", percent(summary.in_top), "Share of pictures where it is among the 20 strongest."
        ),
        Fact("mean", short(summary.mean), "Its score, averaged over the pictures where it fires."),
        Fact("peak", short(summary.peak), "Its score in its strongest picture."),
        Fact(
            "variance", short(summary.variance), "How much its score varies over the pictures where it fires."
        ),
    )
    patches = (
        Fact("fires on", percent(summary.patch_fires), "Share of all indexed patches where it fires."),
        Fact("mean", short(summary.active_mean), "Its activation, averaged over the patches where it fires."),
        Fact("peak", short(summary.active_peak), "Its activation at its strongest patch."),
        Fact(
            "variance", short(summary.active_variance), "How much it varies over the patches where it fires."
        ),
    )
    lift = "How much more often its exemplars show the label than all pictures do."
    detector = "Average precision of its score as a detector of the label: 1 ranks all that show it first."
    alike = "How alike the pictures are that activate it, from -1 to 1." + chance
    mixed = "Entropy of the labels of its exemplars, in nats: 0 when they all show one and the same."
    meaning = (
        Fact(
            "precision",
            percent(summary.precision) if named else UNKNOWN,
            "Share of its exemplars that show the label.",
        ),
        Fact("lift", f"{summary.lift:.1f} ×" if named else UNKNOWN, lift),
        Fact("detector", short(summary.average_precision), detector),
        Fact("monosemantic", short(summary.monosemanticity), alike),
        Fact("label entropy", short(summary.entropy), mixed),
    )
    return Group("Over pictures", pictures), Group("Over patches", patches), Group("Meaning", meaning)


def statistics(shown: Sequence[Group]) -> str:
    """The groups side by side; each number explains itself on hover, all of them on request."""
    columns = "".join(
        f'<div class="group"><h3>{escape(group.title)}</h3><dl>'
        + "".join(
            f'<div class="fact" data-tip="{escape(fact.meaning)}"><dt>{escape(fact.name)}</dt>'
            f'<dd class="value">{escape(fact.value)}</dd></div>'
            for fact in group.facts
        )
        + "</dl></div>"
        for group in shown
    )
    told = "".join(
        f"<h4>{escape(group.title)}</h4><dl>"
        + "".join(f"<dt>{escape(fact.name)}</dt><dd>{escape(fact.meaning)}</dd>" for fact in group.facts)
        + "</dl>"
        for group in shown
    )
    return (
        f'<div class="groups">{columns}</div>'
        f'<details class="meanings"><summary>What these numbers mean</summary>{told}</details>'
    )


class _Axis(NamedTuple):
    """The bins of a histogram that are drawn, all equally wide: half-octaves make it logarithmic."""

    edges: np.ndarray
    first: int
    last: int

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        clipped = float(np.clip(value, self.edges[self.first], self.edges[self.last + 1]))
        there = int(np.clip(np.searchsorted(self.edges, clipped, "right") - 1, self.first, self.last))
        within = (clipped - self.edges[there]) / (self.edges[there + 1] - self.edges[there])
        return (there - self.first + min(max(within, 0.0), 1.0)) / (self.last + 1 - self.first)

    def ticks(self) -> list[float]:
        """The powers of ten on the axis; its ends when there are fewer than two."""
        low, high = self.edges[self.first], self.edges[self.last + 1]
        tens = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        return tens if len(tens) > 1 else [float(low), float(high)]


def _axis(histogram: Histogram, marks: Sequence[Mark]) -> _Axis | None:
    edges = np.asarray(histogram.edges, np.float64)
    places = list(np.flatnonzero(np.asarray(histogram.counts) > 0))
    if not places:
        return None
    for mark in marks:
        places.append(int(np.clip(np.searchsorted(edges, mark.value, "right") - 1, 0, len(edges) - 2)))
    return _Axis(edges, int(min(places)), int(max(places)))


def share_below(histogram: Histogram, value: float) -> float:
    """The share of what the histogram counts that lies below a value; within a bin it is spread evenly."""
    counts, edges = np.asarray(histogram.counts, np.float64), np.asarray(histogram.edges, np.float64)
    if not counts.sum():
        return 0.0
    within = np.clip((value - edges[:-1]) / np.diff(edges), 0.0, 1.0)
    return float((counts * within).sum() / counts.sum())


def chart(histogram: Histogram, title: str, unit: str, caption: str, marks: Sequence[Mark]) -> str:
    """A histogram with an axis and marked values; "" when it counts nothing.

    unit: what is counted, "pictures" or "patches". Heights are square roots, to keep rare bins visible.
    """
    marks = [mark for mark in marks if math.isfinite(mark.value) and mark.value > 0]
    axis = _axis(histogram, marks)
    if axis is None:
        return ""
    counts = np.asarray(histogram.counts, np.float64)[axis.first : axis.last + 1]
    tall = 100 * np.sqrt(counts / counts.max())
    spans = [short(edge) for edge in axis.edges[axis.first : axis.last + 2]]
    bars = "".join(
        f'<i style="height:{max(height, 1.5 if count else 0):.1f}%" '
        f'title="{spans[i]} to {spans[i + 1]}: {count:,.0f} {unit}"></i>'
        for i, (count, height) in enumerate(zip(counts, tall, strict=True))
    )
    lines = "".join(
        f'<span class="mark {mark.kind}{" far" if axis.at(mark.value) > 0.6 else ""}" '
        f'style="left:{100 * axis.at(mark.value):.1f}%">'
        f"<b>{escape(mark.words)} {short(mark.value)}</b></span>"
        for mark in marks
    )
    ticks = "".join(
        f'<span style="left:{100 * axis.at(tick):.1f}%">{tick:.2g}</span>' for tick in axis.ticks()
    )
    told = f"{title}: {counts.sum():,.0f} {unit}, " + ", ".join(
        f"{mark.words} {short(mark.value)}" for mark in marks
    )
    return (
        f'<figure class="chart"><div class="plot" role="img" aria-label="{escape(told)}">'
        f'<div class="bars">{bars}</div>{lines}</div><div class="ticks" aria-hidden="true">{ticks}</div>'
        f"<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"
    )
