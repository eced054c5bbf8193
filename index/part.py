"""One part of a build: chunk after chunk from the source into the state, saved every few minutes.

Beside a GPU the state's work on a chunk runs on a thread of its own while the next chunk is on the device;
on the CPU, where both want the same cores, they take turns. Chunks are taken in order. Knows the pass;
nothing of merging or of the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import torch

from explorer.errors import ExplorerError, ModelError, SourceError
from explorer.records import Grid
from explorer.sae import SAE
from explorer.store.pending import Pending, PendingImage
from explorer.store.writer import SkippedRow
from explorer.vlm.base import LVLM
from index.activations import Encoder
from index.checkpoints import Saved
from index.loading import Item, chunk_count, load_chunks
from index.sources.base import Source
from index.stage.codes import EncodedChunk
from index.stage.state import BuildState, StateShape
from index.stopping import StopRequests
from index.work import Cadence, Pins, Work


class Progress(NamedTuple):
    """How far a part is, in images: done (the skipped ones count), of how many, how many were skipped."""

    done: int
    of: int
    skipped: int


class Stopped(Exception):
    """A person or the system asked the build to stop; the progress is saved. signal: which one it was."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


def chunks_of(pins: Pins) -> Sequence[int]:
    """The chunks that belong to a part, in order."""
    return range(pins.shard - 1, chunk_count(pins.n_images, pins.batch), pins.of)


def images_of(pins: Pins, chunks: int) -> int:
    """How many pictures the first `chunks` chunks of a part have, unreadable ones included."""
    mine = chunks_of(pins)[:chunks]
    whole = len(mine) * pins.batch
    return whole - max(0, (mine[-1] + 1) * pins.batch - pins.n_images) if mine else 0


def sample_rate(pins: Pins) -> float:
    """The share of the images that the sample takes."""
    return min(1.0, pins.sample / max(1, pins.n_images))


def new_shape(pins: Pins, grid: Grid, n_labels: int, n_concepts: int) -> StateShape:
    """The shape of a part's state, once the grid of the first picture is known."""
    return StateShape(
        n_neurons=pins.n_neurons,
        n_patches=grid.rows * grid.cols,
        rows=grid.rows,
        cols=grid.cols,
        width=pins.width,
        places=pins.places,
        score=pins.score,
        include_cls=pins.include_cls,
        n_labels=n_labels,
        n_concepts=n_concepts,
        sample_rate=sample_rate(pins),
    )


class Part:
    """The pass over one part's chunks, from where the last checkpoint left it."""

    def __init__(
        self, work: Work, source: Source, saved: Saved | None, pending: Pending, checkpoint_every: float
    ) -> None:
        self._work, self._source, self._pending = work, source, pending
        self._chunks = chunks_of(work.pins)
        self._cadence = Cadence(checkpoint_every)
        self.done = saved.chunks if saved else 0
        self._saved_at = self.done if saved else None
        self.skipped: list[SkippedRow] = list(saved.skipped) if saved else []
        self._state: BuildState | None = None
        self._shape: StateShape | None = None
        self._whole = True
        if saved and saved.shape is not None:
            self._shape = StateShape(**saved.shape)
            self._state = BuildState.restore(self._shape, saved.arrays)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        pins = self._work.pins
        return Progress(images_of(pins, self.done), images_of(pins, len(self._chunks)), len(self.skipped))

    def run(
        self,
        lvlm: LVLM,
        sae: SAE,
        block: int,
        workers: int,
        seen: Callable[[Progress], None],
        stop: StopRequests,
    ) -> None:
        """Do the chunks that are left and save. Raises Stopped after saving, when asked to stop.

        After an ExplorerError of the source or the model what was done before it is saved; after one of the
        disk the last checkpoint stands.
        """
        seen(self.progress)
        beside = self._work.pins.device != "cpu"
        with ThreadPoolExecutor(1, thread_name_prefix="state") as pool:
            job: Future[None] | None = None
            try:
                with closing(self._encoded(lvlm, sae, block, workers)) as arriving:
                    for encoded in arriving:
                        if job is not None:
                            job.result()
                            seen(self.progress)
                        job = pool.submit(self._take, encoded)
                        if not beside:
                            wait([job])
                        if stop.asked():
                            break
                if job is not None:
                    job.result()
                    seen(self.progress)
            except ExplorerError:
                wait([job] if job else [])
                if self._whole:
                    self.checkpoint()
                raise
        self.checkpoint()
        if stop.asked():
            raise Stopped(stop.signal)

    def checkpoint(self) -> None:
        """Save the progress; then forget the pictures that hold no place in it."""
        if self._saved_at == self.done:
            return
        started = time.monotonic()
        state, shape = self._state, self._shape
        arrays = {} if state is None else state.arrays()
        fields = None if shape is None else asdict(shape)
        self._pending.commit()
        self._work.save(Saved(self.done, len(self._chunks), fields, arrays, self.skipped))
        if state is not None:
            self._pending.keep(state.holders())
        self._saved_at = self.done
        self._cadence.saved(time.monotonic() - started)

    def _encoded(self, lvlm: LVLM, sae: SAE, block: int, workers: int) -> Generator[EncodedChunk, None, None]:
        """The chunks that are left, with their activations."""
        todo, pins = self._chunks[self.done :], self._work.pins
        half = pins.dtype in ("bfloat16", "float16") and pins.device != "cpu"
        encode = Encoder(
            lvlm, sae, block, pins.include_cls, sample_rate(pins), torch.bfloat16 if half else torch.float32
        )
        preprocess = partial(lvlm.preprocess, fixed=True)
        with closing(load_chunks(self._source, preprocess, todo, pins.batch, workers)) as chunks:
            for chunk in chunks:
                try:
                    yield encode(chunk)
                except torch.OutOfMemoryError as error:
                    raise ModelError(
                        f"the device ran out of memory with batches of {pins.batch}; build again with a "
                        "smaller --batch (another batch needs --restart)"
                    ) from error

    def _take(self, encoded: EncodedChunk) -> None:
        """Take in one chunk; save when it is time."""
        self._whole = False
        self.skipped += encoded.skipped
        if encoded.items:
            state = self._ready(encoded.items)
            state.take(encoded)
            self._pending.put(_pending(encoded.items[place]) for place in state.placed)
        self.done += 1
        if self._cadence.due():
            self.checkpoint()
        self._whole = True  # a failed write of any kind leaves it unset: the last checkpoint then stands

    def _ready(self, items: Sequence[Item]) -> BuildState:
        """The state, made for the first picture's grid. Raises SourceError for a picture of another grid."""
        if self._state is None or self._shape is None:
            vocabulary, concepts = self._work.facts.vocabulary, self._work.facts.concepts
            self._shape = new_shape(self._work.pins, items[0].grid, len(vocabulary), len(concepts))
            self._state = BuildState(self._shape)
        for item in items:
            if (item.grid.rows, item.grid.cols) != (self._shape.rows, self._shape.cols):
                raise SourceError(
                    f"{item.image_id} has a {item.grid.rows} x {item.grid.cols} grid, the images before it "
                    f"{self._shape.rows} x {self._shape.cols}; a store needs one grid for all"
                )
        return self._state


def _pending(item: Item) -> PendingImage:
    """What to keep of a picture that holds a place."""
    return PendingImage(
        item.number,
        item.image_id,
        item.origin,
        item.grid.rows,
        item.grid.cols,
        item.thumbnail,
        tuple(item.labels),
    )
