"""How long a page of the gallery takes at the server, on a made-up store of 65,536 neurons; one command.

    python -m explorer.ui.gallery.latency

Random pages, filters, orders and texts go through the handler that the page itself calls, drawing included.
Most neurons come up for the first time, so their exemplars are read and drawn, not remembered. No model runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np

from explorer.session import Session
from explorer.session.stored import Stored
from explorer.store import Store
from explorer.store.synthetic import synthetic_store
from explorer.ui.exemplars import Strips
from explorer.ui.gallery.browsing import Browsing
from explorer.ui.gallery.head import SORT_WORDS
from explorer.ui.gallery.query import COLOURS, FILTERS, LIMITS, MOST_GIVEN, Query, dump
from explorer.ui.timing import Timing, report

NEURONS = 65_536
ROUNDS = 200
AIM = 300.0
WARM = 20
"""Rounds that are not counted."""

CHARTS = 20


class Shelved(Stored):
    """A session that has a store and no model."""

    def __init__(self, store: Store) -> None:
        self.store = store


class Asked(NamedTuple):
    """What a measured request took and how many characters of HTML it answered with."""

    milliseconds: float
    characters: int


class Visitor:
    """Somebody who browses at random, the same way for the same seed."""

    def __init__(self, browsing: Browsing, seed: int = 0) -> None:
        self.browsing, self.dice = browsing, random.Random(seed)
        self.labels = [label for label, _ in browsing.session.label_counts()]
        self.total = browsing.n_neurons

    def turned(self) -> Query:
        """Any page of all neurons, in any order."""
        sort = self.dice.choice([name for name in SORT_WORDS if name != "given"])
        pages = max(self.total // 24, 1)
        return Query(sort=sort, descending=self.dice.random() < 0.5, page=self.dice.randrange(pages))

    def filtered(self) -> Query:
        """One to three filters, any of the first pages of what they leave."""
        names = [name for name in FILTERS if name not in ("given", "text", "listed")]
        wanted = {name: self._filter(name) for name in self.dice.sample(names, self.dice.randint(1, 3))}
        sort = self.dice.choice([name for name in SORT_WORDS if name != "given"])
        return Query(**wanted, sort=sort, descending=True, page=self.dice.randrange(8))  # type: ignore[arg-type]

    def searched(self) -> Query:
        """A word of a label, or the beginning of one."""
        word = self.dice.choice(self.labels).replace("_", " ") if self.labels else "cake"
        return Query(text=word[: self.dice.randint(3, len(word))], page=self.dice.randrange(4))

    def given(self) -> Query:
        """A list, as a search by likeness gives."""
        chosen = tuple(self.dice.sample(range(self.total), min(MOST_GIVEN, self.total)))
        return Query(given=chosen, origin="picture", sort="given", page=self.dice.randrange(10))

    def charted(self) -> Query:
        """A chart of all neurons with some filter."""
        view, colour = self.dice.choice(("overview", "map")), self.dice.choice(COLOURS)
        return Query(fires=self._filter("fires"), view=view, colour=colour)  # type: ignore[arg-type]

    def _filter(self, name: str) -> object:
        if name == "classes":
            return (self.dice.choice(("always_on", "image_specific", "rare")),)
        if name == "label":
            return self.dice.choice(self.labels) if self.labels else ""
        values = getattr(self.browsing.session.overview(), name)
        known = values[np.isfinite(values)]
        low = float(np.quantile(known, self.dice.uniform(0, 0.7)))
        return (low if low > LIMITS[name][0] else None, None)

    def ask(self, query: Query) -> Asked:
        """Ask as a browser does."""
        event = SimpleNamespace(_data={"page": query.page})
        started = time.perf_counter()
        shown = self.browsing.alter(dump(query), event)
        answer = json.dumps([shown.filters, shown.head, shown.tiles, shown.caption])
        if query.view != "cards":
            answer += shown.chart.to_json()
        return Asked(1000 * (time.perf_counter() - started), len(answer))


def measure(rounds: int = ROUNDS, neurons: int = NEURONS, folder: Path | None = None) -> list[Timing]:
    """Milliseconds of `rounds` requests of each kind. folder: a store to use, None to make one up."""
    return [timing for timing, _ in measured(rounds, neurons, folder)]


def measured(rounds: int, neurons: int, folder: Path | None) -> list[tuple[Timing, Sequence[int]]]:
    """As `measure`, with the characters of each answer."""
    with tempfile.TemporaryDirectory() as scratch:
        made = folder or synthetic_store(Path(scratch) / "store", neurons)
        store = Store.open(made)
        try:
            return _all_kinds(store, rounds)
        finally:
            store.close()


def _all_kinds(store: Store, rounds: int) -> list[tuple[Timing, Sequence[int]]]:
    session = cast(Session, Shelved(store))
    visitor = Visitor(Browsing(session, Strips(session)))
    kinds: list[tuple[str, Callable[[], Query], int, float | None]] = [
        ("any page of all neurons, any order", visitor.turned, rounds, AIM),
        ("one to three filters, any order", visitor.filtered, rounds, AIM),
        ("text search", visitor.searched, rounds, AIM),
        ("a list by likeness", visitor.given, rounds, AIM),
        ("a chart of all neurons, filtered", visitor.charted, min(CHARTS, rounds), None),
    ]
    for _ in range(WARM):
        visitor.ask(visitor.turned())
    found = []
    for name, draw, times, aim in kinds:
        asked = [visitor.ask(draw()) for _ in range(times)]
        title = f"gallery, {store.manifest.n_neurons:,} neurons: {name}"
        timing = Timing(title, tuple(one.milliseconds for one in asked), aim)
        found.append((timing, [one.characters for one in asked]))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time pages of the gallery on a made-up store.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"requests of a kind (default: {ROUNDS})")
    parser.add_argument("--neurons", type=int, default=NEURONS, help=f"default: {NEURONS}")
    parser.add_argument("--store", type=Path, help="measure on this store instead of a made-up one")
    args = parser.parse_args(argv)
    found = measured(args.rounds, args.neurons, args.store)
    print(report([timing for timing, _ in found]))
    for timing, sizes in found:
        middle, most = np.median(sizes) / 1024, max(sizes) / 1024
        print(f"{timing.name}: answer of {middle:,.0f} KiB at the median, {most:,.0f} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
