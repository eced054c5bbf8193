"""How pre-activations become activations: the activation rules of sparse autoencoders, dense and sparse.

Knows rows of numbers; nothing of weights, files or models.
"""

from __future__ import annotations

import hashlib
import math
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor

from explorer.errors import SAEError

Kind = Literal["relu", "jumprelu", "topk", "abstopk", "groupmax"]

COUNTED = ("topk", "abstopk", "groupmax")
"""Kinds that need a k of at least 1."""


class SparseCodes(NamedTuple):
    """The activations of T vectors that are not 0, in order of (token, neuron): three tensors of one length.

    All are above 0, unless the rule is signed. tokens: int64, the vector's place 0 .. T-1; neurons: int64;
    values: float32.
    """

    tokens: Tensor
    neurons: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class ActivationRule:
    """How pre-activations become activations.

    kind: "relu" keeps what is above 0, "jumprelu" what is above `threshold` and above 0, "topk" the k largest
        per vector after ReLU, "abstopk" the k largest by magnitude with their signs, "groupmax" the largest
        after ReLU of each of k equal contiguous groups of neurons. A batch-top-k SAE is "jumprelu" once
        it is trained: its threshold is the running mean of the smallest value that the batch kept.
    threshold: for "jumprelu", in the units of z: one number, or a tensor [F] with one for each neuron, which
        is kept as float32. A negative one acts as 0; at +inf a neuron never fires.
    k: for "topk", "abstopk" and "groupmax", how many stay; else how many were meant to stay on average
        (0: unknown).
    inclusive: for "jumprelu", keep a value that equals the threshold too.
    signed: for "topk", rank the pre-activations without ReLU; what stays may be negative.
    Raises SAEError for an unknown kind, a threshold that is NaN or no number, or a k, inclusive or signed
    that does not fit the kind.
    """

    kind: Kind = "relu"
    threshold: float | Tensor = 0.0
    k: int = 0
    inclusive: bool = False
    signed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SAEError(f"unknown activation rule {self.kind!r}; use one of {', '.join(get_args(Kind))}")
        if isinstance(self.threshold, Tensor):
            object.__setattr__(self, "threshold", _checked_thresholds(self.threshold, self.kind))
        elif isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise SAEError(f"the threshold {self.threshold!r} is not a number")
        elif math.isnan(self.threshold) or self.threshold == -math.inf:
            raise SAEError(f"the threshold {self.threshold!r} is not finite")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < (self.kind in COUNTED):
            raise SAEError(f"k = {self.k!r} does not fit the activation rule {self.kind!r}")
        for name, kind in (("inclusive", "jumprelu"), ("signed", "topk")):
            if getattr(self, name) not in (True, False) or (getattr(self, name) and self.kind != kind):
                found = getattr(self, name)
                raise SAEError(f"{name} = {found!r} does not fit the activation rule {self.kind!r}")

    def __eq__(self, other: object) -> bool:
        """Whether the other rule keeps the same of any pre-activations."""
        if not isinstance(other, ActivationRule):
            return NotImplemented
        return self.stated() == other.stated()

    def __hash__(self) -> int:
        return hash(repr(self.stated()))

    @property
    def negatives(self) -> bool:
        """Whether activations below 0 may stay."""
        return self.signed or self.kind == "abstopk"

    @property
    def per_neuron(self) -> bool:
        """Whether each neuron has its own threshold."""
        return isinstance(self.threshold, Tensor)

    @property
    def first(self) -> bool:
        """Whether files of format version 1 can hold it."""
        plain = self.kind in ("relu", "jumprelu", "topk") and not (self.inclusive or self.signed)
        return plain and not self.per_neuron and math.isfinite(self.threshold)

    def stated(self) -> dict[str, Any]:
        """The rule as JSON values, without what it does not use beyond kind, threshold and k.

        A tensor of thresholds is named by its SHA-256.
        """
        threshold = self.threshold
        if isinstance(threshold, Tensor):
            threshold = hashlib.sha256(threshold.cpu().contiguous().numpy().data).hexdigest()
        flags = {name: True for name in ("inclusive", "signed") if getattr(self, name)}
        return {"kind": self.kind, "threshold": threshold, "k": self.k, **flags}

    def check(self, n_neurons: int) -> None:
        """Raise SAEError when the thresholds or groups do not fit so many neurons."""
        if isinstance(self.threshold, Tensor) and self.threshold.shape != (n_neurons,):
            raise SAEError(
                f"the thresholds have the shape {list(self.threshold.shape)}; expected [{n_neurons}]"
            )
        if self.kind == "groupmax" and n_neurons % self.k:
            raise SAEError(f"{n_neurons} neurons cannot be split into k = {self.k} equal groups")

    def to(self, device: torch.device | str) -> Self:
        """The rule with its thresholds on a device."""
        if not isinstance(self.threshold, Tensor) or self.threshold.device == torch.device(device):
            return self
        moved = copy(self)
        object.__setattr__(moved, "threshold", self.threshold.to(device))
        return moved

    def __call__(self, p: Tensor) -> Tensor:
        """Activations [..., F] of the pre-activations [..., F]."""
        if self.kind in ("relu", "jumprelu"):
            return torch.relu(p) * self._fires(p) if self.kind == "jumprelu" else torch.relu(p)
        kept = self._chosen(p)
        return p if kept is None else torch.zeros_like(p).scatter(-1, kept.neurons, kept.values)

    def sparse(self, p: Tensor) -> SparseCodes:
        """The activations that are not 0 of the pre-activations p [T, F]."""
        if self.kind in ("relu", "jumprelu"):
            token, neuron = self._fires(p).nonzero(as_tuple=True)
            return SparseCodes(token, neuron, p[token, neuron])
        kept = self._chosen(p)
        if kept is None:
            token, neuron = p.nonzero(as_tuple=True)
            return SparseCodes(token, neuron, p[token, neuron])
        neurons, order = kept.neurons.sort(dim=-1)
        values = kept.values.gather(-1, order)
        token, place = values.nonzero(as_tuple=True)
        return SparseCodes(token, neurons[token, place], values[token, place])

    def _fires(self, p: Tensor) -> Tensor:
        """Which of the pre-activations [..., F] stay under "relu" or "jumprelu", bool."""
        if self.kind == "relu":
            return p > 0
        if not isinstance(self.threshold, Tensor):
            return (p >= self.threshold) & (p > 0) if self.inclusive else p > max(self.threshold, 0.0)
        threshold = self.threshold.to(p.device)
        return (p >= threshold) & (p > 0) if self.inclusive else p > threshold.clamp_min(0)

    def _chosen(self, p: Tensor) -> _Chosen | None:
        """What a rule with a k keeps of p [..., F]; None for all of it."""
        k = min(self.k, p.shape[-1])
        if self.kind == "abstopk":
            places = p.abs().topk(k, dim=-1).indices
            return _Chosen(places, p.gather(-1, places))
        if self.kind == "groupmax":
            groups = torch.relu(p).unflatten(-1, (k, -1)).max(dim=-1)
            starts = torch.arange(0, p.shape[-1], p.shape[-1] // k, device=p.device)
            return _Chosen(groups.indices + starts, groups.values)
        kept = (p if self.signed else torch.relu(p)).topk(k, dim=-1)
        return _Chosen(kept.indices, kept.values)


class _Chosen(NamedTuple):
    """The neurons that stay of each row [..., n], and their values [..., n]."""

    neurons: Tensor
    values: Tensor


def _checked_thresholds(thresholds: Tensor, kind: str) -> Tensor:
    """The thresholds as float32. Raises SAEError for what cannot be thresholds of this kind."""
    if kind != "jumprelu":
        raise SAEError(f"thresholds for each neuron belong to the activation rule 'jumprelu', not {kind!r}")
    if not thresholds.is_floating_point() or thresholds.ndim != 1:
        raise SAEError(
            f"the thresholds are {thresholds.dtype} of shape {list(thresholds.shape)}; expected floats [F]"
        )
    bad = int(thresholds.isnan().sum())
    if bad:
        raise SAEError(f"{bad} of the {len(thresholds)} thresholds are NaN")
    return thresholds.detach().float()
