"""Things made by index in forked processes, in order: with these pictures are read while others are computed.

Each process has a pipe of its own and shares no lock with another one. So whoever dies, at whatever moment,
leaves nobody waiting: the other side finds the pipe closed. The processes hear none of the signals that end
a program, which a terminal or a batch system sends to all; they end when this process ends them, or ends
itself. Knows processes only.
"""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from errno import EMFILE, ENFILE
from itertools import cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import torch
import torch.multiprocessing  # teaches pickles to hand tensors on in shared memory

from explorer.errors import ExplorerError, SourceError
from index.stopping import ENDING, held

AHEAD = 2
"""How many things each process may be asked for before the first is taken."""
GRACE = 2.0
"""Seconds that a process whose pipe is closed may take to end."""
Made = TypeVar("Made")


class _Failed(NamedTuple):
    """What a process hands back instead of what it should have made."""

    error: BaseException


def made(make: Callable[[int], Made], indices: Sequence[int], workers: int) -> Generator[Made, None, None]:
    """What `make` gives for each index, in their order: made by forked processes, or here for 0 workers.

    Close the iterator when it is left early. An ExplorerError arrives as it was raised; SourceError when a
    process dies or cannot be started.
    """
    if not workers or not len(indices):
        yield from map(make, indices)
        return
    crew: list[_Worker] = []
    multiprocessing.util.get_temp_dir()  # of this process, which outlives the others and removes it
    end = multiprocessing.util.Finalize(None, _end, (crew,), exitpriority=10)  # at exit at the latest
    try:
        with held():  # a fork's callbacks lose what is raised in them
            for _ in range(min(workers, len(indices))):
                crew.append(_Worker(make))
        todo, asked = iter(indices), deque[_Worker]()
        for worker, index in zip(cycle(crew), islice(todo, AHEAD * len(crew)), strict=False):
            worker.ask(index)
            asked.append(worker)
        while asked:
            worker = asked.popleft()
            found = worker.answer()
            if isinstance(found, _Failed):
                raise found.error
            for index in islice(todo, 1):
                worker.ask(index)
                asked.append(worker)
            yield found
    finally:
        with held():
            end()


_ours: set[Connection] = set()
"""This process's ends of the pipes to those that it forked."""


def _forget_pipes() -> None:
    """In a forked child: close what it inherited, or it would keep the others' pipes open."""
    while _ours:
        _ours.pop().close()


os.register_at_fork(after_in_child=_forget_pipes)


class _Worker:
    """A forked process, seen from here. Raises SourceError when it cannot be started."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        context = torch.multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        _ours.add(self.pipe)
        self.process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        try:
            self.process.start()
        except OSError as error:
            _close(self.pipe)
            raise SourceError(
                f"cannot start a process that reads pictures: {error.strerror or error}; use fewer --workers"
            ) from error
        finally:
            theirs.close()

    def ask(self, index: int) -> None:
        """Ask for one thing. Raises SourceError when the process has died."""
        try:
            self.pipe.send(index)
        except OSError as error:
            self._lost(error)

    def answer(self) -> Any:
        """What was asked for first. Raises SourceError when the process has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        """Say in plain words why nothing came."""
        if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
            raise SourceError(
                "too many files are open for what processes that read pictures hand over: use fewer "
                "--workers, or allow more (ulimit -n); what was saved so far is kept"
            ) from error
        self.process.join(GRACE)
        if self.process.is_alive():
            raise error
        raise SourceError(
            f"a process that reads pictures has died (its exit code is {self.process.exitcode}); most often "
            "memory, or shared memory (/dev/shm), is short: use fewer --workers and run the same command "
            "again, what was saved so far is kept"
        ) from error


def _end(crew: list[_Worker]) -> None:
    """End processes now: they hold nothing that outlives them, so that they are not asked."""
    for worker in crew:
        worker.process.kill()
    while crew:
        worker = crew.pop()
        worker.process.join()
        _close(worker.pipe)


def _close(pipe: Connection) -> None:
    _ours.discard(pipe)
    pipe.close()


def _serve(make: Callable[[int], Any], pipe: Connection) -> None:
    """In a forked process: make what is asked for, until something goes wrong or nobody asks any more."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = lambda kind, error, trace: None  # of a thread that hands tensors to one who has gone
    torch.set_num_threads(1)
    answers: SimpleQueue[memoryview | None] = SimpleQueue()
    sender = threading.Thread(target=_send, args=(pipe, answers), daemon=True)
    sender.start()
    try:
        while (index := _asked(pipe)) is not None:
            answers.put(ForkingPickler.dumps(make(index)))
    finally:
        if (error := sys.exc_info()[1]) is not None:
            answers.put(ForkingPickler.dumps(_Failed(_portable(error))))
        answers.put(None)
        sender.join()
        while (
            _asked(pipe) is not None
        ):  # what was sent is fetched from here; the other side ends this process
            pass
        os._exit(0)


def _asked(pipe: Connection) -> int | None:
    """The next index, None when nobody asks any more."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _send(pipe: Connection, answers: SimpleQueue[memoryview | None]) -> None:
    """Hand answers over as they come, while the next is made."""
    try:
        while (answer := answers.get()) is not None:
            pipe.send_bytes(answer)
    except OSError:
        os._exit(0)


def _portable(error: BaseException) -> BaseException:
    """An error that survives the way to another process, with its trace as a note where it is a bug."""
    if isinstance(error, ExplorerError):
        return error
    found = error
    if type(error).__module__ != "builtins":  # its constructor may want what a pickle does not know
        found = RuntimeError(f"{type(error).__name__}: {error}")
    trace = "".join(traceback.format_exception(error))
    found.add_note(f"in a process that reads pictures:\n{trace}")
    return found
