"""Writes a whole store of made-up neurons, to test and to measure what reads stores of any size.

    python -m explorer.store.synthetic --neurons 65536 --out FOLDER

The store follows every rule of FORMAT.md that can be checked without its model, which does not exist.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from explorer.errors import ExplorerError, StoreError
from explorer.records import NeuronSummary
from explorer.store import imagined
from explorer.store.imagined import COMMON, INTERVALS, PLACES, SIDE, TOPICS, Held, Imagined, imagine
from explorer.store.manifest import FVU_QUANTILES, Manifest
from explorer.store.maps import pack, scale_of
from explorer.store.publish import atomic
from explorer.store.rows import (
    ConceptRow,
    ExemplarRow,
    ImageRow,
    IntervalRow,
    LabelImagesRow,
    LabelRow,
    PartnerRow,
    WordRow,
)
from explorer.store.writer import StoreWriter

FEWEST_IMAGES = 64
_MAPS = 1024
_LABELS, _WORDS, _PARTNERS, _CONCEPTS = 3, 3, 4, 8
_LEAST = 0.5  # precision of a label that becomes a name


def synthetic_store(folder: Path, neurons: int, images: int = 2000, seed: int = 0) -> Path:
    """Publish a store of so many made-up neurons at `folder`, and return it; the same for the same seed.

    images: how many pictures there are for exemplars, shared among the neurons. Raises StoreError for
    numbers that are too small, or when the store cannot be written.
    """
    if neurons < 1 or images < FEWEST_IMAGES:
        raise StoreError(
            f"a store of {neurons} neurons and {images} images cannot be made up; use 1 and {FEWEST_IMAGES} "
            "or more"
        )
    dice = np.random.default_rng(seed)
    made = imagine(neurons, images, dice)
    with atomic(folder) as work, StoreWriter(work) as writer:
        _pictures(writer, made, dice)
        directions = imagined.directions(made, dice)
        writer.add_directions(directions)
        writer.add_positions(np.where(directions.any(1, keepdims=True), made.positions, np.nan))
        writer.add_centroids(_centroids(made, directions, dice), np.zeros(imagined.WIDTH, np.float32))
        writer.add_mean_patch(np.zeros(imagined.WIDTH))
        _names(writer, made, dice)
        writer.finish(_manifest(made, seed))
    return Path(folder)


def _pictures(writer: StoreWriter, made: Imagined, dice: np.random.Generator) -> None:
    """Images, exemplars and intervals."""
    pictures = imagined.thumbnails(made.topics, dice)
    writer.add_images(
        ImageRow(i, f"made-up-{i:06d}", f"made-up:{i}", SIDE, SIDE, picture, labels)
        for i, (picture, labels) in enumerate(zip(pictures, made.labels, strict=True))
    )
    maps = [pack(steps) for steps in imagined.patch_maps(_MAPS, dice)]
    writer.add_exemplars(_held(ExemplarRow, made.exemplars, made, maps, dice))
    writer.add_intervals(_held(IntervalRow, made.intervals, made, maps, dice))


def _held(
    row: type[ExemplarRow] | type[IntervalRow],
    held: Held,
    made: Imagined,
    maps: list[bytes],
    dice: np.random.Generator,
) -> Iterator[ExemplarRow | IntervalRow]:
    """Rows of places, each with one of the maps."""
    scales = scale_of(held.score * (made.active_peak / np.maximum(made.peak, 1e-30))[held.neuron])
    chosen = [maps[place] for place in dice.integers(0, len(maps), len(scales)).tolist()]
    yield from map(row, *(column.tolist() for column in (*held, scales)), chosen)


def _centroids(made: Imagined, directions: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Something near the directions; zeros for neurons without exemplars."""
    rows = directions + dice.standard_normal(directions.shape, dtype=np.float32)
    rows[made.fires == 0] = 0
    return rows


def _names(writer: StoreWriter, made: Imagined, dice: np.random.Generator) -> None:
    """Labels, concepts, words, partners, and the neurons themselves."""
    names = [*TOPICS, *COMMON]
    number = {name: place for place, name in enumerate(names)}
    counts = np.bincount([number[name] for row in made.labels for name in row], minlength=len(names))
    rates = counts / max(len(made.labels), 1)
    neuron, rank, label, precision = _best_labels(made)
    lift = precision / rates[label]
    average = np.clip(precision * dice.uniform(0.3, 1, len(label)), 0, 1)
    writer.add_labels(
        LabelRow(n, r, "concept", TOPICS[which], *values)
        for n, r, which, *values in zip(
            *(column.tolist() for column in (neuron, rank, label, precision, lift, average)), strict=True
        )
    )
    writer.add_label_images(
        LabelImagesRow("concept", name, imagined.INDEXED * count)
        for name, count in zip(names, counts.tolist(), strict=True)
    )
    first = rank == 0
    named = [column[first] for column in (neuron, label, precision, lift, average)]
    writer.add_concepts(_concepts(named, dice))
    live = np.flatnonzero(made.fires)
    writer.add_words(_words(live, dice))
    writer.add_partners(_partners(live, dice))
    writer.add_neurons(_summaries(made, named, dice), made.scores, made.actives)


