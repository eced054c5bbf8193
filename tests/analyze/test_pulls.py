"""Neurons are pulled as far as the activations of the SAE at hand ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from explorer.analyze.pulls import VALUES, trial_values, unit
from explorer.session import Session
from explorer.world import draw


def test_the_embedded_sae_is_pulled_as_in_the_literature() -> None:
    session = Session.open(store=None)
    for seed in (0, 1, 2):
        assert trial_values(session.look(draw(seed, "counterfactual").image)) == VALUES


@pytest.mark.parametrize(("times", "expected"), [(0.01, 0.01), (-100, 100), (1e-12, 1e-6), (1e12, 1e4)])
def test_activations_of_another_size_are_pulled_in_proportion(times: float, expected: float) -> None:
    view = Session.open(store=None).look(draw(0, "counterfactual").image)
    scaled = replace(view, codes=view.codes._replace(values=view.codes.values * times))
    assert unit(view) == 1
    assert unit(scaled) == pytest.approx(expected)
    assert trial_values(scaled) == pytest.approx(tuple(value * expected for value in VALUES))
