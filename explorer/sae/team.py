"""Processes that train one SAE together: what a step must add up over them. Here: a process by itself.

Every process holds the same weights and its own share of each batch. Those that really are several come
from whoever starts the training; nothing here knows how they talk.
"""

from __future__ import annotations

from torch import Tensor


class Team:
    """One process alone; a child class for several overrides all of it.

    rank: this process, from 0; size: how many there are. The methods are collective: every process must call
    them in the same order, and gets the same result.
    """

    rank = 0
    size = 1

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes of a tensor that has one shape in all of them."""
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of such a tensor."""
        return values

    def gathered(self, values: Tensor) -> Tensor:
        """The tensors [n, ...] of all processes in a row, in the order of their ranks; n may differ."""
        return values


ALONE = Team()
