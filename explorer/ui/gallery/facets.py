"""What the filters offer: a small distribution for each range, counts of classes, labels, people's lists.

Knows the session. Facets of the store are the same for everybody and read once; lists are read each time.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from explorer.session import Session
from explorer.ui.gallery.query import CLASSES
from explorer.ui.marks import CLASSES as CLASS_WORDS

BINS = 28
MOST_LABELS = 1500
"""Labels that are offered while typing; others can be typed in full."""


class Facets:
    """The choices of one session's store. Raises StoreError when it has none."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def ranges(self) -> list[dict[str, Any]]:
        """For each range: its key, title, unit, the edges of its bins, how many neurons lie in each."""
        seen = self._session.overview()
        return [
            facet("fires", "Firing rate", "share", seen.fires, _log_edges(seen.fires, 1.0)),
            facet("peak", "Peak activation", "number", seen.peak, _log_edges(seen.peak)),
            facet("precision", "Label precision", "share", seen.precision, np.linspace(0, 1, 21)),
            facet(
                "monosemanticity",
                "Monosemanticity",
                "number",
                seen.monosemanticity,
                _even_edges(seen.monosemanticity),
            ),
        ]

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """For each class that occurs: its key, words, meaning and number of neurons."""
        counts = self._session.class_counts()
        return [
            {"key": key, "words": CLASS_WORDS[key][0], "meaning": CLASS_WORDS[key][1], "count": counts[key]}
            for key in CLASSES
            if counts.get(key)
        ]

    @cached_property
    def labels(self) -> list[list[Any]]:
        """The labels that most neurons carry, with how many do."""
        return [list(pair) for pair in self._session.label_counts()[:MOST_LABELS]]

    def lists(self) -> list[list[Any]]:
        """People's lists by name, with how many neurons each holds."""
        return [[one.name, len(one.neurons)] for one in self._session.lists()]


def facet(key: str, title: str, unit: str, values: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """One range. Values outside the edges count in the outermost bins, unknown ones nowhere."""
    known = values[np.isfinite(values)]
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    return {
        "key": key,
        "title": title,
        "unit": unit,
        "edges": [float(f"{edge:.3g}") for edge in edges],
        "counts": counts.tolist(),
    }


def _log_edges(values: np.ndarray, top: float | None = None) -> np.ndarray:
    """Edges that grow by a factor, the first bin reaching down to 0."""
    positive = values[values > 0]
    if not positive.size:
        return np.array([0.0, top or 1.0])
    low = float(np.quantile(positive, 0.001))
    high = top or float(positive.max())
    inner = np.unique([float(f"{edge:.2g}") for edge in np.geomspace(min(low, high / 2), high, BINS)[:-1]])
    return np.array([0.0, *inner[inner > 0], high])


def _even_edges(values: np.ndarray) -> np.ndarray:
    """Even edges, in twentieths, around what is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.array([-1.0, 1.0])
    low, high = np.floor(known.min() * 20) / 20, np.ceil(known.max() * 20) / 20
    steps = max(round((high - low) * 20), 1)
    while steps > BINS:
        steps = -(-steps // 2)
    return np.linspace(low, max(high, low + 0.05), steps + 1)
