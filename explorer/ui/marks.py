"""Small marks of a neuron that all parts of the page share: its name, class, shares, a tiny histogram.

Knows the shared records and HTML; asks no session and no store.
"""

from __future__ import annotations

import math
from html import escape

import numpy as np

from explorer.records import Histogram, NeuronSummary

CLASSES = {
    "always_on": (
        "always on",
        "Among the 20 strongest of every indexed picture: it says little of this one.",
    ),
    "image_specific": ("image-specific", "It fires for some pictures and not for others."),
    "rare": ("rare", "It fires in fewer than one of 1,000 indexed pictures."),
    "dead": ("dead", "It fired in no indexed picture."),
}
"""Of each class of neurons: what the page calls it, and what that means."""


def name_of(neuron: int, summary: NeuronSummary | None, own: str = "") -> str:
    """What people call the neuron, else its label in plain words, else "neuron N"."""
    if own:
        return own
    return summary.label.replace("_", " ") if summary is not None and summary.label else f"neuron {neuron}"


def percent(share: float) -> str:
    """A share in the fewest digits that say something."""
    if share <= 0:
        return "0 %"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def number(value: float) -> str:
    """A value in as many digits as a person reads: two after the point, more for small ones."""
    size = abs(value)
    if size == 0 or not math.isfinite(value):
        return "0" if size == 0 else "unknown"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}" if size >= 0.0001 else f"{value:.0e}"


def badge(neuron_class: str) -> str:
    """The class of a neuron as HTML; "" for an unknown one."""
    if neuron_class not in CLASSES:
        return ""
    words, meaning = CLASSES[neuron_class]
    return f'<span class="badge {neuron_class}" title="{escape(meaning)}">{words}</span>'


def histogram_svg(
    histogram: Histogram, at: float | None = None, label: str = "", width: int = 132, height: int = 26
) -> str:
    """A histogram as inline SVG, with a marker where a value lies.

    Only the bins between the first and the last that count anything, or hold the marker, are drawn, all
    equally wide (half-octaves make a logarithmic axis); heights are square roots, to keep rare ones visible.
    label: what the drawing shows, for screen readers and on hover. "" when there is nothing to draw.
    """
    counts = np.asarray(histogram.counts, np.float64)
    edges = np.asarray(histogram.edges, np.float64)
    filled = np.flatnonzero(counts > 0)
    if not filled.size:
        return ""
    first, last = int(filled[0]), int(filled[-1])
    marked = at is not None and math.isfinite(at) and at > 0
    if marked:
        there = int(np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(counts) - 1))
        first, last = min(first, there), max(last, there)
    step = width / (last + 1 - first)
    tall = np.sqrt(counts[first : last + 1] / counts.max()) * (height - 3)
    bars = "".join(
        f"M{i * step:.1f} {height}v-{max(tall[i], 1):.1f}h{max(step - 1, 0.6):.1f}V{height}z"
        for i in np.flatnonzero(tall > 0)
    )
    marker = ""
    if marked:
        within = (at - edges[there]) / (edges[there + 1] - edges[there])
        x = (there - first + min(max(within, 0.0), 1.0)) * step
        marker = f'<path class="at" d="M{min(max(x, 1), width - 1):.1f} 0V{height}"/>'
    said = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    title = f"<title>{escape(label)}</title>" if label else ""
    return (
        f'<svg class="histogram" width="{width}" height="{height}" viewBox="0 0 {width} {height}" {said}>'
        f'{title}<path class="bars" d="{bars}"/>{marker}</svg>'
    )
