"""Sums that do not depend on the order of their terms, whatever their size. Knows numpy only.

A float64 is split into its nearest whole number and the rest in steps of 2**-40; both parts are added
as integers, which is exact and therefore associative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from explorer.errors import ExplorerError

_STEPS = np.float64(2**40)
LARGEST = float(2**62)
"""Terms from here on are refused: their sums would leave 64 bits."""


class ExactSum:
    """Sums of float64 terms in an array of any shape: `whole` + `rest` / 2**40, both int64.

    Each term is rounded to 2**-40 (9e-13). Up to 2**23 calls of `add` fit; all terms of a cell together must
    stay below 2**62.
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        self.whole = np.zeros(shape, dtype=np.int64)
        self.rest = np.zeros(shape, dtype=np.int64)

    def add(self, index: Any, values: np.ndarray) -> None:
        """Add values at an index of numpy's kind, in which no cell may come twice.

        Raises ExplorerError for values that are not finite or too large.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.size and not np.abs(values).max() < LARGEST:
            raise ExplorerError(
                "the activations are not finite or too large to be summed; check that the SAE fits the model"
            )
        near = np.rint(values)
        self.whole[index] += near.astype(np.int64)
        self.rest[index] += np.rint((values - near) * _STEPS).astype(np.int64)

    def values(self) -> np.ndarray:
        """The sums as float64, rounded once."""
        carry = self.rest >> 40
        return (self.whole + carry) + (self.rest - (carry << 40)) / _STEPS

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        return {f"{name}.whole": self.whole, f"{name}.rest": self.rest}

    def restore(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the place of this sum from what `arrays` gave."""
        self.whole[...] = arrays[f"{name}.whole"]
        self.rest[...] = arrays[f"{name}.rest"]

    def absorb(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Add another sum, given as its arrays."""
        self.whole += arrays[f"{name}.whole"]
        self.rest += arrays[f"{name}.rest"]
