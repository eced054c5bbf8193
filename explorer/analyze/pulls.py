"""How far neurons are pulled: the activations of SAEs differ in size by orders of magnitude. Knows views.

The literature pulls neurons of the embedded SAE's kind to -10 and -30 to take a thing out of an answer; for
an SAE with activations a hundred times as small that would tear the picture apart.
"""

from __future__ import annotations

import math

from explorer.session import View

LIKE = 30.0
"""The strongest activation, about, of the SAEs whose unit is 1, as that of the embedded one."""
LEAST, MOST = 1e-6, 1e4
VALUES = (0.0, -10.0, -30.0)
"""What neurons are set to in trials, in units."""
AGAINST, ALONE = -10.0, -30.0
"""What they are set to while they are ranked, in units: against another answer, and for a word alone."""


def unit(view: View) -> float:
    """The size of activations in this picture: a power of ten, 1 where nothing fires.

    The strongest activation is LIKE units, three times as many at most, or a third.
    """
    values = view.codes.values
    peak = float(values.abs().max()) if len(values) else 0.0
    if not (math.isfinite(peak) and peak > 0):
        return 1.0
    return min(MOST, max(LEAST, 10.0 ** round(math.log10(peak / LIKE))))


def trial_values(view: View) -> tuple[float, ...]:
    """What neurons are set to in trials on this picture."""
    return tuple(value * unit(view) for value in VALUES)
