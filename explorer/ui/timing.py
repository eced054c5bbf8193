"""What the page's latency commands share: a measured quantity, and how a list of them is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """How long something took at the server: milliseconds of each round, and what they should not exceed."""

    name: str
    milliseconds: tuple[float, ...]
    aim: float | None = None

    def line(self) -> str:
        """The name, p50, p95, the aim and whether p95 holds it."""
        p50, p95 = np.percentile(self.milliseconds, [50, 95])
        aim = "" if self.aim is None else f"  aim {self.aim:.0f}: {'met' if p95 <= self.aim else 'missed'}"
        return f"{self.name:<62} p50 {p50:7.1f} ms  p95 {p95:7.1f} ms{aim}"


def report(timings: Sequence[Timing]) -> str:
    """One line for each."""
    return "\n".join(timing.line() for timing in timings)
