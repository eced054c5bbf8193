"""The rows that a build hands to the writer, one class per table. FORMAT.md describes the columns.

Numbers are plain Python numbers (array.tolist() gives them): SQLite does not take numpy's. None and NaN
stand for "unknown" where a column may be NULL.
"""

from __future__ import annotations

from typing import NamedTuple

MEAN_PATCH = "mean_patch"
"""The name of the mean patch vector in the table `site`."""


class ImageRow(NamedTuple):
    """A picture that is an exemplar of some neuron; `image` is its number within the store."""

    image: int
    image_id: str
    origin: str
    grid_rows: int
    grid_cols: int
    thumbnail: bytes
    labels: tuple[str, ...]


class ExemplarRow(NamedTuple):
    """One place of one neuron; patch_map as `maps.pack` makes it."""

    neuron: int
    rank: int
    image: int
    score: float
    scale: float
    patch_map: bytes


class IntervalRow(NamedTuple):
    """An image of one half-octave of a neuron's score; interval 0 is the one of its peak."""

    neuron: int
    interval: int
    image: int
    score: float
    scale: float
    patch_map: bytes


class LabelRow(NamedTuple):
    """One label that a neuron could stand for; rank 0 is the best."""

    neuron: int
    rank: int
    kind: str
    label: str
    precision: float
    lift: float
    average_precision: float | None


class LabelImagesRow(NamedTuple):
    """How many indexed images show a label."""

    kind: str
    label: str
    images: int


class WordRow(NamedTuple):
    """One word that a neuron's direction raises; rank 0 is raised most."""

    neuron: int
    rank: int
    word: str
    gain: float


class PartnerRow(NamedTuple):
    """One neuron that fires where another does; rank 0 does so most."""

    neuron: int
    rank: int
    partner: int
    together: float
    cosine: float


class ConceptRow(NamedTuple):
    """One neuron that stands for a concept."""

    concept: str
    rank: int
    neuron: int
    score: float
    precision: float
    on_mean: float
    off_mean: float
    firing: float
    reach: float


class SkippedRow(NamedTuple):
    """A picture that could not be read, and why."""

    image_id: str
    origin: str
    reason: str
