"""How long a store of made-up neurons takes to answer a gallery: pages by random filters and sorts.

Knows the store as a page does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.records import FAVOURITES, SORTS, Wanted
from explorer.store import Store
from explorer.store.classes import CLASSES
from explorer.store.imagined import TOPICS
from explorer.store.synthetic import synthetic_store

_PAGE = 24
_TEXTS = ("old", "red castle", "c", "wooden la", "person", "nowhere")


class Times(NamedTuple):
    """Seconds: the median, the 95th of a hundred, and the longest."""

    median: float
    p95: float
    longest: float


class Pages(NamedTuple):
    """Bytes of the store, seconds for making it and for reading all neurons once; times of the pages when
    they are asked for first, and of the same pages again."""

    bytes: int
    making: float
    reading: float
    first: Times
    again: Times


def run(neurons: int, images: int, pages: int, folder: Path | None = None) -> Pages:
    """Make a store, in a new folder or a temporary one, and ask it for pages. Raises StoreError."""
    if folder is not None and folder.exists():
        raise StoreError(f"{folder} is there already; name a new folder for the made-up store")
    with tempfile.TemporaryDirectory(prefix="bench-gallery-") as place:
        where = folder or Path(place) / "store"
        making = _timed(lambda: synthetic_store(where, neurons, images))
        weight = sum(path.stat().st_size for path in where.iterdir())
        store = Store.open(where)
        store.set_note(0, "a name of its own")
        store.add_to_list(FAVOURITES, neurons - 1)
        reading = _timed(store.overview)
        asked = list(wishes(neurons, pages))
        first, again = (_times(store, asked) for _ in range(2))
        store.close()
    return Pages(weight, making, reading, first, again)


def wishes(neurons: int, count: int, seed: int = 0) -> Sequence[Wanted]:
    """Random filters and sorts, most of them a few at once."""
    dice = np.random.default_rng(seed)
    return [_wish(neurons, dice) for _ in range(count)]


def _wish(neurons: int, dice: np.random.Generator) -> Wanted:
    chosen = dice.random(8) < 0.3
    ranges = np.sort(dice.random((4, 2)), axis=1) * [[0.1], [10.0], [1.0], [1.0]]
    names = ("fires", "peak", "precision", "monosemanticity")
    return Wanted(
        text=str(dice.choice(_TEXTS)) if chosen[0] else "",
        classes=tuple(dice.choice(CLASSES, 2, replace=False).tolist()) if chosen[1] else (),
        label=TOPICS[int(dice.integers(len(TOPICS)))] if chosen[2] and dice.random() < 0.5 else "",
        listed=FAVOURITES if chosen[3] and dice.random() < 0.3 else "",
        neurons=tuple(dice.integers(0, neurons, 200).tolist()) if dice.random() < 0.1 else None,
        sort=SORTS[int(dice.integers(len(SORTS)))],
        descending=bool(dice.random() < 0.5),
        **{
            name: tuple(bounds.tolist())
            for name, bounds, on in zip(names, ranges, chosen[4:], strict=True)
            if on
        },
    )


def _times(store: Store, asked: Sequence[Wanted]) -> Times:
    """How long pages take, the first of each, or one further down."""
    seconds = [
        _timed(lambda w=wanted, i=i: store.browse(w, i % 5 * _PAGE, _PAGE)) for i, wanted in enumerate(asked)
    ]
    return Times(*np.quantile(seconds, [0.5, 0.95, 1.0]).tolist())


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
