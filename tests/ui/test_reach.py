"""Sliders and sweeps go as far as the activations of the SAE at hand ask for."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr
import pytest
import torch

from explorer.cases import rows
from explorer.sae import SparseCodes
from explorer.session import View
from explorer.ui.visit import Visit
from explorer.ui.why.layout import _ends
from explorer.ui.workspace.reach import USUAL, reach
from tests.ui.fake_session import make_view


def scaled(times: float) -> View:
    """The view of the fake session, whose strongest activation is 2, with activations of another size."""
    view = make_view()
    return replace(view, codes=view.codes._replace(values=view.codes.values * times))


@pytest.mark.parametrize(
    ("peak", "expected"),
    [
        (30, 100),
        (11, 100),
        (90, 100),
        (450, 1000),
        (4, 10),
        (0.02, 0.1),
        (-30, 100),
        (1e-9, 1e-4),
        (1e9, 1e6),
    ],
)
def test_a_slider_reaches_some_times_the_strongest_activation(peak: float, expected: float) -> None:
    assert reach(scaled(peak / 2)) == pytest.approx(expected)


def test_where_nothing_fires_it_reaches_as_usual() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert reach(replace(make_view(), codes=SparseCodes(none, none, torch.zeros(0)))) == USUAL


def test_a_sweep_follows_unless_a_person_typed_its_ends() -> None:
    visit = Visit(scaled(200), "t", "data:,")
    assert _ends(visit, -40, 40) == pytest.approx((-400, 400)) == _ends(visit, -0.4, 0.4)
    for typed in ((-40, 30), (-50, 50), (0, 0), (None, 40)):
        assert _ends(visit, *typed) == (gr.skip(), gr.skip())


def test_a_weak_neuron_rests_where_it_fires_and_not_at_zero() -> None:
    row = rows.new_row(3, "three", scaled(0.0016))
    assert (row.rest, row.region) == (0.0032, "active")
    assert rows.new_row(3, "three", scaled(1.2345)).rest == 2.47
    assert (rows.new_row(7, "seven", make_view()).rest, rows.new_row(7, "", make_view()).region) == (0, "all")


def test_a_neuron_that_is_below_zero_acts_where_it_fires_too() -> None:
    row = rows.new_row(3, "three", scaled(-1))
    assert (row.rest, row.region) == (-2, "active")
    (settled,) = rows.settle(rows.dump([row]), scaled(-2), lambda _: make_view().map(0) > 0)
    assert settled.rest == -4
