"""Interventions on a picture's activations, and ways to decode an answer. Knows no model and no store.

The language model's seam (`explorer.vlm.base`) is where decoding ends.
"""

from explorer.records import Edit
from explorer.steer.change import change_ratio, image_level, patch_level, pooled, top_mask
from explorer.steer.contrast import Contrast
from explorer.steer.decoding import Decoding
from explorer.steer.gauges import Gauges, gauges
from explorer.steer.intervention import Intervention, Steered, intervene
from explorer.steer.noise import STEPS, Mixture, noisy_pixels, signal_and_noise
from explorer.steer.ranges import RangeEdit, fitted_range
from explorer.steer.scores import cfg_scores, m3id_scores, vcd_scores, warped

__all__ = [
    "STEPS",
    "Contrast",
    "Decoding",
    "Edit",
    "Gauges",
    "Intervention",
    "Mixture",
    "RangeEdit",
    "Steered",
    "cfg_scores",
    "change_ratio",
    "fitted_range",
    "gauges",
    "image_level",
    "intervene",
    "m3id_scores",
    "noisy_pixels",
    "patch_level",
    "pooled",
    "signal_and_noise",
    "top_mask",
    "vcd_scores",
    "warped",
]
