"""Made-up numbers and pictures in the shape of an index: what `synthetic` writes into a store.

Every topic has its pictures and its neurons. All is drawn from one seed; nothing means anything. Numpy and
Pillow only.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from explorer.store.classes import classify
from explorer.store.entropy import label_entropies
from explorer.store.histogram import BINS, bins_of, half_octaves

SIDE = 24
"""Patches per row and column."""
PATCHES = SIDE**2
PLACES = 16
INTERVALS = 6
"""Lower intervals that hold an image, at most."""
INDEXED = 25
"""Images that are indexed for each one that is kept."""
WIDTH = 256
_THUMBNAIL = 192
_PER_TOPIC = 24
_FALL = np.cumsum(0.5 ** np.arange(1, 13))  # shares of the half-octaves from the peak's downwards
_THINGS = (
    "anchor apple barn beach bell bicycle boat book bridge camera candle castle cat chair clock cloud coat "
    "cup desk dog door drum fence fern fish flag flute fork garden gate guitar hat horse kite ladder lamp "
    "leaf lemon lighthouse mask mirror moon mountain owl pear piano pillow plate river road rope sail shell "
    "shoe snow spoon stairs stone tower train tree umbrella vase violin wheel window"
).split()
_KINDS = ("old", "red", "small", "wooden")
TOPICS = tuple(f"{kind}_{thing}" for kind in _KINDS for thing in _THINGS)
COMMON = ("indoors", "outdoors", "person", "sky")
"""Labels that pictures of any topic may have as well."""


class Held(NamedTuple):
    """Places of images, by neuron and rank (or interval): neuron, rank, image int64; score float32."""

    neuron: np.ndarray
    rank: np.ndarray
    image: np.ndarray
    score: np.ndarray


@dataclass(frozen=True, eq=False)
class Imagined:
    """An index that never was.

    n_indexed: how many images were indexed; topics [I] int64, labels: of the images that are kept; fires,
    patch_fires [F] int64: on how many images and patches each neuron fires; in_top [F]: share of images;
    peak, active_peak [F] float32; topic [F] int64: of each neuron; exemplars, intervals: places; scores,
    actives [F, 64]: histograms; entropy [F]; positions [F, 2].
    """

    n_indexed: int
    topics: np.ndarray
    labels: list[tuple[str, ...]]
    fires: np.ndarray
    patch_fires: np.ndarray
    in_top: np.ndarray
    peak: np.ndarray
    active_peak: np.ndarray
    topic: np.ndarray
    exemplars: Held
    intervals: Held
    scores: np.ndarray
    actives: np.ndarray
    entropy: np.ndarray
    positions: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The class of each neuron, [F] str."""
        return classify(self.fires / self.n_indexed, self.in_top)


