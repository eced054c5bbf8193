"""An endless stream of shuffled vectors for SAE training: pictures through the tower and a shuffle buffer.

The buffer has two halves. One is served, shuffled, in batches; meanwhile the other is filled, a few
pictures between any two batches, so that readers and tower never wait for long. Memory is bounded by the
buffer; what batch number n holds depends on n alone, so a stream may start at any batch, and resuming costs
no more than filling half a buffer. Knows pictures and towers; nothing of SAEs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import ImageError, SourceError
from explorer.store.writer import SkippedRow
from index.activations import NOT_FINITE
from index.readers import made
from index.training.pictures import Order, Pictures
from index.training.tower import Batch, Eye, prepare, together, token_vectors

Skipped = Callable[[Sequence[SkippedRow]], None]


def _untold(rows: Sequence[SkippedRow]) -> None:
    """Hear of skipped pictures, and do nothing."""


@dataclass(frozen=True)
class StreamConfig:
    """How pictures become batches.

    buffer: vectors held at once, of all processes together; reuse: times that each vector is served;
    tower_batch: pictures that go through the tower together; workers: processes that read pictures for each
    process that trains (0: itself); seed: of the shuffling.
    """

    buffer: int = 262_144
    reuse: int = 4
    tower_batch: int = 32
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("buffer", "reuse", "tower_batch"):
            if getattr(self, name) < 1:
                raise SourceError(f"{name} = {getattr(self, name)}: it must be at least 1")


class Share(NamedTuple):
    """Which process of how many this is: it reads every size-th picture."""

    rank: int = 0
    size: int = 1


WHOLE = Share()


class _Part(NamedTuple):
    """Some pictures as a reader hands them over; batch: None where none can be read."""

    batch: Batch | None
    skipped: list[SkippedRow]


class _Reader:
    """Lists of prepared pictures by number, for workers."""

    def __init__(self, eye: Eye, pictures: Pictures, numbers: Callable[[range], list[int]], size: int):
        self._eye, self._pictures, self._numbers, self._size = eye, pictures, numbers, size

    def load(self, part: int) -> _Part:
        """Read and prepare the pictures at `size` places from part * size on."""
        prepared, numbers, skipped = [], [], []
        for number in self._numbers(range(part * self._size, (part + 1) * self._size)):
            try:
                prepared.append(prepare(self._eye.lvlm, self._pictures.image(number)))
            except ImageError as error:
                skipped.append(SkippedRow(*self._pictures.name(number), str(error)))
            else:
                numbers.append(number)
        return _Part(together(prepared, numbers), skipped)


def vectors_of(eye: Eye, pictures: Pictures, part: _Part, skipped: Skipped) -> Tensor | None:
    """The vectors [b, t, d] of a part's pictures, without those that are not finite; None for none."""
    lost = list(part.skipped)
    found = None
    if part.batch is not None:
        found = token_vectors(eye, part.batch)
        fine = torch.isfinite(found).flatten(1).all(1)
        if not bool(fine.all()):
            bad = [number for number, good in zip(part.batch.numbers, fine.tolist(), strict=True) if not good]
            lost += [SkippedRow(*pictures.name(number), NOT_FINITE) for number in bad]
            found = found[fine] if bool(fine.any()) else None
    skipped(lost)
    return found


