"""What the tests of the cluster send to other processes: a site of stand-ins, and sources that leave traces.

Run as a script it is a driver that a test can kill: `python cluster_fakes.py STORE TRACES`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from fake_site import FakeLVLM, ListSource, noise_pictures, random_sae, unreadable

from explorer.errors import SourceError
from index.build import BuildConfig, Summary
from index.cluster import ClusterConfig, Site, build_on_cluster
from index.sources import Picture

COUNT, BATCH, PARTS = 96, 2, 12
SLOW = 0.06
"""Seconds that a slow source takes for a picture."""


class Read(NamedTuple):
    """One picture that was read: by which process, and its number."""

    process: int
    number: int


class TracedSource(ListSource):
    """Pictures of noise, two of them unreadable; every reading is written down.

    traces: a file that all processes append to; slow: seconds per picture; gone: the number from which on the
    source is gone; deadly: the number whose reading kills the process.
    """

    def __init__(
        self, traces: Path, slow: float = 0.0, gone: int | None = None, deadly: int | None = None
    ) -> None:
        items: list[Picture | Exception] = [*noise_pictures(COUNT)]
        items[7], items[50] = unreadable("number 7 is broken"), unreadable("number 50 is broken")
        super().__init__(items)
        self._traces, self._slow, self._gone, self._deadly = traces, slow, gone, deadly

    def read(self, number: int) -> Picture:
        """As of all sources."""
        with self._traces.open("a", encoding="ascii") as stream:
            stream.write(f"{os.getpid()} {number}\n")
        time.sleep(self._slow)
        if number == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._gone is not None and number >= self._gone:
            raise SourceError(f"picture {number} has vanished; mount the disk again")
        return super().read(number)


def reads(traces: Path) -> Iterator[Read]:
    """What was read, in order."""
    for line in traces.read_text(encoding="ascii").splitlines() if traces.exists() else []:
        yield Read(*map(int, line.split()))


def open_fake() -> Site:
    """A site of stand-ins."""
    torch.set_num_threads(1)
    return Site(FakeLVLM(), random_sae())


def whole(out: Path) -> BuildConfig:
    """How everything is built here; every chunk is followed by a checkpoint."""
    return BuildConfig(out, batch=BATCH, sample=60, words="none", checkpoint_every=0)


def on_cluster(
    out: Path, source: TracedSource, parts: int | None = PARTS, actors: int = 2, **how: object
) -> Summary:
    """Build on a cluster of this machine."""
    return build_on_cluster(
        whole(out), ClusterConfig(None, actors, parts), source, open_fake, open_fake, **how
    )


if __name__ == "__main__":
    on_cluster(Path(sys.argv[1]), TracedSource(Path(sys.argv[2]), SLOW))
