"""What a gallery filters and sorts by, all neurons at once: read from the store when first needed, then kept.

65,536 neurons take some 20 MB. Numpy, and the tables `neurons` and `positions`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.records import Overview
from explorer.store.classes import CLASSES
from explorer.store.database import Database

_NUMBERS = (
    "fires",
    "in_top",
    "mean",
    "peak",
    "active_mean",
    "entropy",
    "precision",
    "monosemanticity",
    "average_precision",
)


class Labels(NamedTuple):
    """The labels of neurons as numbers: names, in plain words, folded and in alphabetical order, "" first;
    of [F] int64: which one each neuron has."""

    names: list[str]
    of: np.ndarray


class Columns:
    """The columns of one store's neurons. Methods may be called from any thread.

    overview; average_precision [F] float64, NaN where unknown; labels; class_of [F] int64: place in CLASSES.
    """

    def __init__(self, database: Database, n_neurons: int) -> None:
        """Read all neurons. Raises StoreError when the store has not as many as it says."""
        rows = database.ask(f"SELECT class, label, {', '.join(_NUMBERS)} FROM neurons ORDER BY neuron")
        if len(rows) != n_neurons:
            raise StoreError(
                f"the store has {len(rows)} neurons instead of {n_neurons}; "
                "check it with: python -m index verify STORE"
            )
        classes, labels, *numbers = zip(*rows, strict=True)
        values = {
            name: np.array(column, dtype=np.float64) for name, column in zip(_NUMBERS, numbers, strict=True)
        }
        self.average_precision = values.pop("average_precision")
        x, y = _places(database, n_neurons)
        self.overview = Overview(**values, classes=_texts(classes), labels=_texts(labels), x=x, y=y)
        for array in (*self.overview, self.average_precision):
            array.flags.writeable = False
        self.labels = _folded(labels)
        self.class_of = np.array([CLASSES.index(name) for name in classes], dtype=np.int64)
        self._orders: dict[tuple[str, bool], np.ndarray] = {}
        self._named: dict[bool, tuple[dict[int, str], np.ndarray]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.overview.fires)

    def order(self, name: str, descending: bool) -> np.ndarray:
        """All neurons by a column of numbers, of equal ones the lower neuron first, unknown ones last."""
        with self._lock:
            known = self._orders.get((name, descending))
            if known is None:
                known = by_value(self._values(name), descending)
                self._orders[name, descending] = known
            return known

    def order_by_name(self, own: Mapping[int, str], descending: bool) -> np.ndarray:
        """All neurons by people's own name, else by label, those without either last.

        The last order is kept, since names rarely change between two pages.
        """
        with self._lock:
            known = self._named.get(descending)
            if known is None or known[0] != own:
                known = (dict(own), by_value(self._name_values(own), descending))
                self._named[descending] = known
            return known[1]

    def _name_values(self, own: Mapping[int, str]) -> np.ndarray:
        """For each neuron the place of its name among all names, NaN where it has none."""
        names, place = self.labels
        called = {neuron: plain_name(name) for neuron, name in own.items() if 0 <= neuron < len(self)}
        if called:
            number = {name: at for at, name in enumerate(sorted({*names, *called.values()}))}
            place = np.array([number[name] for name in names], dtype=np.int64)[place]
            place[list(called)] = [number[name] for name in called.values()]
        return np.where(place == 0, np.nan, place)  # the first name is the empty one

    def _values(self, name: str) -> np.ndarray:
        if name == "neuron":
            return np.arange(len(self), dtype=np.float64)
        return self.average_precision if name == "average_precision" else getattr(self.overview, name)


def by_value(values: np.ndarray, descending: bool) -> np.ndarray:
    """The places of values [n] in order, of equal ones the lower place first, NaN last."""
    return np.argsort(-values if descending else values, kind="stable")


def _texts(column: tuple[str, ...]) -> np.ndarray:
    """Texts [F] as an array of objects, equal ones one object."""
    texts = np.empty(len(column), dtype=object)
    texts[:] = [sys.intern(text) for text in column]
    return texts


def _folded(labels: tuple[str, ...]) -> Labels:
    """Number the labels by the order in which people look for them."""
    fold = {label: plain_name(label) for label in set(labels)}
    names = sorted({"", *fold.values()})
    number = {name: place for place, name in enumerate(names)}
    return Labels(names, np.array([number[fold[label]] for label in labels], dtype=np.int64))


def plain_name(label: str) -> str:
    """A label as it is sorted: in plain words, without regard to case."""
    return label.replace("_", " ").casefold()


def _places(database: Database, n_neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """The neurons' places on the map, [F] and [F], NaN for those that have none."""
    places = np.full((2, n_neurons), np.nan)
    for neuron, x, y in database.each("SELECT neuron, x, y FROM positions"):
        places[:, neuron] = x, y
    return places[0], places[1]
