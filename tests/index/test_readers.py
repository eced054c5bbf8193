"""Processes that make things by index: they hear no signals, and whoever dies leaves nobody waiting."""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from explorer.errors import SourceError
from index.readers import made
from index.stopping import ENDING

LARGE = 4 << 20
"""More bytes than any pipe takes at once."""
LONG = 20
"""Seconds after which a forked child of a test is taken to hang, and killed."""
forking = {"signal": 0}


def at_fork() -> None:
    """What a callback of a fork raises is dropped."""
    if forking["signal"]:
        os.kill(os.getpid(), forking["signal"])
        time.sleep(0.01)


os.register_at_fork(after_in_parent=at_fork)


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield
    forking["signal"] = 0
    signal.signal(signal.SIGINT, before)


def whose(index: int) -> int:
    return os.getpid()


def large(index: int) -> bytes:
    return bytes(LARGE)


def alive(pids: set[int]) -> set[int]:
    """Those of the processes that have not ended."""
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.add(pid)
    return found


def gone(pids: set[int]) -> bool:
    """Whether all of them end soon."""
    until = time.monotonic() + LONG
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pids)


def test_an_interrupt_while_processes_are_started_is_heard() -> None:
    forking["signal"] = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        for _ in made(whose, range(1000), 2):
            time.sleep(0.01)


def test_readers_hear_no_signals() -> None:
    arriving = made(whose, range(40), 2)
    workers = {next(arriving), next(arriving)}
    assert len(workers) == 2 and os.getpid() not in workers
    for number in ENDING:
        for worker in workers:
            os.kill(worker, number)
        time.sleep(0.02)
    assert len(list(arriving)) == 38
    assert gone(workers)


def test_one_that_dies_while_it_hands_over_leaves_nobody_waiting() -> None:
    arriving = made(lambda index: (os.getpid(), large(index)), range(100), 2)
    first, _ = next(arriving)
    next(arriving)
    time.sleep(0.2)  # both hand over the next, and nobody takes it
    os.kill(first, signal.SIGKILL)
    with pytest.raises(SourceError, match=r"has died \(its exit code is -9\).*use fewer --workers"):
        list(arriving)


def forked(work) -> tuple[int, int]:
    """Fork a child that does the work with the writing end of a pipe; its id, and the reading end."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(LONG)
        os.close(reads)
        work(writes)
        os._exit(0)
    os.close(writes)
    return child, reads


def read_all(reads: int) -> set[int]:
    with os.fdopen(reads) as stream:
        return {int(word) for word in stream.read().split()}


def test_a_killed_parent_leaves_no_orphans() -> None:
    def work(writes: int) -> None:
        outer = made(lambda index: (os.getpid(), large(index)), range(100), 2)
        inner = made(lambda index: (os.getpid(), large(index)), range(100), 1)
        pids = [next(outer)[0], next(outer)[0], next(inner)[0]]
        os.write(writes, " ".join(map(str, pids)).encode())
        time.sleep(0.2)  # they hand over what nobody takes
        os.kill(os.getpid(), signal.SIGKILL)

    child, reads = forked(work)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with os.fdopen(reads) as stream:  # which the readers hold too, until they are gone
        workers = {int(word) for word in os.read(stream.fileno(), 100).split()}
    assert len(workers) == 3 and gone(workers)


def test_an_iterator_left_open_does_not_keep_a_program_from_ending() -> None:
    def work(writes: int) -> None:
        arriving = made(whose, range(100), 2)
        os.write(writes, f"{next(arriving)} {next(arriving)}".encode())
        multiprocessing.util._exit_function()  # what an interpreter does at its end

    child, reads = forked(work)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gone(read_all(reads))


def test_tensors_arrive_whole_and_stay() -> None:
    arriving = made(lambda index: {"pixels": torch.full((3, 50, 50), float(index))}, range(20), 3)
    kept = [found["pixels"] for found in arriving]
    assert all(torch.equal(one, torch.full((3, 50, 50), float(i))) for i, one in enumerate(kept))


class Odd(Exception):
    """Cannot be made from what a pickle keeps."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_bugs_arrive_with_their_trace() -> None:
    def wrong(index: int) -> int:
        if index == 3:
            raise Odd("this", "that")
        return [0, 1, 2][index] if index < 5 else 0

    arriving = made(wrong, range(9), 2)
    assert [next(arriving) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="Odd: this and that") as caught:
        next(arriving)
    assert "in wrong" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="pickle"):
        list(made(lambda index: sys._getframe(), range(2), 1))


def test_no_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    process = torch.multiprocessing.get_context("fork").Process
    start, started = process.start, []

    def full(self) -> None:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        start(self)
        started.append(self.pid)

    monkeypatch.setattr(process, "start", full)
    with pytest.raises(SourceError, match=r"cannot start a process .*: Resource .*use fewer --workers"):
        list(made(whose, range(9), 2))
    assert gone(set(started))
