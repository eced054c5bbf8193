"""The pages of a gallery: which neurons pass all filters, in which order. Knows columns; asks SQL for texts.

Numbers are compared in memory: for 65,536 neurons a page takes about a millisecond, whatever the filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from explorer.errors import StoreError
from explorer.records import NeuronPage, Wanted
from explorer.store.classes import CLASSES
from explorer.store.columns import Columns

_WHOLE = Wanted()
_RANGES = ("fires", "peak", "precision", "monosemanticity")


def page(
    columns: Columns,
    wanted: Wanted,
    matching: Callable[[str], np.ndarray],
    listed: Callable[[str], Sequence[int]],
    own_names: Callable[[], Mapping[int, str]],
    offset: int,
    count: int,
) -> NeuronPage:
    """`count` neurons from place `offset` on.

    matching: the neurons that a text finds; listed: those on a list; own_names: people's names of neurons.
    Raises StoreError for an unknown class or neuron.
    """
    passing = _passing(columns, wanted)
    if wanted.text.strip():
        passing &= _marks(columns, matching(wanted.text))
    if wanted.listed:
        passing &= _marks(columns, listed(wanted.listed))
    if wanted.neurons is not None:
        passing &= _marks(columns, _there(columns, wanted.neurons))
    order = _order(columns, wanted, own_names)
    found = order[passing[order]]
    start = max(offset, 0)
    return NeuronPage(tuple(found[start : start + max(count, 0)].tolist()), len(found))


def _passing(columns: Columns, wanted: Wanted) -> np.ndarray:
    """Whether each neuron passes the filters on classes, label and numbers, [F] bool."""
    passing = np.ones(len(columns), dtype=bool)
    overview = columns.overview
    if wanted.classes:
        if unknown := [name for name in wanted.classes if name not in CLASSES]:
            raise StoreError(f"there is no class {unknown[0]!r} of neurons; use {', '.join(CLASSES)}")
        chosen = np.array([name in wanted.classes for name in CLASSES])
        passing &= chosen[columns.class_of]
    if wanted.label:
        passing &= overview.labels == wanted.label
    for name in _RANGES:
        low, high = getattr(wanted, name)
        if (low, high) != getattr(_WHOLE, name):
            values = getattr(overview, name)
            passing &= (values >= low) & (values <= high)
    return passing


def _there(columns: Columns, neurons: Iterable[int]) -> list[int]:
    """The neurons, if the store has them all."""
    found = list(neurons)
    if wrong := [neuron for neuron in found if not 0 <= neuron < len(columns)]:
        raise StoreError(f"there is no neuron {wrong[0]}; the store has neurons 0 to {len(columns) - 1}")
    return found


def _marks(columns: Columns, neurons: Sequence[int] | np.ndarray) -> np.ndarray:
    """True at these neurons, [F] bool; people's lists and notes may name neurons that are not there."""
    marks = np.zeros(len(columns), dtype=bool)
    places = np.asarray(neurons, dtype=np.int64)
    marks[places[(places >= 0) & (places < len(columns))]] = True
    return marks


def _order(columns: Columns, wanted: Wanted, own_names: Callable[[], Mapping[int, str]]) -> np.ndarray:
    """Neurons in the order asked for: all of them, or those that are given."""
    if wanted.sort == "given":
        if wanted.neurons is None:
            return columns.order("neuron", wanted.descending)
        given = np.fromiter(dict.fromkeys(wanted.neurons), dtype=np.int64)
        return given[::-1] if wanted.descending else given
    if wanted.sort == "label":
        return columns.order_by_name(own_names(), wanted.descending)
    return columns.order(wanted.sort, wanted.descending)
