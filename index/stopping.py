"""Ctrl-C and the system's wish to end the process: heard at once, at a good moment, or never lost.

A command that can save its progress only notes them (`StopRequests`). For the others they are exceptions
(`ending`), which Python drops where nobody could catch them: in a callback of an import, of a fork or of the
garbage collector. Those are raised again. Knows signals only.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a process to end: Ctrl-C, the system, a terminal that is closed."""
AGAIN = 0.02
"""Seconds until an exception that was dropped is raised again."""


class Ended(BaseException):
    """SIGTERM or SIGHUP, as an exception, so that what is half written is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def ending() -> Iterator[None]:
    """In its `with`, SIGTERM and SIGHUP raise Ended, Ctrl-C KeyboardInterrupt, and none of them is lost.

    What the process was told to ignore (`nohup`, a shell's background job) stays ignored. Outside the main
    thread it does nothing: Python has signals only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lost: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)

    def again(number: int, frame: FrameType | None) -> None:
        while lost:
            signal.raise_signal(lost.pop())

    def dropped(found: Any) -> None:
        if isinstance(found.exc_value, KeyboardInterrupt | Ended):
            lost.append(getattr(found.exc_value, "signal", signal.SIGINT))
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    before = {number: signal.signal(number, end) for number in _not_ignored(*ENDING)}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(before)
        sys.unraisablehook = hook


@contextmanager
def held() -> Iterator[None]:
    """In its `with`, signals that ask the process to end wait; what they ask is done at its end.

    For steps in which an exception would be lost or leave something half done. They must not take long.
    """
    noted: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # for a child, which inherits it
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # another one may be sent what it blocks
            before = {number: signal.getsignal(number) for number in _not_ignored(*ENDING)}
            for number in before:
                signal.signal(number, lambda number, frame: noted.append(number))
        yield
    finally:
        _restore(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in dict.fromkeys(noted):
            signal.raise_signal(number)


def _not_ignored(*numbers: int) -> list[int]:
    """Those of the signals that Python handles, or that have their default effect."""
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class StopRequests:
    """In its `with`, the signals in ENDING only set `signal`; a second Ctrl-C interrupts at once.

    Outside the main thread it hears nothing: Python has signals only there.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _not_ignored(*ENDING)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._before)

    def asked(self) -> bool:
        """Whether the process was asked to stop."""
        return bool(self.signal)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; a Ctrl-C after it interrupts. A forked child ends as it would have."""
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.signal:
            self.signal = number
            say_at_once(
                "\nstopping after this batch and saving the progress; Ctrl-C again stops at once "
                "(what was done since the last checkpoint is then lost)\n"
            )


class Unheard(StopRequests):
    """Leaves signals to whoever had them before, for a build that is a part of something larger."""

    def __enter__(self) -> Self:
        return self


def say_at_once(words: str) -> None:
    """Say something on stderr from a handler: its stream may be in use, or its terminal gone."""
    with suppress(OSError):
        os.write(2, words.encode())
