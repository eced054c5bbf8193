"""What an SAE does to each vector before it reads it, and undoes to what it gives back.

Some SAEs see each vector by its shape alone: they take its mean off and divide by its deviation, or give it a
fixed length. What they decode has to be scaled back with the figures of the very vector that was encoded, so
those figures travel beside the activations: a `Scale`. Knows vectors; nothing of weights, files or models.
"""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

from explorer.errors import SAEError

ScalingKind = Literal["none", "layer_norm", "constant_norm"]

SMALLEST = 1e-30
"""Least length or deviation that is divided by, so that a vector of zeros stays finite."""


class Scale(NamedTuple):
    """What gives vectors [..., d] in an SAE's units back theirs: x_hat = y * factor + offset.

    factor: [..., 1] float32; offset: [..., 1] float32, or None for 0.
    """

    factor: Tensor
    offset: Tensor | None = None

    def flat(self) -> Scale:
        """The same for the vectors in one row: [n, 1]."""
        return Scale(*(None if part is None else part.reshape(-1, 1) for part in self))

    def back(self, y: Tensor) -> Tensor:
        """Vectors [..., d] in the units of x, of the vectors y [..., d] in those of the SAE."""
        y = y * self.factor
        return y if self.offset is None else y + self.offset


@dataclass(frozen=True)
class Scaling:
    """The scaling of each input vector by itself.

    kind: "none"; "layer_norm": xn = (x - mean) / (std + eps), given back by x_hat = y * std + mean;
        "constant_norm": xn = x * norm / ||x||, given back by x_hat = y * ||x|| / norm.
    eps: added to the deviation before it divides, not when it multiplies. ddof: what the divisor of the
        deviation is smaller than d by: 1 for the unbiased one. norm: the length that "constant_norm" gives;
        0 for the square root of d.
    Raises SAEError for an unknown kind or numbers that do not fit.
    """

    kind: ScalingKind = "none"
    eps: float = 0.0
    ddof: int = 1
    norm: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScalingKind):
            known = ", ".join(get_args(ScalingKind))
            raise SAEError(f"unknown scaling of the input {self.kind!r}; use one of {known}")
        for name in ("eps", "norm"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise SAEError(f"{name} = {value!r} of the input's scaling is not a number of 0 or more")
        if self.ddof not in (0, 1):
            raise SAEError(f"ddof = {self.ddof!r} of the input's scaling is neither 0 nor 1")

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.kind != "none"

    def stated(self) -> dict[str, Any]:
        """The scaling as JSON values."""
        return asdict(self)

    def apply(self, x: Tensor) -> tuple[Tensor, Scale | None]:
        """The scaled vectors xn [..., d] of the vectors x [..., d], float32, and what gives x its scale back.

        A vector of zeros, or one that is the same everywhere, becomes zeros. Without scaling: x and None.
        """
        x = x.float()
        if self.kind == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            centred = x - mean
            std = centred.square().sum(-1, keepdim=True).div(max(x.shape[-1] - self.ddof, 1)).sqrt()
            return centred / (std + self.eps).clamp_min(SMALLEST), Scale(std, mean)
        if self.kind == "constant_norm":
            norm = self.norm or math.sqrt(x.shape[-1])
            length = x.norm(dim=-1, keepdim=True)
            return x * (norm / length.clamp_min(SMALLEST)), Scale(length / norm)
        return x, None

    def scale(self, x: Tensor) -> Scale | None:
        """What gives back the scale of the vectors x [..., d]; None without scaling."""
        return self.apply(x)[1]


class LastScale(threading.local):
    """The scale that each thread's last encoding found. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self.scale: Scale | None = None

    def __reduce__(self) -> tuple[type[LastScale], tuple[()]]:
        return (LastScale, ())
