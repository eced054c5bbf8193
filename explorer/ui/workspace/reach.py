"""How far sliders go: the activations of SAEs differ in size by orders of magnitude. Knows views only."""

from __future__ import annotations

import math

from explorer.session import View

USUAL = 100.0
"""Of an SAE whose strongest activations are about `LIKE`, as those of the embedded one."""

LIKE = 30.0
LEAST, MOST = 1e-4, 1e6


def reach(view: View) -> float:
    """The end of a slider that sets or adds activations in this picture: a power of ten.

    It goes some three times as far as the strongest activation, and thirty times at most; `USUAL` where
    nothing fires.
    """
    values = view.codes.values
    peak = float(values.abs().max()) if len(values) else 0.0
    if not (math.isfinite(peak) and peak > 0):
        return USUAL
    return min(MOST, max(LEAST, USUAL * 10.0 ** round(math.log10(peak / LIKE))))
