"""Charts of the sweeps, and the captions along them as lists.

Knows the records of the analyses, plotly and HTML; nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from explorer.analyze.alpha import AlphaPoint, AlphaSweep
from explorer.analyze.changes import CLASSES
from explorer.analyze.noise import Sweep, averaged
from explorer.ui import charts
from explorer.ui.marks import CLASSES as CLASS_NAMES
from explorer.ui.why.telling import number
from explorer.ui.workspace.words import mark

HEIGHT = 260
ALPHA_CAPTION = (
    "How likely the word is at its place in the untouched answer, while one neuron is set to each value. "
    "Dashed lines: where the word goes or comes. Numbers: the captions listed below."
)
NOISE_CAPTION = (
    "Left: the share of the 20 strongest neurons (and of the next 20) that noise replaced. Right: how much "
    "of their activation is left. By class, the mean over the draws of noise."
)
_SHOWN = CLASSES[1:]


class Stretch(NamedTuple):
    """Neighbouring values with one caption."""

    low: float
    high: float
    caption: str
    said: bool
    untouched: bool


def stretches(points: Sequence[AlphaPoint]) -> list[Stretch]:
    """Where the caption stays the same, ascending."""
    found = []
    for caption, group in groupby(points, key=lambda point: point.caption):
        inside = list(group)
        untouched = any(point.untouched for point in inside)
        found.append(Stretch(inside[0].alpha, inside[-1].alpha, caption, inside[0].said, untouched))
    return found


def alpha_chart(sweep: AlphaSweep, neuron: str, word: str) -> go.Figure:
    """The word's log-probability against the neuron's value, with flip points and numbered captions.

    neuron: its name; word: the run of words whose log-probability it is.
    """
    points = sweep.points
    figure = go.Figure()
    figure.add_scatter(
        x=[point.alpha for point in points],
        y=[point.log_prob for point in points],
        mode="lines",
        line={"color": charts.COLORS[0], "width": 2},
        showlegend=False,
        hoverinfo="skip",
    )
    for name, symbol, chosen in (
        ("in the caption", "circle", [p for p in points if p.said and not p.untouched]),
        ("not in the caption", "circle-open", [p for p in points if not p.said and not p.untouched]),
        ("untouched", "diamond", [p for p in points if p.untouched]),
    ):
        figure.add_scatter(
            name=name,
            x=[point.alpha for point in chosen],
            y=[point.log_prob for point in chosen],
            customdata=[_wrapped(point.caption) for point in chosen],
            mode="markers",
            marker={"color": charts.COLORS[1 if symbol == "diamond" else 0], "size": 9, "symbol": symbol},
            hovertemplate="at %{x:.3g}: %{y:.2f} nats<br>%{customdata}<extra></extra>",
        )
    for flip in sweep.flips:
        way = "goes" if flip.leaves else "comes"
        figure.add_vline(x=flip.alpha, line={"color": charts.COLORS[1], "width": 1, "dash": "dash"})
        figure.add_annotation(
            x=flip.alpha, y=0, yref="paper", yanchor="bottom", xanchor="left", showarrow=False,
            text=f"{way} at {number(round(flip.alpha, 1))}",
        )  # fmt: skip
    for i, one in enumerate(stretches(points)):
        middle = (one.low + one.high) / 2
        figure.add_annotation(x=middle, y=1, yref="paper", yanchor="bottom", showarrow=False, text=f"{i + 1}")
    charts.dressed(figure, HEIGHT, legend={"y": 1.1}, margin={"l": 56, "r": 12, "t": 48, "b": 44, "pad": 4})
    figure.update_xaxes(title={"text": f"value of {neuron}"})
    figure.update_yaxes(title={"text": f"log-probability of “{word}”"})
    return figure


def alpha_captions(sweep: AlphaSweep) -> str:
    """The captions by number, with the values at which they are said; changed words marked."""
    before = sweep.untouched.caption
    rows = ""
    for i, one in enumerate(stretches(sweep.points)):
        low, high = number(round(one.low, 1)), number(round(one.high, 1))
        span = low if low == high else f"{low} to {high}"
        note = " (untouched)" if one.untouched else ""
        rows += (
            f'<tr><th scope="row">{i + 1}</th><td class="num">{span}{note}</td>'
            f"<td>{_marked(before, one.caption)}</td></tr>"
        )
    return _caption(ALPHA_CAPTION) + _table(("", "value", "caption"), rows)


def noise_chart(parts: Sequence[Sweep], kept: bool) -> go.Figure:
    """By class and step of the noise: which share of the strongest neurons was replaced, or, `kept`, how much
    of their activation is left. parts: sweeps of one step each."""
    steps = [part.steps[0] for part in parts]
    figure = go.Figure()
    for place, name in enumerate(_SHOWN):
        values = [_mean(part, CLASSES.index(name), kept) for part in parts]
        if np.isnan(values).all():
            continue
        color = charts.CLASS_COLORS.get(name, charts.COLORS[2])
        figure.add_trace(
            charts.line(
                _called(name),
                steps,
                values,
                place,
                line={"color": color, "width": 2, "dash": charts.DASHES[place]},
                marker={"color": color, "size": 7, "symbol": charts.SYMBOLS[place]},
                hovertemplate="step %{x}: %{y:.0%}<extra></extra>",
            )
        )
    charts.dressed(figure, HEIGHT)
    figure.update_xaxes(title={"text": "step of the noise"})
    title = "activation left" if kept else "neurons replaced"
    figure.update_yaxes(title={"text": title}, tickformat=".0%", rangemode="tozero")
    return figure


def noise_captions(parts: Sequence[Sweep], before: str) -> str:
    """What the model says of the noisy pictures, and of the picture contrasted with them."""
    rows = "".join(
        f'<tr><th scope="row">{part.steps[0]}</th><td>{_marked(before, part.captions[0])}</td>'
        f"<td>{_marked(before, part.contrasted[0])}</td></tr>"
        for part in parts
    )
    heads = ("step", "of the noisy picture", "of the picture, contrasted with it (CNS)")
    return _caption(NOISE_CAPTION) + _table(heads, rows)


def _mean(part: Sweep, place: int, kept: bool) -> float:
    values = part.changes.kept if kept else part.changes.image
    return float(averaged(values[:, :, place]).mean[0])


def _called(name: str) -> str:
    return CLASS_NAMES[name][0] if name in CLASS_NAMES else "the next strongest"


def _marked(before: str, after: str) -> str:
    shown = mark(before, after, buttons=False).after
    return f'<span class="said" title="{escape(after)}">{shown or "(no words)"}</span>'


def _caption(words: str) -> str:
    return f'<p class="caption">{escape(words)}</p>'


def _table(heads: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return (
        f'<div class="captions" tabindex="0" role="region" aria-label="Captions"><table>'
        f"<thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _wrapped(text: str, width: int = 60) -> str:
    """Escaped, with line breaks, for a hover."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "<br>".join(escape(one) for one in [*lines, line])
