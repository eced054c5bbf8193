"""Ctrl-C and the system's wish to end the process, heard without being interrupted in the middle of a chunk.

Knows signals only.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_HEARD = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """In its `with`, Ctrl-C and SIGTERM only set `signal`; a second Ctrl-C interrupts at once.

    Outside the main thread it hears nothing: Python has signals only there.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _HEARD}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether the process was asked to stop."""
        return bool(self.signal)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; the second Ctrl-C interrupts. A forked child ends as it would have."""
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        print(
            "\nstopping after this batch and saving the progress; Ctrl-C again stops at once "
            "(what was done since the last checkpoint is then lost)",
            file=sys.stderr,
        )
