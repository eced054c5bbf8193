"""Contrastive neuron steering: what noise takes from a picture is strengthened, what it brings is undone.

With the activations z of a picture and z' of the same picture under noise (CNS, arXiv 2602.00621, eq 4-6):

    dz = z - z',  dz[A] = 0 for the always-on neurons A,  z~ = z + strength dz

Neurons that only the noise wakes become negative: their direction is taken out. The equations hold for
activations of either sign: a signed SAE with a neuron's signs turned round is contrasted to the same vectors.
Activations stay sparse throughout. Knows neurons and vectors; nothing of models, pixels or stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.sae import SparseCodes
from explorer.steer.checks import number, seed, whole
from explorer.steer.noise import STEPS

LARGEST_STRENGTH = 1e3


@dataclass(frozen=True)
class Contrast:
    """How a picture is contrasted with its noisy self.

    step: of the noise, 0 .. 999; strength: the paper's lambda, 0 for no change, negative for the
    opposite; seed: of the noise; suppress_always_on: leave the always-on neurons as they are;
    min_frequency: always-on is who is in the image-level top-20 of at least this share of the images;
    clamp: no activation crosses 0 (the paper lets them): one above 0 does not fall below it, one below 0, of
    a signed SAE, does not rise above it, and one that only the noise wakes does not go to its other side.
    Raises EditError for a number outside its limits.
    """

    step: int = 500
    strength: float = 1.0
    seed: int = 0
    suppress_always_on: bool = True
    min_frequency: float = 1.0
    clamp: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", whole("the noise step", self.step, 0, STEPS - 1))
        object.__setattr__(self, "seed", seed("the noise seed", self.seed))
        strength = number("the strength", self.strength, -LARGEST_STRENGTH, LARGEST_STRENGTH)
        object.__setattr__(self, "strength", strength)
        number("the frequency of always-on neurons", self.min_frequency, 0.0, 1.0, above=True)


def contrasted(
    codes: SparseCodes, noisy: SparseCodes, contrast: Contrast, n_neurons: int, always_on: Sequence[int] = ()
) -> SparseCodes:
    """z~ - z of a picture with activations `codes` and, under noise, `noisy`: only what is not 0.

    Raises EditError for an always-on neuron that does not exist.
    """
    wrong = [neuron for neuron in always_on if not 0 <= neuron < n_neurons]
    if wrong:
        raise EditError(
            f"there is no neuron {wrong[0]} that could be always on: this SAE has {n_neurons}, counted from 0"
        )
    keys = torch.cat([codes.tokens * n_neurons + codes.neurons, noisy.tokens * n_neurons + noisy.neurons])
    merged, place = torch.unique(keys, return_inverse=True)
    z, under_noise = place.split([len(codes.values), len(noisy.values)])
    before, after = codes.values.new_zeros(2, len(merged))
    before[z], after[under_noise] = codes.values, noisy.values
    neurons = merged % n_neurons
    change = contrast.strength * (before - after)
    if contrast.suppress_always_on and len(always_on):
        change[torch.isin(neurons, torch.tensor(sorted(always_on), device=neurons.device))] = 0.0
    if contrast.clamp:
        side = torch.where(before != 0, before, after).sign()
        change = side * (side * (before + change)).clamp_min(0.0) - before
    return kept(SparseCodes(merged // n_neurons, neurons, change), change != 0)


def kept(codes: SparseCodes, where: Tensor) -> SparseCodes:
    """The entries of `codes` that a boolean tensor marks, or that indices name, in their order."""
    return SparseCodes(*(part[where] for part in codes))
