"""Charts of the whole SAE: how often against how strongly neurons fire, and a map of their directions.

Knows the records and plotly; asks no session. A point carries its neuron's number as customdata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from explorer.records import Overview
from explorer.ui.charts import CLASS_COLORS, COLORS, SIZE, dressed, scale
from explorer.ui.marks import CLASSES

HEIGHT = 560
FEW = 5000
"""Points up to which a chart is drawn as vectors; more are drawn by the graphics card."""

LABELS = len(COLORS)
"""Labels that get a colour of their own."""

REST = "rgba(132, 144, 152, .32)"
UNKNOWN = "rgba(132, 144, 152, .75)"


class Group(NamedTuple):
    """Points of one look: neurons [n], a name for the legend, and a colour or the numbers that give it."""

    name: str
    neurons: np.ndarray
    colour: str | np.ndarray


def overview_figure(
    seen: Overview, names: Sequence[str], chosen: np.ndarray | None, colour: str
) -> go.Figure:
    """Firing rate against mean activation, both logarithmic; neurons that never fired have no place.

    names: of all neurons, as HTML; chosen: which pass the filters, [F] bool, None for all; the rest is grey.
    """
    placed = (seen.fires > 0) & (seen.mean > 0)
    hover = "<b>%{text}</b> #%{customdata}<br>fires in %{x:.2~p} of pictures, mean %{y:.3g}<extra></extra>"
    figure = _scatter(seen, names, (seen.fires, seen.mean), placed, chosen, colour, hover)
    steps = {"type": "log", "dtick": "D2"}
    figure.update_xaxes(**steps, title_text="Firing rate (share of indexed pictures)", tickformat=".1~p")
    figure.update_yaxes(**steps, title_text="Mean activation where it fires", tickformat="~g")
    return figure


def map_figure(seen: Overview, names: Sequence[str], chosen: np.ndarray | None, colour: str) -> go.Figure:
    """Decoder directions in two dimensions: near points point alike. Arguments as in `overview_figure`."""
    placed = np.isfinite(seen.x) & np.isfinite(seen.y)
    hover = "<b>%{text}</b> #%{customdata}<extra></extra>"
    figure = _scatter(seen, names, (seen.x, seen.y), placed, chosen, colour, hover)
    bare = {"showticklabels": False, "showgrid": False, "zeroline": False, "showline": False}
    figure.update_xaxes(**bare)
    figure.update_yaxes(**bare)
    figure.update_layout(margin={"l": 8, "r": 8, "t": 28, "b": 8})
    return figure


def caption(view: str, seen: Overview, chosen: np.ndarray | None) -> str:
    """What the chart shows, in plain text."""
    if view == "overview":
        silent = int(((seen.fires <= 0) | (seen.mean <= 0)).sum())
        words = "Every point is a neuron: how often it fires against how strongly, on average, where it does"
        missing = f"; {silent:,} never fired and have no place" if silent else ""
    else:
        lost = int((~np.isfinite(seen.x)).sum())
        words = "Every point is a neuron; those whose decoder directions are alike lie near each other"
        missing = f"; {lost:,} without a direction have no place" if lost else ""
    grey = "" if chosen is None else " Neurons that the filters leave out are grey."
    return (
        f"{words}{missing}.{grey} Click a point to open its neuron, drag to zoom, double-click to go back. "
        "Cards lists the same neurons for the keyboard."
    )


def _scatter(
    seen: Overview,
    names: Sequence[str],
    at: tuple[np.ndarray, np.ndarray],
    placed: np.ndarray,
    chosen: np.ndarray | None,
    colour: str,
    hover: str,
) -> go.Figure:
    """The points that have a place: the rest first, so that what was chosen lies on top."""
    lit = placed if chosen is None else placed & chosen
    kind = go.Scatter if len(placed) <= FEW else go.Scattergl
    size = 6.0 if len(placed) <= FEW else 4.0
    figure = go.Figure()

    def add(group: Group, size: float, opacity: float) -> None:
        marker: dict[str, object] = {"size": size, "opacity": opacity, "color": group.colour}
        by_number = isinstance(group.colour, np.ndarray)
        if by_number:
            marker |= _ramp(group.colour)
        figure.add_trace(
            kind(
                name=group.name,
                showlegend=not by_number,
                x=at[0][group.neurons].astype(np.float32),
                y=at[1][group.neurons].astype(np.float32),
                customdata=group.neurons.astype(np.int32),
                text=[names[neuron] for neuron in group.neurons],
                mode="markers",
                marker=marker,
                hovertemplate=hover,
            )
        )

    rest = np.flatnonzero(placed & ~lit)
    if rest.size:
        add(Group("other neurons", rest, REST), size - 1, 1.0)
    for group in groups(seen, np.flatnonzero(lit), colour):
        add(group, size, 0.85 if len(placed) <= FEW else 0.7)
    return dressed(figure, HEIGHT, dragmode="zoom", legend={"itemsizing": "constant"})


def _ramp(values: np.ndarray) -> dict[str, object]:
    """The marker of points that a number colours."""
    low, high = np.quantile(values, [0.01, 0.99])
    return {
        "colorscale": scale(0.28, 0.97),
        "cmin": float(low),
        "cmax": float(max(high, low + 1e-6)),
        "line": {"width": 0.5, "color": UNKNOWN},
        "colorbar": {
            "title": {"text": "label entropy (nats)", "side": "right", "font": {"size": SIZE}},
            "thickness": 10,
            "outlinewidth": 0,
            "len": 0.6,
            "ticks": "",
        },
    }


def groups(seen: Overview, neurons: np.ndarray, colour: str) -> Iterator[Group]:
    """Divide neurons by what colours them: the quiet groups first, so that the others lie on top."""
    if colour == "entropy":
        known = np.isfinite(seen.entropy[neurons])
        yield from _some("unknown", neurons[~known], UNKNOWN)
        if known.any():
            yield Group("label entropy", neurons[known], seen.entropy[neurons[known]].astype(np.float32))
    elif colour == "label":
        labels = seen.labels[neurons]
        most = [label for label, _ in Counter(labels[labels != ""].tolist()).most_common(LABELS)]
        yield from _some("no label", neurons[labels == ""], REST)
        yield from _some("other labels", neurons[(labels != "") & ~np.isin(labels, most)], UNKNOWN)
        for label, shade in zip(most, COLORS, strict=False):
            yield from _some(label.replace("_", " "), neurons[labels == label], shade)
    else:
        classes = seen.classes[neurons]
        for key in ("dead", "image_specific", "rare", "always_on"):
            yield from _some(CLASSES[key][0], neurons[classes == key], CLASS_COLORS[key])


def _some(name: str, neurons: np.ndarray, colour: str) -> Iterator[Group]:
    if neurons.size:
        yield Group(f"{name} ({neurons.size:,})", neurons, colour)