def once(
    eye: Eye, pictures: Pictures, config: StreamConfig, share: Share = WHOLE, skipped: Skipped = _untold
) -> Generator[Tensor, None, None]:
    """The vectors [n, d] of every picture of this process's share, some pictures at a time, in order."""
    mine = range(share.rank, len(pictures), share.size)
    reader = _Reader(eye, pictures, lambda places: list(mine[places.start : places.stop]), config.tower_batch)
    parts = -(-len(mine) // config.tower_batch)
    with closing(made(reader.load, range(parts), config.workers)) as arriving:
        for part in arriving:
            vectors = vectors_of(eye, pictures, part, skipped)
            if vectors is not None:
                yield vectors.flatten(0, 1).float()


class _Plan(NamedTuple):
    """How much of everything: pictures that go through the tower together, such parts and vectors in half a
    buffer, batches that it serves, and the shape [t, d] of a picture's vectors."""

    tower_batch: int
    parts: int
    vectors: int
    batches: int
    shape: tuple[int, int]
    like: Tensor


def _planned(eye: Eye, pictures: Pictures, batch: int, config: StreamConfig, share: Share) -> _Plan:
    """The plan of a stream. Raises SourceError for a buffer that is too small."""
    example = _example(eye, pictures)
    tokens, width = example.shape[1:]
    room = config.buffer // (2 * share.size * tokens)
    if room < 1:
        whose = f" for each of {share.size} processes" if share.size > 1 else ""
        raise SourceError(
            f"a buffer of {config.buffer} vectors cannot hold two pictures of {tokens}{whose}; use a larger "
            "--buffer"
        )
    together = min(config.tower_batch, room)
    parts = room // together
    vectors = parts * together * tokens
    if vectors * config.reuse < batch:
        raise SourceError(
            f"half a buffer of {config.buffer} vectors, used {config.reuse} times, does not fill a batch of "
            f"{batch * share.size}; use a larger --buffer or a smaller --batch"
        )
    return _Plan(together, parts, vectors, vectors * config.reuse // batch, (tokens, width), example)


def _example(eye: Eye, pictures: Pictures) -> Tensor:
    """The vectors [1, t, d] of the first picture that can be read."""
    reader = _Reader(eye, pictures, list, 1)
    for number in range(len(pictures)):
        found = vectors_of(eye, pictures, reader.load(number), _untold)
        if found is not None:
            return found
    raise SourceError(f"none of the pictures can be read ({pictures.description})")


class _Filling:
    """Halves of the buffer, one after the other, each filled part by part.

    Two tensors take turns: what `finish` gave stays as it is until `finish` is called again.
    """

    def __init__(self, plan: _Plan, parts: Iterator[Tensor | None]) -> None:
        self._plan, self._parts = plan, parts
        empty = plan.like.new_empty
        self._halves = [empty(plan.vectors, plan.shape[1]), empty(plan.vectors, plan.shape[1])]
        self._taken = self._length = 0

    def advance(self, share: float) -> None:
        """Fill on, up to a share of the half."""
        while self._taken < share * self._plan.parts:
            vectors = next(self._parts)
            self._taken += 1
            if vectors is None:
                continue
            if tuple(vectors.shape[1:]) != self._plan.shape:
                found, first = list(vectors.shape[1:]), list(self._plan.shape)
                raise SourceError(
                    f"a picture has {found} vectors, the first one {first}; they must not differ"
                )
            flat = vectors.flatten(0, 1)
            self._halves[0][self._length : self._length + len(flat)] = flat
            self._length += len(flat)

    def finish(self, check: Callable[[], None]) -> Tensor:
        """The whole half [n, d]; n is smaller where pictures could not be used. check: called on the way."""
        while self._taken < self._plan.parts:
            check()
            self.advance((self._taken + 1) / self._plan.parts)
        done = self._halves[0][: self._length]
        self._halves.reverse()
        self._taken = self._length = 0
        return done


def batches(
    eye: Eye,
    pictures: Pictures,
    batch: int,
    config: StreamConfig,
    *,
    first: int = 0,
    last: int | None = None,
    share: Share = WHOLE,
    skipped: Skipped = _untold,
    check: Callable[[], None] = lambda: None,
) -> Generator[Tensor, None, None]:
    """Batches [batch, d] of shuffled vectors without end, from batch number `first` on.

    last: the number before which the stream need not prepare any more. share: the part of this process; the
    batch is its own. skipped: told of pictures that cannot be used; the others of their half are then used
    more often. check: called between pictures while nothing can be served, and may raise. Close the
    iterator when it is left.
    Raises SourceError when the source is gone, when no picture can be used, or when the buffer is too small.
    """
    plan = _planned(eye, pictures, batch, config, share)
    order = Order(len(pictures), config.seed, share.rank, share.size)
    reader = _Reader(eye, pictures, order.numbers, plan.tower_batch)
    begin, skip = divmod(first, plan.batches)
    held, vectors = begin - 1, plan.like.new_empty(0, plan.shape[1])
    hopeless = 2 + 2 * len(pictures) // (plan.parts * plan.tower_batch)
    with closing(made(reader.load, range(begin * plan.parts, sys.maxsize), config.workers)) as arriving:
        filling = _Filling(plan, (vectors_of(eye, pictures, part, skipped) for part in arriving))
        for half in count(begin):
            empty = 0
            while held < half or not len(vectors):
                vectors, held, empty = filling.finish(check), held + 1, empty + 1
                if empty > hopeless:
                    raise SourceError(f"none of the pictures can be read ({pictures.description})")
            places = _places(len(vectors), plan.batches * batch, (config.seed, half, share.rank))
            for i in range(skip if half == begin else 0, plan.batches):
                if held == half and (last is None or (half + 1) * plan.batches < last):
                    filling.advance((i + 1) / plan.batches)
                yield vectors[places[i * batch : (i + 1) * batch].to(vectors.device)]


def _places(vectors: int, wanted: int, seed: tuple[int, int, int]) -> Tensor:
    """`wanted` places [n] among so many vectors: all of them shuffled, as often as it takes."""
    mixed = (seed[0] * 1_000_003 + seed[1]) * 65_537 + seed[2]
    dice = torch.Generator().manual_seed(mixed % 2**63)
    turns = -(-wanted // vectors)
    return torch.cat([torch.randperm(vectors, generator=dice) for _ in range(turns)])[:wanted]
