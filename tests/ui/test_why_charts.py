"""The common look of charts."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from explorer.ui import charts

SHEETS = ("#ffffff", "#182026")


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [*charts.COLORS, *charts.CLASS_COLORS.values()])
def test_series_stand_out_on_both_sheets(color: str) -> None:
    for sheet in SHEETS:
        low, high = sorted((luminance(color), luminance(sheet)))
        assert (high + 0.05) / (low + 0.05) >= 3.0, (color, sheet)


def test_a_dressed_figure_is_see_through_and_keeps_what_was_asked() -> None:
    figure = charts.dressed(go.Figure([charts.line("a", [0, 1], [2, 3], 1)]), 240, showlegend=False)
    assert figure.layout.height == 240
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.showlegend is False
    assert figure.data[0].line.color == charts.COLORS[1] and figure.data[0].line.dash == "dash"


def test_the_scale_runs_along_the_heat_ramp() -> None:
    whole = charts.scale()
    assert whole[0] == [0.0, "rgb(60, 16, 84)"] and whole[-1] == [1.0, "rgb(253, 231, 37)"]
    assert charts.scale(0.5, 1.0)[0][1] == "rgb(32, 144, 140)"
