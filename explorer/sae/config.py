"""What a Matryoshka BatchTopK training is told, and the few numbers that follow from it. Knows no tensors.

The defaults are those of the runs behind "Contrastive Neuron Steering" (arXiv 2602.00621), which
trains with the code of "Sparse Autoencoders Learn Monosemantic Features in VLMs" (sae-for-vlm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from explorer.errors import SAEError


@dataclass(frozen=True)
class TrainConfig:
    """A Matryoshka BatchTopK training. Raises SAEError for values that make no sense together.

    expansion: neurons per dimension of the vectors (F = expansion * d).
    k: activations kept per vector, on average over a batch.
    group_fractions: share of the neurons in each Matryoshka group, from the first; the sum is 1.
    group_weights: weight of each group's reconstruction loss; None: 1 / number of groups each.
        The loss is the mean over groups of the weighted losses, so the weights act divided by G.
    steps: optimiser steps; batch: vectors per step.
    lr: peak learning rate of Adam; None: 2e-4 / sqrt(F / 2^14).
    warmup: steps of linear rise of the learning rate from 0.
    decay_start: step from which it falls linearly towards 0 at `steps`; None: it stays.
    aux_alpha: weight of the auxiliary loss, by which dead neurons learn the residual.
    dead_after: a neuron is dead after this many vectors (tokens) without firing.
    threshold_start: step after which the running threshold is estimated.
    threshold_decay: how much of the running threshold stays at each step.
    norm_batches: batches from which the norm of the vectors is measured before training; they are
        not trained on. 0: the vectors are not scaled.
    clip: largest norm of the gradient of all parameters together.
    seed: of the initial weights.
    bf16: look for the largest pre-activations in bfloat16 with a safety margin, then compute those
        in float32. Losses, gradients and threshold are float32 either way.
    """

    expansion: int = 16
    k: int = 20
    group_fractions: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5625)
    group_weights: tuple[float, ...] | None = None
    steps: int = 100_000
    batch: int = 4096
    lr: float | None = None
    warmup: int = 1000
    decay_start: int | None = None
    aux_alpha: float = 0.03
    dead_after: int = 10_000_000
    threshold_start: int = 1000
    threshold_decay: float = 0.999
    norm_batches: int = 100
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_fractions", tuple(self.group_fractions))
        if self.group_weights is not None:
            object.__setattr__(self, "group_weights", tuple(self.group_weights))
        for name in ("expansion", "k", "steps", "batch", "dead_after"):
            _require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: it must be at least 1")
        for name in ("warmup", "threshold_start", "norm_batches", "aux_alpha"):
            _require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: it must not be negative")
        _require(self.clip > 0, f"clip = {self.clip}: it must be above 0")
        _require(self.lr is None or self.lr > 0, f"lr = {self.lr}: it must be above 0")
        _require(0 <= self.threshold_decay < 1, f"threshold_decay = {self.threshold_decay}: 0 <= it < 1")
        _require(
            self.threshold_start + 1 < self.steps,
            f"threshold_start = {self.threshold_start} leaves none of {self.steps} steps for the threshold",
        )
        if self.decay_start is not None:
            _require(
                self.warmup <= self.decay_start < self.steps,
                f"decay_start = {self.decay_start}: use warmup {self.warmup} <= it < steps {self.steps}",
            )
        _require(
            len(self.group_fractions) > 0
            and min(self.group_fractions) > 0
            and math.isclose(sum(self.group_fractions), 1.0, abs_tol=1e-6),
            f"group_fractions = {self.group_fractions}: they must be above 0 and add up to 1",
        )
        _require(
            self.group_weights is None
            or (len(self.group_weights) == len(self.group_fractions) and min(self.group_weights) >= 0),
            f"group_weights = {self.group_weights}: give {len(self.group_fractions)} numbers >= 0",
        )

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each group's loss."""
        groups = len(self.group_fractions)
        return self.group_weights or (1.0 / groups,) * groups

    def n_neurons(self, width: int) -> int:
        """Number of neurons F for vectors of width d."""
        return self.expansion * width

    def group_sizes(self, n_neurons: int) -> tuple[int, ...]:
        """Neurons in each group: the fraction rounded down, and what is left over in the last."""
        sizes = [int(fraction * n_neurons) for fraction in self.group_fractions[:-1]]
        return (*sizes, n_neurons - sum(sizes))

    def peak_lr(self, n_neurons: int) -> float:
        """The learning rate between warm-up and decay."""
        return self.lr if self.lr is not None else 2e-4 / math.sqrt(n_neurons / 2**14)

    def lr_share(self, step: int) -> float:
        """Share of the peak learning rate at a step (the first is 0): warm-up, constant, decay."""
        if step < self.warmup:
            return step / self.warmup
        if self.decay_start is not None and step >= self.decay_start:
            return (self.steps - step) / (self.steps - self.decay_start)
        return 1.0


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SAEError(message)
