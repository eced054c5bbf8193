"""How far sliders go in a picture. Knows views only."""

from __future__ import annotations

from explorer.analyze.pulls import unit
from explorer.session import View

USUAL = 100.0
"""The end of a slider, in units of the picture's activations."""


def reach(view: View) -> float:
    """The end of a slider that sets or adds activations in this picture: a power of ten.

    It goes some three times as far as the strongest activation, and ten times at most; `USUAL` where
    nothing fires.
    """
    return USUAL * unit(view)
