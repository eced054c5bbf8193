"""Builds a store from a source of images: one pass, then all is written in order and published at once.

Knows the order of the steps; each step is a module of its own.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from explorer.errors import ExplorerError, SourceError
from explorer.records import Grid, NeuronSummary
from explorer.sae import SAE
from explorer.session import site_block
from explorer.store import Manifest, StoreWriter, atomic
from explorer.store.maps import pack
from explorer.store.pending import Pending, PendingImage
from explorer.store.writer import ConceptRow, ExemplarRow, ImageRow, SkippedRow
from explorer.vlm.base import LVLM
from index.activations import Encoded, batches, encode
from index.labels import ConceptEvidence, best_labels, concept_rows, precisions, rank_scores
from index.probes import ProbeSums, evidence
from index.scores import POOLINGS, Pooling, pool
from index.sources import Picture, Source, list_hash
from index.statistics import Statistics
from index.top import PLACES, TopImages

THUMBNAIL_SIDE = 192
PENDING_NAME = "pending.sqlite"


@dataclass(frozen=True)
class BuildConfig:
    """How to build.

    out: folder of the store; score: how patches become an image's score; batch: images that go through
    the tower together; places: exemplars per neuron.
    """

    out: Path
    score: Pooling = "mean"
    batch: int = 16
    places: int = PLACES

    def __post_init__(self) -> None:
        if self.score not in POOLINGS:
            raise ExplorerError(f"unknown score {self.score!r}; use {' or '.join(POOLINGS)}")
        if self.batch < 1 or not 1 <= self.places <= 255:
            raise ExplorerError(
                f"cannot build with batch {self.batch} and {self.places} places; use 1 and more"
            )


class Summary(NamedTuple):
    """What a build did. n_live: neurons with exemplars; n_always_on: in the top-20 of every image."""

    manifest: Manifest
    skipped: list[SkippedRow]
    n_live: int
    n_always_on: int
    seconds: float


class _Pass:
    """What one pass over the images leaves behind."""

    def __init__(self, config: BuildConfig, n_neurons: int, concepts: int, pending: Pending) -> None:
        self.config = config
        self.n_neurons = n_neurons
        self.pending = pending
        self.statistics = Statistics(n_neurons)
        self.evidence = ConceptEvidence(concepts, n_neurons) if concepts else None
        self.probes: ProbeSums | None = None
        self.skipped: list[SkippedRow] = []
        self.top: TopImages | None = None
        self.grid: Grid | None = None

    def readable(
        self, source: Iterable[Picture | SkippedRow], seen: Callable[[int], None]
    ) -> Iterator[Picture]:
        """The pictures of the source that can be read; the others are noted."""
        for item in source:
            if isinstance(item, SkippedRow):
                self.skipped.append(item)
                seen(1)
            else:
                yield item

    def take(self, encoded: Encoded) -> None:
        """Take in one image."""
        picture, grid, codes, fvu, _ = encoded
        if self.top is None or self.grid is None:
            self.grid = grid
            self.top = TopImages(self.n_neurons, codes.n_patches, self.config.places)
        if (grid.rows, grid.cols) != (self.grid.rows, self.grid.cols):
            raise SourceError(
                f"{picture.image_id} has a {grid.rows} x {grid.cols} grid, the images before it "
                f"{self.grid.rows} x {self.grid.cols}; a store needs one grid for all"
            )
        scores = pool(codes, self.n_neurons, self.config.score)
        taken = self.top.take(picture.image_id, codes, scores)
        if taken.placed:
            self.pending.put(_pending(picture, grid))
        if taken.released:
            self.pending.drop(taken.released)
        self.statistics.take(scores, fvu)
        if self.evidence is not None and (truth := picture.truth(grid.rows, grid.cols)) is not None:
            self.evidence.take(codes, truth)
            self.probes = self.probes or ProbeSums(len(self.evidence.objects), encoded.patches.shape[1])
            self.probes.take(encoded.patches, truth)


def build(
    config: BuildConfig,
    source: Source,
    lvlm: LVLM,
    sae: SAE,
    seen: Callable[[int], None] = lambda count: None,
) -> Summary:
    """Build and publish a store; `seen` hears how many more images are done.

    Raises ExplorerError when the parts do not fit, no image can be read, or the store cannot be written.
    """
    started = time.monotonic()
    block = site_block(lvlm, sae)
    ids = source.ids()
    with atomic(config.out) as folder, Pending(folder / PENDING_NAME) as pending:
        state = _Pass(config, sae.n_neurons, len(source.concepts), pending)
        for batch in batches(state.readable(source, seen), config.batch):
            for encoded in encode(lvlm, sae, block, batch):
                state.take(encoded)
            seen(len(batch))
        if state.grid is None:
            first = state.skipped[0].reason if state.skipped else "there are none"
            raise SourceError(f"none of the {len(ids)} pictures could be read; the first: {first}")
        manifest = _manifest(config, source, lvlm, sae, block, ids, state)
        manifest = _write(folder, state, source, sae, manifest)
    facts = state.statistics.facts()
    always_on = int((facts.in_top >= 1).sum())
    return Summary(
        manifest, state.skipped, int((facts.fires > 0).sum()), always_on, time.monotonic() - started
    )


def _pending(picture: Picture, grid: Grid) -> PendingImage:
    """What to keep of a picture: the part that the grid covers, small."""
    image = picture.image.crop(tuple(round(edge) for edge in grid.covered))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return PendingImage(
        picture.image_id, picture.origin, grid.rows, grid.cols, stream.getvalue(), picture.labels
    )


def _manifest(
    config: BuildConfig, source: Source, lvlm: LVLM, sae: SAE, block: int, ids: list[str], state: _Pass
) -> Manifest:
    """The manifest of a finished pass; the writer adds the files."""
    assert state.grid is not None
    return Manifest(
        model_id=lvlm.model_id,
        block=block,
        sae_id=sae.id,
        n_neurons=sae.n_neurons,
        n_images=state.statistics.n_images,
        n_skipped=len(state.skipped),
        rows=state.grid.rows,
        cols=state.grid.cols,
        score=config.score,
        places=config.places,
        source=source.description,
        image_list_hash=list_hash(ids),
        preprocessing=lvlm.preprocessing,
        fvu=state.statistics.fvu_quantiles(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _write(folder: Path, state: _Pass, source: Source, sae: SAE, manifest: Manifest) -> Manifest:
    """Write all tables, in an order that does not depend on the order of the images."""
    top = state.top
    assert top is not None
    numbers: dict[str, int] = {}
    shown: list[tuple[str, ...]] = []
    with StoreWriter(folder) as writer:

        def images() -> Iterator[ImageRow]:
            for number, row in enumerate(state.pending):
                numbers[row.image_id] = number
                shown.append(row.labels)
                yield ImageRow(number, *row)

        writer.add_images(images())
        exemplars = _numbered(top, numbers)
        writer.add_exemplars(_exemplar_rows(top, exemplars))
        directions = sae.W_dec.detach().float().cpu().numpy()
        neurons, concepts = _meaning(state, source, shown, exemplars, directions)
        writer.add_neurons(neurons)
        writer.add_concepts(concepts)
        writer.add_skipped(state.skipped)
        if state.probes is not None:
            writer.add_probe(state.probes.probe(tuple(source.concepts)))
        writer.add_directions(directions)
        return writer.finish(manifest)


def _numbered(top: TopImages, numbers: dict[str, int]) -> np.ndarray:
    """The store's number of the image at each place [F, P], -1 where it is empty."""
    exemplars = np.full(top.holder.shape, -1, dtype=np.int64)
    for neuron, rank in np.argwhere(top.scores > 0):
        exemplars[neuron, rank] = numbers[top.holders[top.holder[neuron, rank]]]
    return exemplars


