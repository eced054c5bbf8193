"""Fills a store's tables from the finished state of a build.

Knows which table comes from where; what a neuron means is the business of `meaning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import merge as in_order
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.sae import SAE
from explorer.store import Manifest, StoreWriter
from explorer.store.classes import ClassCounts, classify, count
from explorer.store.manifest import Route
from explorer.store.pending import Pending, PendingImage
from explorer.store.rows import ImageRow, SkippedRow
from explorer.store.vectors import unit_rows
from explorer.vlm.base import LVLM
from index.exemplars import (
    centroids,
    exemplar_entropies,
    exemplar_rows,
    image_places,
    interval_rows,
    shown_images,
)
from index.meaning.labels import Shown
from index.meaning.layout import positions
from index.meaning.routes import at_patch, find_words
from index.naming import Material, measure, word_rows, write_meaning
from index.stage.state import BuildState
from index.work import SourceFacts


class Finished(NamedTuple):
    """The manifest of a store that is complete, and how many neurons have each class."""

    manifest: Manifest
    classes: ClassCounts


def write_store(
    writer: StoreWriter,
    manifest: Manifest,
    state: BuildState,
    facts: SourceFacts,
    pictures: Mapping[int, Pending],
    skipped: Sequence[SkippedRow],
    sae: SAE,
    lvlm: LVLM | None,
    words: Route | None,
    tell: Callable[[str], None],
) -> Finished:
    """Write all tables, in an order that does not depend on the order of the images or parts.

    pictures: the pending file of each part, from 0; lvlm: None for a store without words; words: how they are
    found, None for the way that suits the model.
    """
    found = state.statistics.facts()
    holders = shown_images(state, found.peak)
    directions = sae.W_dec.detach().float().cpu().numpy()
    shown: list[tuple[int, ...]] = []
    names = [name for _, name in facts.vocabulary]
    tell(f"writing {len(holders):,} pictures")
    owner = holders // manifest.batch % manifest.n_parts
    writer.add_images(image_rows(pictures, holders, owner, facts, shown))
    tell("writing exemplars")
    writer.add_exemplars(exemplar_rows(state, holders))
    writer.add_intervals(interval_rows(state, holders, found.peak))
    writer.add_skipped(skipped)
    tell("writing vectors")
    writer.add_directions(directions)
    writer.add_centroids(centroids(state.top), sae.b_dec.detach().float().cpu().numpy())
    tell("measuring neurons on the sample")
    measures = measure(state)
    tell("naming neurons")
    held = image_places(state.top, holders)
    entropies = exemplar_entropies(state, held, [[names[label] for label in row] for row in shown])
    material = Material(state, found, facts, held, Shown.of(shown), entropies)
    baseline = write_meaning(writer, material, directions, measures)
    tell("drawing the map of directions")
    writer.add_positions(positions(unit_rows(directions)))
    mean_patch = mean_of(state.sample.embeddings)
    if mean_patch is not None:
        writer.add_mean_patch(mean_patch)
    if lvlm is not None:
        rows = at_patch(sae, directions, mean_patch)
        asked = find_words(words, lvlm, manifest.block, mean_patch, rows, found.active_mean, tell)
        writer.add_words(word_rows(asked.words))
        manifest = replace(manifest, words=asked.route)
    manifest = replace(manifest, fvu=state.statistics.fvu_quantiles(), monosemanticity_baseline=baseline)
    tell("closing the store")
    return Finished(writer.finish(manifest), count(classify(found.fires, found.in_top)))


def mean_of(embeddings: np.ndarray) -> np.ndarray | None:
    """The mean [d] of the sampled images' [s, d], float32 as the store keeps it; None without any."""
    return embeddings.mean(0, dtype=np.float64).astype(np.float32) if len(embeddings) else None


def image_rows(
    pictures: Mapping[int, Pending],
    holders: np.ndarray,
    owner: np.ndarray,
    facts: SourceFacts,
    shown: list[tuple[int, ...]],
) -> Iterator[ImageRow]:
    """The pictures that hold a place, by number, as rows of the store; `shown` hears of their labels.

    owner: the part that each comes from.
    """
    names = [name for _, name in facts.vocabulary]
    if (lost := np.flatnonzero(~np.isin(owner, list(pictures)))).size:
        raise StoreError(
            f"picture {holders[lost[0]]} and {len(lost) - 1} others that hold a place are missing from the "
            "parts; build them again with --restart"
        )
    rows = (pending.read(holders[owner == part]) for part, pending in sorted(pictures.items()))
    for image, row in enumerate(in_order(*rows, key=_number)):
        shown.append(row.labels)
        yield ImageRow(image, *row[1:6], tuple(names[label] for label in row.labels))


def _number(picture: PendingImage) -> int:
    return picture.number
