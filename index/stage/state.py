"""All that a pass over images keeps: a `BuildState`, taken in chunk by chunk, saved as arrays, merged.

Nothing in it depends on the order of the chunks, and its size does not depend on their number. It knows
numbers of images and neurons; nothing of pictures, models, files or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from explorer.errors import ExplorerError
from explorer.store.manifest import DETAILED
from explorer.store.sketch import side_of
from index.loading import SkippedRow
from index.stage import intervals
from index.stage.codes import (
    POOLINGS,
    EncodedChunk,
    Groups,
    Pooling,
    Pools,
    all_groups,
    beating,
    pool,
    runs_of,
    select,
)
from index.stage.evidence import ConceptEvidence
from index.stage.places import MOST_IMAGES, Places, bids_by_score
from index.stage.probes import ProbeSums
from index.stage.sample import Sample, Sampler, sampled
from index.stage.sketches import drawn
from index.stage.statistics import Statistics

PLACES = 16


@dataclass(frozen=True)
class StateShape:
    """What fixes the meaning of a state.

    n_neurons; n_patches = rows * cols of the grid; width: of the site's vectors; places: exemplars per
    neuron; score: how patches become an image's score; include_cls: whether the CLS token counts for it;
    n_labels, n_concepts: of the source's vocabulary and patch truth; sample_rate: share of the images
    that the sample takes.
    """

    n_neurons: int
    n_patches: int
    rows: int
    cols: int
    width: int
    places: int = PLACES
    score: Pooling = "mean"
    include_cls: bool = False
    n_labels: int = 0
    n_concepts: int = 0
    sample_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.score not in POOLINGS:
            raise ExplorerError(f"unknown score {self.score!r}; use {' or '.join(POOLINGS)}")
        if not 1 <= self.places <= 255:
            raise ExplorerError(f"cannot keep {self.places} places per neuron; use 1 to 255")
        if self.n_patches != self.rows * self.cols or not 0 < self.n_patches < 2**16:
            raise ExplorerError(f"cannot index a grid of {self.rows} x {self.cols} patches")

    @property
    def detailed_rate(self) -> float:
        """Share of the images that may stand for intervals, and whose activations histograms count."""
        return min(1.0, self.sample_rate * DETAILED) if self.sample_rate else 1.0

    @property
    def side(self) -> int:
        """Length of a sketch."""
        return side_of(self.width)


class BuildState:
    """Exemplars, statistics and evidence over the images so far.

    top: the strongest images; intervals: one image per half-octave below the peak (see `intervals`);
    statistics; label_images [L] int64: images that show each label; labelled: images that have labels at
    all; evidence, probes: where the source knows its patches; placed: places in the last chunk of the
    images that took a place there.
    """

    def __init__(self, shape: StateShape) -> None:
        self.shape = shape
        self.top = Places(shape.n_neurons, shape.places, shape.n_patches, shape.side)
        self.intervals = intervals.empty(shape.n_neurons, shape.n_patches)
        self.statistics = Statistics(shape.n_neurons, shape.n_patches)
        self.label_images = np.zeros(shape.n_labels, dtype=np.int64)
        self.labelled = np.zeros((), dtype=np.int64)
        self.sampler = Sampler(shape.width)
        known = shape.n_concepts > 0
        self.evidence = ConceptEvidence(shape.n_concepts, shape.n_neurons) if known else None
        self.probes = ProbeSums(shape.n_concepts, shape.width) if known else None
        self.skipped: list[SkippedRow] = []
        self.placed: list[int] = []

    @property
    def n_images(self) -> int:
        """How many images were taken in."""
        return self.statistics.n_images

    @property
    def sample(self) -> Sample:
        """The sampled images so far."""
        return self.sampler.sample()

    def take(self, chunk: EncodedChunk) -> None:
        """Take in a chunk. A chunk must come only once."""
        self.skipped += chunk.skipped
        self.placed = []
        if not chunk.items:
            return
        shape, codes = self.shape, chunk.codes
        numbers = np.array([item.number for item in chunk.items], dtype=np.int64)
        if numbers.max() > MOST_IMAGES:
            raise ExplorerError(f"an index takes at most {MOST_IMAGES:,} images")
        pools = pool(codes, shape.n_neurons, shape.score, shape.include_cls)
        groups = all_groups(pools)
        detailed = sampled(numbers, shape.detailed_rate)
        self.statistics.take(pools, groups, chunk.fvu, np.flatnonzero(detailed))
        self.placed = self._place(chunk, pools, groups, numbers, detailed).tolist()
        which = np.flatnonzero(sampled(numbers, shape.sample_rate))
        labels = [item.labels for item in chunk.items]
        self.sampler.take(which, numbers, labels, codes, groups, chunk.embeddings)
        for shown in labels:
            self.label_images[list(shown)] += 1
            self.labelled += bool(shown)
        truths = [item.truth for item in chunk.items]
        if self.evidence is not None and self.probes is not None:
            self.evidence.take(codes, truths)
            for i in which.tolist():
                if (truth := truths[i]) is not None:
                    self.probes.take(chunk.patches[i], truth)

    def _place(
        self, chunk: EncodedChunk, pools: Pools, groups: Groups, numbers: np.ndarray, detailed: np.ndarray
    ) -> np.ndarray:
        """Hand out places; returns which images of the chunk took one."""
        high = beating(pools, self.top.least)
        bids = bids_by_score(self.top, high, numbers)
        high = select(high, bids.group)
        runs = runs_of(pools, high)
        bids = bids._replace(group=np.arange(len(bids.row)))
        won = bids.group[self.top.take(bids, runs, lambda which: drawn(runs, chunk.sketches, which))]
        fair = intervals.bids(self.intervals, groups, numbers, detailed)
        some = runs_of(pools, select(groups, fair.group))
        fair = fair._replace(group=np.arange(len(fair.row)))
        lucky = self.intervals.take(fair, some)
        return np.union1d(runs.image[won], some.image[lucky])

    def holders(self) -> np.ndarray:
        """The numbers of all images that hold a place, ascending int64."""
        return np.union1d(self.top.holders(), self.intervals.holders())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but `skipped`, as arrays to save."""
        found = self.top.arrays("top") | self.intervals.arrays("intervals")
        found |= self.statistics.arrays() | self.sampler.arrays()
        found |= {"labels.images": self.label_images, "labels.labelled": self.labelled}
        if self.evidence is not None and self.probes is not None:
            found |= self.evidence.arrays("evidence") | self.probes.arrays("probes")
        return found

    @classmethod
    def restore(cls, shape: StateShape, arrays: Mapping[str, np.ndarray]) -> BuildState:
        """The state that `arrays` was made from, but for `skipped`."""
        return merge_states(shape, [arrays])

    def add_sums(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add all but the places of another state, given as its arrays."""
        self.statistics.absorb(arrays)
        self.sampler.absorb(arrays)
        self.label_images += arrays["labels.images"]
        self.labelled += arrays["labels.labelled"]
        if self.evidence is not None and self.probes is not None:
            self.evidence.absorb("evidence", arrays)
            self.probes.absorb("probes", arrays)


def merge_states(
    shape: StateShape,
    parts: Sequence[Mapping[str, np.ndarray]],
    each: Callable[[Sequence[Mapping[str, np.ndarray]]], Iterable[Mapping[str, np.ndarray]]] = iter,
) -> BuildState:
    """One state from those of parts that share no image, given as their arrays (memory maps will do).

    The order of the parts does not matter. Of all parts together only the keys are read; then `each` gives
    the parts one by one, in order, when the rest of their arrays may be read.
    """
    state = BuildState(shape)
    top, fair = state.top.choose("top", parts), state.intervals.choose("intervals", parts)
    for i, arrays in enumerate(each(parts)):
        state.top.fill("top", top, i, arrays)
        state.intervals.fill("intervals", fair, i, arrays)
        state.add_sums(arrays)
    return state