def _exemplar_rows(top: TopImages, exemplars: np.ndarray) -> Iterator[ExemplarRow]:
    """One row per place, by neuron and rank."""
    for neuron, rank in np.argwhere(exemplars >= 0).tolist():
        slot = int(top.slot[neuron, rank])
        steps, scale = top.maps[neuron, slot], float(top.scales[neuron, slot])
        image, score = int(exemplars[neuron, rank]), float(top.scores[neuron, rank])
        yield ExemplarRow(neuron, rank, image, score, scale, pack(steps))


def _meaning(
    state: _Pass, source: Source, shown: list[tuple[str, ...]], exemplars: np.ndarray, directions: np.ndarray
) -> tuple[list[NeuronSummary], list[ConceptRow]]:
    """The summary of each neuron, and the neurons of each concept where the source has ground truth."""
    names = [""] * len(exemplars)
    precision = np.zeros(len(exemplars))
    concepts: list[ConceptRow] = []
    if state.evidence is not None:
        place = {concept: c for c, concept in enumerate(source.concepts)}
        shows = np.zeros((len(shown), len(place)), dtype=bool)
        for image, labels in enumerate(shown):
            shows[image, [place[label] for label in labels if label in place]] = True
        facts = state.evidence.facts()
        scores, shares = rank_scores(facts), precisions(shows, exemplars)
        labels = best_labels(scores, shares)
        names = [source.concepts[c] if c >= 0 else "" for c in labels.concept]
        precision = labels.precision
        if state.probes is not None:
            carried = evidence(facts, state.probes.contrasts(), directions)
            concepts = concept_rows(source.concepts, facts, carried, shares)
    rows = zip(*state.statistics.facts(), names, precision, strict=True)
    summaries = [
        NeuronSummary(neuron, float(fires), float(in_top), float(mean), float(peak), name, float(share))
        for neuron, (fires, in_top, mean, peak, name, share) in enumerate(rows)
    ]
    return summaries, concepts
