"""What a store holds, in figures. Knows the store's reader only."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from explorer.records import NeuronSummary
from explorer.store import Store
from explorer.store.classes import ALWAYS_SHARE, RARE_SHARE, count
from explorer.store.sizes import TableSize, table_sizes

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
SHOWN = 10


class Named(NamedTuple):
    """Something and how many there are of it."""

    name: str
    number: int


class Stats(NamedTuple):
    """Figures of a store.

    manifest: its fields; tables; classes: neurons by class, for the shares asked for; live: how many neurons
    fire; fires: quantiles of the share of images on which these fire, by the quantile; named: neurons with a
    label, by its kind; labels: those that most neurons have; monosemanticity: quantiles; skipped: the
    commonest reasons; always_on: neurons of that class, the one with the strongest mean score first.
    """

    manifest: dict[str, Any]
    tables: list[TableSize]
    classes: dict[str, int]
    live: int
    fires: dict[str, float]
    named: dict[str, int]
    labels: list[Named]
    monosemanticity: dict[str, float]
    skipped: list[Named]
    always_on: list[NeuronSummary]


def stats(folder: Path, always_share: float = ALWAYS_SHARE, rare_share: float = RARE_SHARE) -> Stats:
    """Read all of a store's summaries. Raises StoreError when it cannot be read."""
    store = Store.open(folder)
    summaries = list(store.summaries(range(store.manifest.n_neurons)).values())
    live = [one for one in summaries if one.fires > 0]
    named = [one for one in live if one.label]
    known = [one.monosemanticity for one in live if one.monosemanticity is not None]
    always = [one for one in live if one.in_top >= always_share]
    always.sort(key=lambda one: (-one.mean, one.neuron))
    reasons = Counter(_kind_of(row.reason, row.image_id) for row in store.skipped())
    return Stats(
        manifest=asdict(store.manifest),
        tables=table_sizes(store.folder),
        classes=count(store.classes(always_share, rare_share))._asdict(),
        live=len(live),
        fires=_quantiles([one.fires for one in live]),
        named=dict(Counter(one.kind for one in named).most_common()),
        labels=[Named(*pair) for pair in Counter(one.label for one in named).most_common(SHOWN)],
        monosemanticity=_quantiles(known),
        skipped=[Named(*pair) for pair in reasons.most_common(SHOWN)],
        always_on=always[:SHOWN],
    )


def _quantiles(values: list[float]) -> dict[str, float]:
    """Quantiles by their name; none of nothing."""
    if not values:
        return {}
    return {str(q): float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _kind_of(reason: str, image_id: str) -> str:
    """A reason without the picture's own name and numbers, so that alike ones are counted together."""
    name = image_id.rpartition("/")[2]
    return reason.replace(f"'{name}'", "the file").replace(name, "the file")