def _best_labels(made: Imagined) -> tuple[np.ndarray, ...]:
    """The topics that most exemplars of each neuron show: neuron, rank, label, precision; ordered so."""
    held = made.exemplars
    pairs, count = np.unique(held.neuron * len(TOPICS) + made.topics[held.image], return_counts=True)
    neuron, label = np.divmod(pairs, len(TOPICS))
    order = np.lexsort((label, -count, neuron))
    neuron, label, count = neuron[order], label[order], count[order]
    rank = np.arange(len(neuron)) - np.searchsorted(neuron, neuron)
    few = rank < _LABELS
    places = np.bincount(held.neuron, minlength=len(made.fires))
    return neuron[few], rank[few], label[few], (count / places[neuron])[few]


def _concepts(named: list[np.ndarray], dice: np.random.Generator) -> Iterator[ConceptRow]:
    """The neurons with the best precision for each topic."""
    neuron, label, precision = named[:3]
    order = np.lexsort((neuron, -precision, label))
    rank = np.arange(len(order)) - np.searchsorted(label[order], label[order])
    for at, place in zip(order[rank < _CONCEPTS].tolist(), rank[rank < _CONCEPTS].tolist(), strict=True):
        share = float(precision[at])
        yield ConceptRow(
            TOPICS[label[at]], place, int(neuron[at]), share, share, *dice.uniform(0, 1, 4).tolist()
        )


def _words(live: np.ndarray, dice: np.random.Generator) -> Iterator[WordRow]:
    """Some words for each living neuron, most raised first."""
    vocabulary = sorted({word for name in TOPICS for word in name.split("_")})
    chosen = (dice.integers(0, len(vocabulary), len(live))[:, None] + 7 * np.arange(_WORDS)) % len(vocabulary)
    gains = np.sort(dice.exponential(1, chosen.shape), axis=1)[:, ::-1]
    for neuron, row, values in zip(live.tolist(), chosen.tolist(), gains.tolist(), strict=True):
        for rank, (word, gain) in enumerate(zip(row, values, strict=True)):
            yield WordRow(neuron, rank, vocabulary[word], gain)


def _partners(live: np.ndarray, dice: np.random.Generator) -> Iterator[PartnerRow]:
    """Some other living neurons for each, the closest first."""
    count = min(_PARTNERS, len(live) - 1)
    if count < 1:
        return
    together = np.sort(dice.uniform(0, 1, (len(live), count)), axis=1)[:, ::-1].tolist()
    for place, neuron in enumerate(live.tolist()):
        for rank, share in enumerate(together[place]):
            other = int(live[(place + rank + 1) % len(live)])
            yield PartnerRow(neuron, rank, other, share, share * 0.9)


def _summaries(made: Imagined, named: list[np.ndarray], dice: np.random.Generator) -> Iterator[NeuronSummary]:
    """The row of each neuron; labels of too low a precision name nothing."""
    n, patches = len(made.fires), made.n_indexed * imagined.PATCHES
    facts = {neuron: rest for neuron, *rest in zip(*(column.tolist() for column in named), strict=True)}
    mean = made.peak * dice.uniform(0.2, 0.7, n)
    active_mean = made.active_peak * dice.uniform(0.1, 0.6, n)
    alike = np.clip(dice.normal(0.6, 0.2, n), -1, 1)
    columns = (made.fires / made.n_indexed, made.in_top, mean, made.peak, made.patch_fires / patches)
    columns = (*columns, active_mean, made.active_peak, alike, made.entropy, made.fires)
    for neuron, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        fires, in_top, middle, peak, patch_fires, active, active_peak, mono, entropy, images = row
        label, precision, lift, average = facts.get(neuron, (0, 0.0, 0.0, 0.0))
        known = precision >= _LEAST
        yield NeuronSummary(
            neuron,
            fires,
            in_top,
            middle,
            peak,
            label=TOPICS[label] if known else "",
            precision=precision if known else 0.0,
            kind="concept" if known else "",
            patch_fires=patch_fires,
            variance=(middle / 2) ** 2,
            active_mean=active,
            active_variance=(active / 2) ** 2,
            active_peak=active_peak,
            lift=lift if known else 0.0,
            average_precision=average if known else None,
            monosemanticity=mono if images > 1 else None,
            monosemanticity_images=images,
            entropy=None if entropy != entropy else entropy,
        )


def _manifest(made: Imagined, seed: int) -> Manifest:
    """What the store says of itself."""
    name = f"made up, {len(made.fires)} neurons, seed {seed}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Manifest(
        model_id=f"made-up@{digest[:12]}",
        block=1,
        sae_id=digest,
        n_neurons=len(made.fires),
        n_images=made.n_indexed,
        n_skipped=0,
        rows=SIDE,
        cols=SIDE,
        score="mean",
        places=PLACES,
        source=name,
        image_list_hash=digest,
        preprocessing="none",
        fvu={str(quantile): round(0.2 + 0.2 * quantile, 4) for quantile in FVU_QUANTILES},
        created="2000-01-01T00:00:00+00:00",
        batch=32,
        include_cls=False,
        sample=0,
        n_parts=1,
        interval_places=INTERVALS + 3,
        monosemanticity_baseline=0.3,
        dtype="float32",
        words="unembedding",
    )


def main() -> int:
    """Write a store, and say how large it is."""
    parser = argparse.ArgumentParser(description="Write a store of made-up neurons, for tests and measures.")
    parser.add_argument("--neurons", type=int, default=65_536, help="how many (default: 65536)")
    parser.add_argument("--images", type=int, default=2000, help="pictures for exemplars (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the store")
    args = parser.parse_args()
    started = time.monotonic()
    try:
        folder = synthetic_store(args.out, args.neurons, args.images, args.seed)
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {args.neurons:,} neurons, {size / 2**20:,.0f} MiB, {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