def imagine(neurons: int, images: int, dice: np.random.Generator) -> Imagined:
    """Make up an index of `neurons` neurons that keeps `images` images or fewer."""
    n_indexed = INDEXED * images
    fires, in_top = _rates(neurons, n_indexed, dice)
    live = fires > 0
    n_topics = min(len(TOPICS), images // _PER_TOPIC)
    topic = dice.integers(0, n_topics, neurons)
    peak = np.where(live, dice.lognormal(0.5, 0.8, neurons), 0).astype(np.float32)
    exemplars, intervals = _places(fires, peak, topic, images // n_topics, images, dice)
    kept, where = np.unique(np.concatenate([exemplars.image, intervals.image]), return_inverse=True)
    exemplars = exemplars._replace(image=where[: len(exemplars.image)])
    intervals = intervals._replace(image=where[len(exemplars.image) :])
    topics = np.minimum(kept // (images // n_topics), n_topics - 1)
    labels = _labels(topics, dice)
    patch_fires = fires * dice.integers(1, 40, neurons)
    active_peak = (peak * dice.uniform(1, 6, neurons)).astype(np.float32)
    return Imagined(
        n_indexed=n_indexed,
        topics=topics,
        labels=labels,
        fires=fires,
        patch_fires=patch_fires,
        in_top=in_top,
        peak=peak,
        active_peak=active_peak,
        topic=topic,
        exemplars=exemplars,
        intervals=intervals,
        scores=_histograms(fires, peak),
        actives=_histograms(patch_fires, active_peak),
        entropy=label_entropies(exemplars.neuron, exemplars.image, exemplars.score, labels, neurons),
        positions=_positions(topic, dice),
    )


def _rates(neurons: int, n_indexed: int, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """On how many images each neuron fires, int64, and the share of them where it is in the top-20."""
    share = np.exp(dice.normal(np.log(0.004), 1.6, neurons))
    fires = np.clip(np.rint(share * n_indexed), 0, n_indexed).astype(np.int64)
    fires[dice.random(neurons) < 0.01] = 0
    always = dice.random(neurons) < 0.0005
    fires[always] = n_indexed
    in_top = np.rint(fires * dice.beta(1, 4, neurons)) / n_indexed
    return fires, np.where(always, 1.0, in_top)


def _places(
    fires: np.ndarray,
    peak: np.ndarray,
    topic: np.ndarray,
    per_topic: int,
    images: int,
    dice: np.random.Generator,
) -> tuple[Held, Held]:
    """Different images for each neuron, most of its own topic: exemplars, and lower intervals of those that
    fire on more. Images lie in the order of their topics, `per_topic` of each."""
    n, wide = len(fires), PLACES + INTERVALS
    steps = dice.integers(1, max(images // (2 * wide), 1) + 1, (n, wide))
    near = dice.random(n) < 0.8
    steps[near] = 1
    first = topic * per_topic + dice.integers(0, per_topic, n)
    image = (first[:, None] + np.cumsum(steps, axis=1)) % images
    held = np.arange(wide) < np.minimum(fires, wide)[:, None]
    fall = np.sort(dice.uniform(0.5, 1, (n, PLACES)), axis=1)[:, ::-1]
    fall[:, 0] = 1
    score = (peak[:, None] * fall).astype(np.float32)
    neuron, rank = np.nonzero(held[:, :PLACES])
    exemplars = Held(neuron, rank, image[neuron, rank], score[neuron, rank])
    neuron, slot = np.nonzero(held[:, PLACES:])
    interval = slot + 3
    bits = (half_octaves(peak[neuron]) - interval.astype(np.int32)) << 22
    low = (bits | dice.integers(0, 1 << 22, len(bits), dtype=np.int32)).view(np.float32)
    return exemplars, Held(neuron, interval, image[neuron, PLACES + slot], low)


def _labels(topics: np.ndarray, dice: np.random.Generator) -> list[tuple[str, ...]]:
    """What each image shows: its topic, and often something common."""
    also = dice.integers(0, 2 * len(COMMON), len(topics)).tolist()
    return [
        (TOPICS[topic], COMMON[other]) if other < len(COMMON) else (TOPICS[topic],)
        for topic, other in zip(topics.tolist(), also, strict=True)
    ]


def _histograms(counts: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Counts [F] over half-octaves from the peak's downwards, most of them near the peak, [F, 64] int64."""
    upto = np.ceil(counts[:, None] * (_FALL / _FALL[-1]))
    parts = np.diff(upto, axis=1, prepend=0).astype(np.int64)
    live = np.flatnonzero(counts)
    found = np.zeros((len(counts), BINS), dtype=np.int64)
    bins = np.maximum(bins_of(peaks[live])[:, None] - np.arange(parts.shape[1]), 0)
    np.add.at(found, (live[:, None], bins), parts[live])
    return found


def _positions(topic: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A place for each neuron, those of one topic together, [F, 2] within -1..1."""
    centres = dice.uniform(-0.9, 0.9, (len(TOPICS), 2))
    return np.clip(centres[topic] + dice.normal(0, 0.02, (len(topic), 2)), -1, 1)


def directions(imagined: Imagined, dice: np.random.Generator) -> np.ndarray:
    """Directions [F, d] float32, those of one topic near each other; half of the dead neurons have none."""
    centres = dice.standard_normal((len(TOPICS), WIDTH), dtype=np.float32)
    rows = centres[imagined.topic]
    rows += 0.8 * dice.standard_normal(rows.shape, dtype=np.float32)
    rows[(imagined.fires == 0) & (dice.random(len(rows)) < 0.5)] = 0
    return rows


def patch_maps(count: int, dice: np.random.Generator) -> np.ndarray:
    """Maps [count, T] of uint8 steps, each with one or two round spots; the largest step is 255."""
    rows, cols = np.divmod(np.arange(PATCHES), SIDE)
    centre = dice.uniform(0, SIDE, (count, 2, 2))
    size = dice.uniform(0.8, 3, (count, 2, 1))
    away = (rows - centre[..., :1]) ** 2 + (cols - centre[..., 1:]) ** 2
    spots = np.exp(-away / size**2).max(1)
    spots /= spots.max(1, keepdims=True)
    return np.where(spots > 0.1, np.rint(spots * 255), 0).astype(np.uint8)


def thumbnails(topics: np.ndarray, dice: np.random.Generator) -> list[bytes]:
    """A JPEG for each image: shapes in the colours of its topic."""
    colours = dice.integers(0, 256, (len(TOPICS), 4, 3)).tolist()
    return [_drawn(colours[topic], dice) for topic in topics.tolist()]


def _drawn(colours: list[list[int]], dice: np.random.Generator) -> bytes:
    """One picture of a ground, a ball and two bars."""
    picture = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), tuple(colours[0]))
    pen = ImageDraw.Draw(picture)
    for place, colour in enumerate(colours[1:]):
        left, top, width, height = dice.integers(8, _THUMBNAIL // 2, 4).tolist()
        shape = pen.ellipse if place == 0 else pen.rectangle
        shape((left, top, left + width, top + height), fill=tuple(colour))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()
