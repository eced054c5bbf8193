"""Builds one part of an index, or a whole store: opens the work folder, runs the part, merges it.

A part 1 of 1 is merged into a store at once, by the same code as parts from many machines. Knows the order
of the steps; each step is a module of its own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from explorer.errors import ExplorerError
from explorer.sae import SAE
from explorer.session import site_block
from explorer.store.manifest import ROUTES, Route
from explorer.store.pending import Pending
from explorer.store.writer import SkippedRow
from explorer.vlm.base import LVLM
from index.leftovers import clear_leftovers
from index.merge import Merged, merge_works
from index.part import Part, Progress, chunks_of, images_of
from index.sources.base import Source
from index.stage.codes import POOLINGS, Pooling
from index.stopping import StopRequests
from index.work import Pins, Shard, SourceFacts, Work, check_out, open_work, work_folder

MOST_PLACES = 255


@dataclass(frozen=True)
class BuildConfig:
    """How to build. Raises ExplorerError for what cannot be.

    out: folder of the store; with `shard` the folder of all parts.
    score: how patches become an image's score.
    include_cls: whether the CLS token counts for the score.
    batch: images that go through the tower together.
    places: exemplars per neuron.
    sample: about how many images are kept whole for the measures that need pairs of images.
    workers: processes that read pictures; 0 for this one.
    shard: build only this part; None for all, and the store.
    checkpoint_every: seconds between checkpoints, at least.
    restart: throw away the progress of an earlier build that was not finished.
    words: how the words that each neuron raises are found; None for the way that suits the model.
    device, dtype: what the model runs on, for the record.
    """

    out: Path
    score: Pooling = "mean"
    include_cls: bool = False
    batch: int = 32
    places: int = 16
    sample: int = 4096
    workers: int = 0
    shard: Shard | None = None
    checkpoint_every: float = 300.0
    restart: bool = False
    words: Route | None = None
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.score not in POOLINGS:
            raise ExplorerError(f"unknown score {self.score!r}; use {' or '.join(POOLINGS)}")
        if self.words not in (None, *ROUTES):
            raise ExplorerError(f"unknown words {self.words!r}; use {', '.join(ROUTES)}")
        least = {"batch": 1, "sample": 0, "workers": 0, "checkpoint_every": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ExplorerError(f"{name} {getattr(self, name)} is too small; use {lowest} or more")
        if not 1 <= self.places <= MOST_PLACES:
            raise ExplorerError(f"places {self.places} will not do; use 1 to {MOST_PLACES}")
        if self.shard is not None and not 1 <= self.shard.index <= self.shard.of:
            index, of = self.shard
            raise ExplorerError(f"there is no shard {index}/{of}; use 1/{of} to {of}/{of}")


class Summary(NamedTuple):
    """What a build did.

    folder: the store or the part; merged: what the store holds, None for a part; skipped: all pictures that
    could not be read; n_images: how many were indexed; fresh: pictures done in this run, the skipped ones
    among them; seconds: what they took; finishing: seconds for the store after that.
    """

    folder: Path
    merged: Merged | None
    skipped: list[SkippedRow]
    n_images: int
    fresh: int
    seconds: float
    finishing: float = 0.0


def build(
    config: BuildConfig,
    source: Source,
    lvlm: LVLM,
    sae: SAE,
    seen: Callable[[Progress], None] = lambda progress: None,
    stop: StopRequests | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Summary:
    """Build a part, or a whole store, going on from saved progress where there is some.

    seen: hears of every chunk; stop: hears Ctrl-C and the like while images are read; tell: hears what is
    being done besides. Raises Stopped, or ExplorerError when the parts do not fit, no image can be read, or
    something cannot be written.
    """
    started = time.monotonic()
    block = site_block(lvlm, sae)
    check_out(config.out, config.shard)
    facts = source_facts(source)
    pins = make_pins(config, source, facts, lvlm, sae, block)
    with open_work(work_folder(config.out, config.shard), pins, facts, config.restart) as work:
        run = _run_part(work, config, source, lvlm, sae, seen, stop or StopRequests(), tell)
        finished = time.monotonic()
        merged = None
        if config.shard is None:
            clear_leftovers(config.out)
            merged = merge_works([work], config.out, sae, lvlm, config.words, tell)
            work.remove()
    images = images_of(pins, len(chunks_of(pins)))
    return Summary(
        folder=config.out if config.shard is None else work.folder,
        merged=merged,
        skipped=run.skipped,
        n_images=images - len(run.skipped),
        fresh=images - run.before,
        seconds=finished - started,
        finishing=time.monotonic() - finished,
    )


class _Run(NamedTuple):
    """What a part's run found and left: pictures done before it, and all that could not be read."""

    before: int
    skipped: list[SkippedRow]


def _run_part(
    work: Work,
    config: BuildConfig,
    source: Source,
    lvlm: LVLM,
    sae: SAE,
    seen: Callable[[Progress], None],
    stop: StopRequests,
    tell: Callable[[str], None],
) -> _Run:
    """Do what is left of a part; its state is then in its folder."""
    saved = work.load()
    before = images_of(work.pins, saved.chunks) if saved else 0
    if saved is not None:
        for words in saved.damaged:
            tell(f"passed over a damaged checkpoint ({words})")
        if saved.complete:
            tell(f"all {before} images of this part are done already")
            return _Run(before, list(saved.skipped))
        tell(f"going on after image {before} of {images_of(work.pins, saved.of)}")
    with Pending(work.pictures) as pending:
        part = Part(work, source, saved, pending, config.checkpoint_every)
        del saved  # its arrays are in the part's state now
        with stop:
            part.run(lvlm, sae, work.pins.block, config.workers, seen, stop)
        return _Run(before, part.skipped)


def source_facts(source: Source) -> SourceFacts:
    """What a merge must know of a source."""
    vocabulary = tuple((label.kind, label.name) for label in source.vocabulary)
    return SourceFacts(source.description, vocabulary, tuple(source.concepts))


def make_pins(
    config: BuildConfig, source: Source, facts: SourceFacts, lvlm: LVLM, sae: SAE, block: int
) -> Pins:
    """All that the progress depends on."""
    words = json.dumps([facts.vocabulary, facts.concepts])
    shard = config.shard or Shard()
    return Pins(
        model_id=lvlm.model_id,
        block=block,
        sae_id=sae.id,
        n_neurons=sae.n_neurons,
        width=sae.width,
        dtype=config.dtype,
        device=config.device.partition(":")[0],
        preprocessing=lvlm.preprocessing,
        list_hash=source.list_hash(),
        n_images=len(source),
        vocabulary=hashlib.sha256(words.encode()).hexdigest(),
        batch=config.batch,
        score=config.score,
        include_cls=config.include_cls,
        places=config.places,
        sample=config.sample,
        shard=shard.index,
        of=shard.of,
    )
