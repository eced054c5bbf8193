"""The frozen records that all layers share. Knows numpy and nothing else of the project."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from numbers import Real
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from explorer.errors import EditError, StoreError

Mode = Literal["set", "add", "scale"]
Sort = Literal[
    "neuron",
    "fires",
    "in_top",
    "peak",
    "mean",
    "precision",
    "average_precision",
    "monosemanticity",
    "entropy",
    "label",
    "given",
]
SORTS: tuple[Sort, ...] = get_args(Sort)
"""What the neurons of a gallery may be ordered by."""
FAVOURITES = "favourites"
"""The name of the list behind the star."""
Range = tuple[float, float]


class Cell(NamedTuple):
    """The place of one patch in a grid."""

    row: int
    col: int


class Box(NamedTuple):
    """A rectangle in natural pixels of the upright picture: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float


class Activation(NamedTuple):
    """A neuron and its value, at one patch or pooled over an image."""

    neuron: int
    value: float


@dataclass(frozen=True)
class Grid:
    """The patch grid of one picture and the part of the picture that it covers.

    rows, cols: number of patches; width, height: natural size of the upright picture in pixels;
    covered: the pixel box that the grid spans (a centre crop leaves margins unseen).
    """

    rows: int
    cols: int
    width: int
    height: int
    covered: Box

    def patch_at(self, x: float, y: float) -> Cell | None:
        """The patch under natural pixel (x, y), or None in a margin that the model does not see."""
        box = self.covered
        if not (box.left <= x < box.right and box.top <= y < box.bottom):
            return None
        row = int((y - box.top) / (box.bottom - box.top) * self.rows)
        col = int((x - box.left) / (box.right - box.left) * self.cols)
        return Cell(min(row, self.rows - 1), min(col, self.cols - 1))

    def box_of(self, row: int, col: int) -> Box:
        """The pixel box of one patch. Raises IndexError outside the grid."""
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise IndexError(f"patch ({row}, {col}) is outside the {self.rows} x {self.cols} grid")
        box = self.covered
        w, h = (box.right - box.left) / self.cols, (box.bottom - box.top) / self.rows
        left, top = box.left + col * w, box.top + row * h
        return Box(left, top, left + w, top + h)


@dataclass(frozen=True, eq=False)
class Edit:
    """What a person asks of one neuron.

    neuron: index of the SAE's neuron.
    value: alpha for "set" (the paper's weight), the summand for "add", the factor for "scale".
    mode: "set" z to value, "add" value to z, or "scale" z by value. Values below zero are allowed.
    patches: None for all patches, "active" for the patches where the neuron fires, or a
        (rows, cols) boolean mask.
    Raises EditError for an unknown mode, a value that is not finite, or a mask of another kind.
    """

    neuron: int
    value: float
    mode: Mode = "set"
    patches: np.ndarray | Literal["active"] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("set", "add", "scale"):
            raise EditError(f"unknown edit mode {self.mode!r}; use 'set', 'add' or 'scale'")
        if not _is_number(self.neuron) or self.neuron % 1 or self.neuron < 0:
            raise EditError(f"neuron {self.neuron!r} is not a neuron number (0, 1, 2, ...)")
        if not _is_number(self.value):
            raise EditError(f"neuron {self.neuron}: the value {self.value!r} is not a finite number")
        if isinstance(self.patches, str):
            if self.patches != "active":
                raise EditError(f"unknown patches {self.patches!r}; use None, 'active' or a boolean mask")
        elif self.patches is not None:
            mask = np.asarray(self.patches)
            if mask.dtype != np.bool_ or mask.ndim != 2:
                raise EditError(
                    f"neuron {self.neuron}: patches must be a (rows, cols) boolean mask, "
                    f"not {mask.dtype} of shape {mask.shape}"
                )
            object.__setattr__(self, "patches", mask)


def _is_number(value: object) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@dataclass(frozen=True, eq=False)
class Exemplar:
    """One of the images that activate a neuron most.

    rank: 0 is the strongest; score: pooled activation; image_id: the source's stable id;
    origin: where the image came from (a path, or scene:<family>:<seed>);
    thumbnail: encoded picture bytes (WebP or JPEG);
    patch_map: (rows, cols) float32 activations; labels: what the source says the image shows.
    """

    neuron: int
    rank: int
    score: float
    image_id: str
    origin: str
    thumbnail: bytes
    patch_map: np.ndarray
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class IntervalExemplar(Exemplar):
    """An image from further down, since the strongest alone flatter a neuron.

    rank: its place among these, 0 is the strongest; interval: how many half-octaves of the score below
    that of the peak it lies; low, high: the scores that this interval spans, [low, high).
    """

    interval: int = 0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class NeuronSummary:
    """What the store knows of one neuron.

    fires: share of indexed images where it is active; in_top: share of images where it is in
    the image-level top-20; mean, peak: image score over the images where it fires, and its maximum;
    label: the name it stands for best ("" when the source has none for it);
    precision: share of its exemplars that show the label;
    kind: what the label is: concept, category, class or word ("" without a label);
    patch_fires: share of all patches where it is active; variance: of the image score over the images
    where it fires; active_mean, active_variance, active_peak: of its activation over the patches where
    it is active; lift: precision against the share of all images that show the label;
    average_precision: of its image score as a detector of the label, None when unknown;
    monosemanticity: how alike the images are that activate it (-1..1), None when unknown, from
    monosemanticity_images images;
    neuron_class: always_on, image_specific, rare or dead; "" lets the store decide;
    entropy: of the labels of its exemplars, weighted by activation, in nats (PatchSAE): 0 when all show one
    and the same label; None when unknown.
    """

    neuron: int
    fires: float
    in_top: float
    mean: float
    peak: float
    label: str = ""
    precision: float = 0.0
    kind: str = ""
    patch_fires: float = 0.0
    variance: float = 0.0
    active_mean: float = 0.0
    active_variance: float = 0.0
    active_peak: float = 0.0
    lift: float = 0.0
    average_precision: float | None = None
    monosemanticity: float | None = None
    monosemanticity_images: int = 0
    neuron_class: str = ""
    entropy: float | None = None


