"""One look for all charts: quiet axes, the system's font, colours for light, dark and the colour-blind.

A chart's paper is transparent. Its texts and lines take the page's colours from assets/ui/charts.css, since
a figure is drawn once for both themes; only what carries data has a colour of its own. Knows plotly.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from explorer.ui.heat import RAMP

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif"
SIZE = 12
TEXT = "#6b7780"
FAINT = "rgba(128, 140, 148, .28)"

COLORS = ("#159485", "#c8701a", "#4a80c4", "#a45fbf", "#8a8f2a", "#c65a74")
"""For series, in this order: each at least 3 to 1 against the sheets of both themes, and told apart by
lightness or hue with any kind of colour vision. Give lines a dash or markers a shape as well."""

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")

CLASS_COLORS = {
    "always_on": COLORS[1],
    "image_specific": COLORS[0],
    "rare": COLORS[2],
    "dead": "#8b959c",
}
"""Colours of the classes of neurons, the same in every chart."""


def scale(low: float = 0.0, high: float = 1.0) -> list[list[object]]:
    """The heat ramp as a colour scale for plotly; low, high: which part of it, 0 to 1."""
    steps = len(RAMP) - 1
    places = [low + (high - low) * i / steps for i in range(steps + 1)]
    return [[i / steps, _ramp_at(place)] for i, place in enumerate(places)]


def _ramp_at(place: float) -> str:
    """A colour of the ramp, 0 to 1."""
    at = min(max(place, 0.0), 1.0) * (len(RAMP) - 1)
    left = min(int(at), len(RAMP) - 2)
    mixed = (a + (b - a) * (at - left) for a, b in zip(RAMP[left], RAMP[left + 1], strict=True))
    return f"rgb({', '.join(str(round(channel)) for channel in mixed)})"


def dressed(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """The figure in the page's look, at a fixed height in pixels.

    layout: what `Figure.update_layout` takes, on top of the look. The legend stands above the data, to the
    left; give `showlegend=False` where there is nothing to tell apart. Nothing can be zoomed by accident:
    give `dragmode="pan"` or "zoom" where it should.
    """
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": SIZE, "color": TEXT},
        colorway=list(COLORS),
        margin={"l": 52, "r": 12, "t": 28, "b": 40, "pad": 4},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        hoverlabel={"font": {"family": FONT, "size": SIZE}, "align": "left", "namelength": -1},
        hovermode="closest",
        dragmode=False,
    )
    axis = {
        "gridcolor": FAINT,
        "linecolor": FAINT,
        "zerolinecolor": FAINT,
        "gridwidth": 1,
        "zerolinewidth": 1,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": SIZE}},
    }
    figure.update_xaxes(**axis, showgrid=False, showline=True, zeroline=False)
    figure.update_yaxes(**axis, showgrid=True, showline=False)
    figure.update_layout(**layout)
    return figure


def line(name: str, x: Sequence[float], y: Sequence[float], place: int = 0, **more: object) -> go.Scatter:
    """One series of a line chart with markers: colour, dash and marker of its place among the series."""
    color = COLORS[place % len(COLORS)]
    return go.Scatter(
        name=name,
        x=list(x),
        y=list(y),
        **{
            "mode": "lines+markers",
            "line": {"color": color, "width": 2, "dash": DASHES[place % len(DASHES)]},
            "marker": {"color": color, "size": 7, "symbol": SYMBOLS[place % len(SYMBOLS)]},
            **more,
        },
    )
