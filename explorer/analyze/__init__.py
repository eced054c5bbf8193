"""Questions about why the model says what it says, asked of a session: sweeps, attribution, word maps."""

from explorer.analyze.alpha import alpha_sweep
from explorer.analyze.attribution import attribute
from explorer.analyze.noise import noise_curve, noise_sweep
from explorer.analyze.repair import repair
from explorer.analyze.words import attended_top, word_map

__all__ = ["alpha_sweep", "attended_top", "attribute", "noise_curve", "noise_sweep", "repair", "word_map"]