class Histogram(NamedTuple):
    """How often values fell between edges: counts [n] int64, edges [n + 1] float64 ascending.

    The first bin also counts what lies below it, the last what lies above.
    """

    edges: np.ndarray
    counts: np.ndarray


class LabelEvidence(NamedTuple):
    """One label that a neuron could stand for.

    precision: share of its exemplars that show it; lift: precision against the share of all images that
    show it; average_precision: of the image score as a detector, None when unknown; images: how many
    indexed images show it.
    """

    kind: str
    label: str
    precision: float
    lift: float
    average_precision: float | None
    images: int


class Word(NamedTuple):
    """A word that the LVLM says more easily once a neuron is turned up; gain: by how much, in nats."""

    word: str
    gain: float


class Partner(NamedTuple):
    """A neuron that fires on the same patches.

    together: share of the patches where the first neuron fires on which the partner fires too;
    cosine: of the two neurons' firing over the sampled patches (0..1).
    """

    neuron: int
    together: float
    cosine: float


class Note(NamedTuple):
    """What people wrote about a neuron. changed: ISO 8601, UTC, of the last change."""

    neuron: int
    name: str
    note: str
    changed: str


class TextMatch(NamedTuple):
    """A neuron found by text. name: people's own name, else its label; own: people's words matched;
    score: higher is better, comparable among matches of one kind."""

    neuron: int
    name: str
    own: bool
    score: float


class Found(NamedTuple):
    """A neuron that stands for a concept. score ranks (higher is better, comparable within a concept)."""

    neuron: int
    concept: str
    score: float
    precision: float


@dataclass(frozen=True)
class Wanted:
    """Which neurons a gallery shows, and in which order. Every filter must let a neuron pass.

    text: all its words occur in the neuron's name, labels and words, or in people's name and note, as in
    `Store.search`; classes: any of these, all when empty; label: exactly this one; fires, peak, precision,
    monosemanticity: from a lowest to a highest value, both included; a neuron whose monosemanticity is
    unknown passes only the full range; listed: in people's list of this name; neurons: only these.
    sort: "given" keeps the order of `neurons`, "label" goes by people's own names where there are some; of
    equal ones the lower neuron goes first; unknown values and neurons without a name go last either way.
    Raises StoreError for an unknown sort and for ranges that are none.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    label: str = ""
    fires: Range = (0.0, 1.0)
    peak: Range = (0.0, math.inf)
    precision: Range = (0.0, 1.0)
    monosemanticity: Range = (-1.0, 1.0)
    listed: str = ""
    neurons: tuple[int, ...] | None = None
    sort: Sort = "neuron"
    descending: bool = False

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise StoreError(f"neurons cannot be sorted by {self.sort!r}; use {', '.join(SORTS)}")
        for name in ("fires", "peak", "precision", "monosemanticity"):
            bounds = getattr(self, name)
            if (
                not isinstance(bounds, tuple)
                or len(bounds) != 2
                or not all(_is_bound(bound) for bound in bounds)
                or bounds[0] > bounds[1]
            ):
                raise StoreError(f"{name} {bounds!r} is no range; give a lowest and a highest value")


def _is_bound(value: object) -> bool:
    """Whether it is a number; infinity is one, NaN is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


class NeuronPage(NamedTuple):
    """Some neurons of a gallery, in its order, and how many it has in all."""

    neurons: tuple[int, ...]
    total: int


class Overview(NamedTuple):
    """All neurons at once, for charts: one entry per neuron in every array, in the order of the neurons.

    The float64 arrays hold the fields of NeuronSummary by these names, NaN where they are unknown; classes,
    labels: Python strings; x, y: the neuron's place on a map where neurons whose decoder directions are
    near lie near each other, NaN for a direction of length 0.
    """

    fires: np.ndarray
    in_top: np.ndarray
    mean: np.ndarray
    peak: np.ndarray
    active_mean: np.ndarray
    entropy: np.ndarray
    precision: np.ndarray
    monosemanticity: np.ndarray
    classes: np.ndarray
    labels: np.ndarray
    x: np.ndarray
    y: np.ndarray


class NeuronList(NamedTuple):
    """A list of neurons that people keep under a name, in the order in which they were added."""

    name: str
    neurons: tuple[int, ...]


class Cancel(Protocol):
    """Anything that says whether to stop, such as a threading.Event."""

    def is_set(self) -> bool:
        """True once the work should stop."""
        ...
