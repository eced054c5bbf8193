"""What the page remembers of one visitor: the picture looked at, and what of it is in focus.

Records that live in `gr.State` and nowhere else. All are frozen but `Turn` and `Study`, which stop an
answer or an analysis that nobody waits for any more, and `Order`, which knows late replies.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from explorer.records import Cell
from explorer.session import View

PATIENCE = 1.0
"""Seconds that an answer may still run once the bench has changed: short ones are shown to their end."""

Source = Literal["picture", "patches", "concept", "given"]


@dataclass(frozen=True)
class Heading:
    """What the cards are of. pool: how patches are pooled, for the whole picture; "" for other lists.

    found: the cards answer a search, so the best of them may go onto the bench together.
    """

    title: str
    note: str
    pool: str = ""
    found: bool = False


@dataclass(frozen=True)
class Entry:
    """A neuron in a list of cards: its value (of whatever the list ranks by), and a few words under it.

    alpha: the value that its "put" button asks for on the bench; None for untouched.
    """

    neuron: int
    value: float
    note: str = ""
    alpha: float | None = None


@dataclass(frozen=True, eq=False)
class Listing:
    """A list of neurons for the cards. empty: what to say without entries; above: HTML over the cards;
    map: (rows, cols) float32 to show on the picture while no neuron is chosen, and what it is called."""

    heading: Heading
    entries: tuple[Entry, ...]
    empty: str = "No neuron."
    above: str = ""
    map: np.ndarray | None = None
    map_name: str = ""


class Turn:
    """The one answer in the making for a visitor; a newer one stops it."""

    def __init__(self) -> None:
        self._cancel = threading.Event()
        self._since = 0.0
        self._wish: object = None

    def begin(self, wish: object = None) -> threading.Event:
        """Stop the former answer; the event says when the new one, to `wish`, is to stop in its turn."""
        self._cancel.set()
        self._cancel, self._since, self._wish = threading.Event(), time.monotonic(), wish
        return self._cancel

    def stop(self) -> None:
        """Stop the answer in the making, if there is one."""
        self._cancel.set()

    def hurry(self, wish: object, patience: float = PATIENCE) -> None:
        """Stop the answer if it is to an older wish and has taken more than `patience` seconds already."""
        if wish != self._wish and time.monotonic() - self._since > patience:
            self._cancel.set()


class Order:
    """The order in which a visitor asked: requests run side by side, so replies may come in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = self._answered = 0

    @property
    def answered(self) -> int:
        """The number of the newest request that was answered, 0 before."""
        return self._answered

    def ask(self) -> int:
        """The number of a new request."""
        with self._lock:
            self._asked += 1
            return self._asked

    def answer(self, number: int) -> bool:
        """Whether a reply to this request is to be shown: none to a newer one has been."""
        with self._lock:
            self._answered = max(self._answered, number)
            return self._answered == number


class Study(Turn):
    """The one analysis in the making for a visitor; a newer one, or another picture, stops it.

    looks: what the cards are asked to show; focus: what they were last told to show, so that a long analysis
    that fills them sees where the person went meanwhile; left: another picture is open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks = Order()
        self.focus: Focus | None = None
        self.left = False

    def land(self, number: int, focus: Focus) -> bool:
        """Whether the cards are to show this focus, asked for as look `number`: it does not come too late."""
        if self.left or not self.looks.answer(number):
            return False
        self.focus = focus
        return True

    def leave(self) -> None:
        """Another picture is open: stop, and show nothing of this one any more."""
        self.left = True
        self.stop()


@dataclass(frozen=True, eq=False)
class Visit:
    """The picture on the page.

    view: how the session saw it; title: its name; photo: the picture as a data URI, small enough to show;
    questions: what to ask of it; example: key of the example, "" for an upload; turn: its answers; study: its
    analyses; openings: of the pictures that are to follow this one; next: the latest that did, if any.
    """

    view: View
    title: str
    photo: str
    questions: tuple[str, ...] = ()
    example: str = ""
    turn: Turn = field(default_factory=Turn)
    study: Study = field(default_factory=Study)
    openings: Order = field(default_factory=Order)
    next: list[Visit] = field(default_factory=list)

    def leave(self, fresh: Visit) -> None:
        """Another picture is open: nothing is made or shown any more of this one, or of one between."""
        for former in (self, *self.next):
            former.turn.stop()
            former.study.leave()
        self.next[:] = [fresh]


@dataclass(frozen=True)
class Focus:
    """What the cards list and which neuron the heat map shows.

    source: whose neurons the cards are; pool: how patches are pooled for the whole picture;
    patches: the marked patches, row by row; concept: what was searched for; listing: neurons that another
    part of the page wants shown, for "given"; neuron: the chosen one.
    """

    source: Source = "picture"
    pool: Literal["mean", "max"] = "mean"
    patches: tuple[Cell, ...] = ()
    concept: str = ""
    listing: Listing | None = None
    neuron: int | None = None


@dataclass(frozen=True)
class Said:
    """The untouched model's complete answer to a prompt about the present picture."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Told:
    """A complete steered answer: to which prompt, with which bench and settings (as JSON), and its text."""

    prompt: str
    bench: str
    settings: str
    text: str
