"""What generations about one picture leave for the next: earlier answers, and what was read of the prompts.

A `Memory` belongs to one picture of one visitor. It makes later generations quicker and never changes an
answer: answers serve as drafts, which are verified, and keys and values only as far as the rows of
embeddings that they come from are the very same. Several generations may use one memory at once: what one
takes to write on, the others do not see. `Memories` keeps all of them together below a limit.

Knows rows of embeddings and numbers of tokens; nothing of models or pictures.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from explorer.vlm.cache import GrowingCache

READINGS_PER_KEY = 3
"""As many as are compared side by side: the untouched model, the SAE's reconstruction, the steered one."""

READINGS = 6
ANSWERS_PER_PROMPT = 8
PROMPTS = 16
WORTH_COPYING = 8
"""A reading is copied rather than written over if at least one row in so many would be lost."""


@dataclass(eq=False)
class Reading:
    """A prompt, or the beginning of one, that the language model has read.

    key: who may go on from it: the branch's place, and how its attention is changed; rows [n, D]: the
    embeddings that were read; cache: keys and values, those of `rows` first; lent: how large the cache was
    when the memory gave it away, 0 for a copy or a new one.
    """

    key: Hashable
    rows: torch.Tensor
    cache: GrowingCache
    lent: int = 0

    @property
    def nbytes(self) -> int:
        """Of rows, keys and values."""
        return self.rows.nbytes + self.cache.nbytes

    def restored(self) -> Reading:
        """As it was given away, whatever was appended since; in no more memory than then."""
        self.cache.keep(len(self.rows))
        grown = self.cache.nbytes > self.lent
        return Reading(self.key, self.rows, self.cache.forked(len(self.rows), 0) if grown else self.cache)


class Memory:
    """What the generations about one picture leave for the next. Any thread may call."""

    def __init__(self, memories: Memories | None = None) -> None:
        self._memories, self._lock = memories, threading.Lock()
        self._readings: list[Reading] = []  # the last used first
        self._answers: dict[Hashable, tuple[tuple[int, ...], ...]] = {}  # the last asked last
        self.used = next(_clock)

    @property
    def drafts(self) -> dict[Hashable, tuple[tuple[int, ...], ...]]:
        """Earlier answers by prompt, newest first."""
        with self._lock:
            return dict(self._answers)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What is there to go on from, the last used first."""
        with self._lock:
            return tuple(self._readings)

    @property
    def nbytes(self) -> int:
        """Of all keys, values and embeddings that are kept; those in use are not counted."""
        return sum(reading.nbytes for reading in self.readings)

    def forget(self) -> None:
        """Drop keys, values and embeddings; the answers stay."""
        with self._lock:
            self._readings.clear()

    def earlier(self, prompt: Hashable) -> tuple[tuple[int, ...], ...]:
        """Earlier answers to a prompt, newest first."""
        with self._lock:
            return self._answers.get(prompt, ())

    def learn(self, prompt: Hashable, answer: Sequence[int]) -> None:
        """Keep an answer to a prompt."""
        answer = tuple(answer)
        with self._lock:
            others = (other for other in self._answers.pop(prompt, ()) if other != answer)
            self._answers[prompt] = (answer, *others)[:ANSWERS_PER_PROMPT]
            while len(self._answers) > PROMPTS:
                del self._answers[next(iter(self._answers))]

    def take(self, key: Hashable, rows: torch.Tensor) -> Reading | None:
        """The reading that begins like `rows` [n, D] for longest, cropped to what they share.

        At least the last row is left to be read. It is the caller's alone: the memory's own one, or a copy
        when much of that would be lost and there is room for another. None when nothing is shared.
        """
        with self._lock:
            self.used = next(_clock)
            mine = [reading for reading in self._readings if reading.key == key]
            lengths = [agreeing(reading.rows, rows[:-1]) for reading in mine]
            shared = max(lengths, default=0)
            if not shared:
                return None
            best = mine[lengths.index(shared)]
            lost = len(best.rows) - shared
            if lost * WORTH_COPYING >= len(best.rows) and len(mine) < READINGS_PER_KEY:
                return Reading(key, best.rows[:shared], best.cache.forked(shared))
            self._readings.remove(best)
        best.cache.keep(shared)
        return Reading(key, best.rows[:shared], best.cache, best.cache.nbytes)

    def put(self, reading: Reading) -> None:
        """Keep a reading, whose cache holds its rows and nothing else, as the last used."""
        assert reading.cache.get_seq_length() == len(reading.rows)
        with self._lock:
            self.used = next(_clock)
            self._readings.insert(0, reading)
            mine = [place for place, one in enumerate(self._readings) if one.key == reading.key]
            if len(mine) > READINGS_PER_KEY:
                del self._readings[mine[-1]]
            del self._readings[READINGS:]
        if self._memories is not None:
            self._memories.settle()

    def shrink(self, limit_bytes: int) -> None:
        """Drop the readings that were not used for longest until the others fit."""
        with self._lock:
            while self._readings and sum(reading.nbytes for reading in self._readings) > limit_bytes:
                self._readings.pop()


class Memories:
    """All memories of a session, which together keep no more than `limit_bytes` of keys and values.

    It does not keep them alive: a memory goes with the last one who holds it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._all: weakref.WeakSet[Memory] = weakref.WeakSet()

    def new(self) -> Memory:
        """An empty memory under the limit."""
        memory = Memory(self)
        with self._lock:
            self._all.add(memory)
        return memory

    def forget(self) -> None:
        """Drop all keys and values; answers are as before, only slower once."""
        with self._lock:
            for memory in self._all:
                memory.shrink(0)

    @property
    def nbytes(self) -> int:
        """Of all memories that are still held."""
        with self._lock:
            return sum(memory.nbytes for memory in self._all)

    def settle(self) -> None:
        """Drop the keys and values of those memories that were not used for longest, beyond the limit."""
        with self._lock:
            room = self.limit_bytes
            for memory in sorted(self._all, key=lambda memory: memory.used, reverse=True):
                memory.shrink(max(room, 0))
                room -= memory.nbytes


_clock = count()


def agreeing(rows: torch.Tensor, others: torch.Tensor) -> int:
    """How many rows two [n, D], [m, D] begin with alike, to the bit (but for the sign of zero)."""
    n = min(len(rows), len(others))
    if not n or rows.shape[1:] != others.shape[1:] or rows.device != others.device:
        return 0
    if rows.dtype != others.dtype:
        return 0
    same = (rows[:n] == others[:n]).all(dim=-1)
    return n if bool(same.all()) else int(same.to(torch.uint8).argmin())
