"""Runs a long analysis beside the page: its progress comes out as a stream, and at the end what it found.

Knows threads; nothing of models or drawing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from explorer.analyze.places import Progress

Result = TypeVar("Result")

PACE = 0.2
"""Seconds between two tellings of the progress."""


class Step(NamedTuple):
    """How far it is."""

    done: int
    total: int


@dataclass(frozen=True)
class Finished(Generic[Result]):
    """What came of it."""

    result: Result


def running(work: Callable[[Progress], Result], cancel: threading.Event) -> Iterator[Step | Finished[Result]]:
    """Do the work in a thread of its own; every PACE seconds the latest progress, then the result.

    Closing the iterator sets `cancel`, which the work should heed. Errors of the work are raised here.
    """
    told = Step(0, 0)
    latest = [told]

    def progress(done: int, total: int) -> None:
        latest[0] = Step(done, total)

    worker = ThreadPoolExecutor(1, thread_name_prefix="analysis")
    coming = worker.submit(work, progress)
    worker.shutdown(wait=False)
    try:
        while not wait([coming], timeout=PACE).done:
            if latest[0] is not told:
                yield (told := latest[0])
        yield Finished(coming.result())
    finally:
        cancel.set()
