"""Who gets the model next: a fair line of visitors, one holder at a time.

A generation takes a turn for each pass through the language model, so a long answer never keeps a short
one waiting. Whoever asks for many turns at once gets no more of the model than one who asks for one:
turns are dealt as in start-time fair queueing, each visitor's turns behind its own earlier ones.

Also which generation of a visitor is the newest (`Newest`). Knows nothing of models or pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Event

from explorer.records import Cancel
from explorer.vlm.loading.full import full_told

ADVICE = (
    "ask again, for a shorter answer or about a smaller picture; for good, open the model with --quantize "
    "8bit or 4bit, in --dtype bfloat16, or on a larger --device"
)
POLL = 0.02
"""Seconds between looks at `cancel` while waiting."""


class AnyOf:
    """Set when one of several is; None stands for one that never is."""

    def __init__(self, *parts: Cancel | None) -> None:
        self._parts = tuple(part for part in parts if part is not None)

    def is_set(self) -> bool:
        """True once one of the parts is set."""
        return any(part.is_set() for part in self._parts)


class Line:
    """One model, many visitors. relief: frees memory when a pass finds it full."""

    def __init__(self, relief: Callable[[], None] | None = None) -> None:
        self._relief = relief
        self._changed = threading.Condition()
        self._waiting: dict[int, int] = {}
        """Ticket -> where it starts in virtual time, counted in turns."""
        self._ends: dict[Hashable, int] = {}
        """Visitor -> where its last turn ends, for those who are ahead of the clock."""
        self._clock = self._tickets = 0
        self._busy = False

    @contextmanager
    def turn(self, visitor: Hashable = None, cancel: Cancel | None = None) -> Iterator[bool]:
        """Hold the model. False, without holding it, when cancelled before it was free.

        visitor: who asks; None for a stranger, in line for this turn only. Where the memory is full, it ends
        with a ModelError that says so.
        """
        mine = self._wait(visitor, cancel)
        try:
            with full_told(advice=ADVICE, relief=self._relief):
                yield mine
        finally:
            if mine:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """Whether somebody holds the model now."""
        return self._busy

    def _wait(self, visitor: Hashable, cancel: Cancel | None) -> bool:
        """Stand in line; True once the model is ours."""
        with self._changed:
            ticket = self._join(visitor)
            try:
                while self._busy or ticket != self._first():
                    if cancel is not None and cancel.is_set():
                        return False
                    self._changed.wait(None if cancel is None else POLL)
                self._busy = True
                self._clock = max(self._clock, self._waiting[ticket])
                return True
            finally:
                del self._waiting[ticket]
                self._changed.notify_all()

    def _join(self, visitor: Hashable) -> int:
        """A ticket behind the visitor's own earlier turns, and never before the clock."""
        start = max(self._clock, self._ends.get(visitor, 0))
        if visitor is not None:
            self._ends = {who: end for who, end in self._ends.items() if end > self._clock}
            self._ends[visitor] = start + 1
        self._tickets += 1
        self._waiting[self._tickets] = start
        return self._tickets

    def _first(self) -> int:
        return min(self._waiting, key=lambda ticket: (self._waiting[ticket], ticket))


class Newest:
    """The newest generation of each visitor: beginning one tells the one before to stop."""

    def __init__(self) -> None:
        self._events: dict[Hashable, Event] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: Hashable) -> Event:
        """What is set once the same visitor begins another; never for None."""
        event = Event()
        if visitor is not None:
            with self._lock:
                former = self._events.get(visitor)
                self._events[visitor] = event
            if former is not None:
                former.set()
        return event

    def end(self, visitor: Hashable, event: Event) -> None:
        """The generation that `begin` gave this event to is over."""
        with self._lock:
            if self._events.get(visitor) is event:
                del self._events[visitor]
