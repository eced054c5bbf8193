"""Which concept a patch shows, read linearly from its vector at the site. Knows numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of patches: the row of the largest weight @ x + bias wins.

    concepts: names of the rows, C; weight [C + 1, d] and bias [C + 1], float32: the last row stands for
    none of them; a concept that was never seen has the bias -inf.
    """

    concepts: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def shown(self, vectors: np.ndarray) -> np.ndarray:
        """For vectors [T, d] the row of what each shows, [T] int; len(concepts) for none."""
        return (vectors @ self.weight.T + self.bias).argmax(1)
