"""The conventions of other projects, folded into the one form of `explorer.sae.model`.

    p = (xn - b_dec) W_enc + b_enc        z = rule(p)        y = z W_dec + b_dec

Each function takes weights in another form and gives them in this one, so that p, z and y stay what they are
(or become what its docstring says). It knows formulas; nothing of files, settings or projects.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.loaders.found import check_finite
from explorer.sae.model import ActivationRule


class Weights(NamedTuple):
    """W_enc [d, F], b_enc [F], W_dec [F, d], b_dec [d], all float32."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    def uncentred(self) -> Self:
        """From p = xn W_enc + b_enc, where b_dec is not taken off."""
        return self._replace(b_enc=self.b_enc + self.b_dec @ self.W_enc)

    def factored(self, factor: float) -> Self:
        """From weights for vectors times a number, to take the vectors as they are; p is the same."""
        return self._replace(W_enc=self.W_enc * factor, W_dec=self.W_dec / factor, b_dec=self.b_dec / factor)

    def whitened(self, mean: Tensor, matrix: Tensor, inverse: Tensor) -> Self:
        """From weights for (x - mean) matrix, given back as y inverse + mean; p is the same.

        mean: [d]; matrix, inverse: [d, d], the second the inverse of the first.
        """
        return self._replace(
            W_enc=matrix @ self.W_enc, W_dec=self.W_dec @ inverse, b_dec=self.b_dec @ inverse + mean
        )

    def unit_rows(self) -> Self:
        """z is times the length of its decoder row, which becomes 1. A row of zeros stays; its z is 0."""
        length = self.W_dec.norm(dim=-1)
        rows = self.W_dec / torch.where(length > 0, length, 1.0)[:, None]
        return self._replace(W_enc=self.W_enc * length, b_enc=self.b_enc * length, W_dec=rows)


class Gated(NamedTuple):
    """A gated SAE as one whose neurons each have a threshold: W_enc [d, F], b_enc [F], rule."""

    W_enc: Tensor
    b_enc: Tensor
    rule: ActivationRule


def gated(W: Tensor, b_gate: Tensor, b_mag: Tensor, r_mag: Tensor) -> Gated:
    """From z = relu(u exp(r_mag) + b_mag) where u + b_gate > 0, for u = xn W; W: [d, F], the others: [F].

    Raises SAEError when exp(r_mag) is not finite.
    """
    gain = r_mag.exp()
    check_finite({"exp(r_mag)": gain})
    return Gated(W * gain, b_mag, ActivationRule("jumprelu", b_mag - b_gate * gain))


def thresholds(values: Tensor) -> float | Tensor:
    """Thresholds [F] as one number where all are the same and finite, else as they are."""
    first = values[0].item()
    return first if bool(torch.isfinite(values[0])) and bool((values == first).all()) else values


def groups(widths: object, n_neurons: int) -> tuple[int, ...]:
    """The sizes of Matryoshka groups whose nested widths are given; a last one of all neurons is added.

    Raises SAEError unless the widths are whole numbers that grow, from 1 to the number of neurons.
    """
    whole = isinstance(widths, list) and all(type(width) is int for width in widths)
    nested = [*widths] if whole else []
    if nested and nested[-1] < n_neurons:
        nested.append(n_neurons)
    sizes = tuple(b - a for a, b in zip([0, *nested], nested, strict=False))
    if not sizes or min(sizes) < 1 or nested[-1] != n_neurons:
        raise SAEError(
            f"the Matryoshka widths are {widths!r:.80}; expected whole numbers that grow, at most {n_neurons}"
        )
    return sizes
