"""Several processes that train together, one for each GPU, as `accelerate launch` or `torchrun` start them.

Knows accelerate; nothing of SAEs or pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.team import ALONE, Team

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may still be reading pictures or answering."""


class Placed(NamedTuple):
    """This process among those that train together, and the device it works on: "cpu", "cuda:1"."""

    team: Team
    device: str


def join(device: str | None) -> Placed:
    """Join the processes that were launched with this one, if any.

    device: None for a GPU where there is one. Raises SAEError for a certain GPU where there are several
    processes: each takes its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Placed(ALONE, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device not in (None, "cpu", "cuda"):
        raise SAEError(f"--device {device}: each of several processes takes its own GPU; use cpu or cuda")
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
    own = "cpu" if state.device.type == "cpu" else str(state.device)
    return Placed(Processes(state.process_index, state.num_processes), own)


class Processes(Team):
    """Processes in accelerate's group. Their tensors lie on their own devices."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        from accelerate.utils import reduce

        with self._together():
            return reduce(values, "sum")

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        from accelerate.utils import reduce

        with self._together():
            return reduce(values, "mean")

    def gathered(self, values: Tensor) -> Tensor:
        """The tensors [n, ...] of all processes in a row; n may differ."""
        from accelerate.utils import gather

        with self._together():
            lengths = gather(torch.tensor([len(values)], device=values.device)).tolist()
            padded = values.new_zeros(max(lengths), *values.shape[1:])
            padded[: len(values)] = values
            parts = gather(padded).split(max(lengths)) if max(lengths) else [values] * self.size
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Say in plain words when another process is not there any more."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of Gloo and NCCL alike
            why = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).partition(". ")[0]
            raise SAEError(
                f"another of the {self.size} processes that train together has ended, or cannot be reached "
                f"({why}); see what it said. Run the same command with --resume to go "
                "on from the last checkpoint"
            ) from error
