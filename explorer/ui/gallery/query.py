"""What a visitor asks of the gallery: filters, order, page and view. Knows the records, draws nothing.

A query travels as JSON, in the filters' part of the page, and is checked whenever it comes back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import SORTS, Wanted

PER_PAGE = 24
MOST_GIVEN = 240
"""Neurons in a list that a search by picture or by likeness gives."""

LONGEST_TEXT = 80
CLASSES = ("always_on", "image_specific", "rare", "dead")
VIEWS = ("cards", "overview", "map")
COLOURS = ("", "class", "label", "entropy")
ORIGINS = ("", "picture", "patches", "similar")

Range = tuple[float | None, float | None]
OPEN: Range = (None, None)
"""A range that lets everything pass."""

LIMITS: dict[str, tuple[float, float]] = {
    "fires": (0.0, 1.0),
    "peak": (0.0, math.inf),
    "precision": (0.0, 1.0),
    "monosemanticity": (-1.0, 1.0),
}
"""The filters that are ranges, and the widest range of each."""


@dataclass(frozen=True)
class Query:
    """Everything that decides what the gallery shows. The default shows all neurons by number.

    text, classes, label, listed and the ranges: as in `Wanted`, with None for an open end; given: only these
    neurons; origin: where they come from, with `like` the neuron that they resemble; page: from 0;
    view: cards or a chart of the whole SAE; colour: what the charts are coloured by, "" for each one's own.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    label: str = ""
    fires: Range = OPEN
    peak: Range = OPEN
    precision: Range = OPEN
    monosemanticity: Range = OPEN
    listed: str = ""
    given: tuple[int, ...] | None = None
    origin: str = ""
    like: int | None = None
    sort: str = "neuron"
    descending: bool = False
    page: int = 0
    view: str = "cards"
    colour: str = ""

    @property
    def tint(self) -> str:
        """What the present chart is coloured by: what was chosen, or what says most in it."""
        return self.colour or ("entropy" if self.view == "overview" else "label")

    def wanted(self) -> Wanted:
        """The query as the store takes it."""
        ranges = {name: _closed(getattr(self, name), LIMITS[name]) for name in LIMITS}
        return Wanted(
            text=self.text,
            classes=self.classes,
            label=self.label,
            listed=self.listed,
            neurons=self.given,
            sort=self.sort,  # type: ignore[arg-type]
            descending=self.descending,
            **ranges,  # type: ignore[arg-type]
        )

    def active(self) -> tuple[str, ...]:
        """The names of the filters that are in use, in the order of the fields."""
        return tuple(name for name in FILTERS if getattr(self, name) != getattr(_NOTHING, name))

    def without(self, name: str) -> Query:
        """The query with one filter taken off, on its first page."""
        return replace(self, page=0, **off(name, self))


_NOTHING = Query()
FILTERS = (
    "given",
    "text",
    "classes",
    "label",
    "listed",
    "fires",
    "peak",
    "precision",
    "monosemanticity",
)


def off(name: str, query: Query) -> dict[str, Any]:
    """The changes that take one filter off; one that gave the order takes that along."""
    changes: dict[str, Any] = {name: getattr(_NOTHING, name)}
    if name == "given":
        changes |= {"origin": "", "like": None}
        if query.sort == "given":
            changes |= {"sort": "neuron", "descending": False}
    return changes


def cleared(query: Query) -> dict[str, Any]:
    """The changes that take all filters off and leave order and view."""
    changes: dict[str, Any] = {}
    for name in query.active():
        changes |= off(name, query)
    return changes


def dump(query: Query) -> str:
    """The query as JSON; what is as by default is left out."""
    return json.dumps(
        {name: value for name, value in asdict(query).items() if value != getattr(_NOTHING, name)}
    )


def parse(text: object, n_neurons: int, changes: Mapping[str, object] | None = None) -> Query:
    """The query in a browser's JSON, with changes on top, checked. Raises ExplorerError.

    Any change but one of page, view or colours turns to the first page.
    """
    try:
        entries: Any = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError as error:
        raise ExplorerError(f"the filters are not readable: {error}") from error
    if not isinstance(entries, dict):
        raise ExplorerError("the filters are not a list of names and values")
    changes = dict(changes or {})
    if set(changes) - {"page", "view", "colour"}:
        changes = {"page": 0, **changes}
    asked = {**entries, **changes}
    unknown = sorted(set(map(str, asked)) - {field.name for field in fields(Query)})
    if unknown:
        raise ExplorerError(f"there is no filter {unknown[0][:40]!r}")
    return Query(**{name: _checked(name, value, n_neurons) for name, value in asked.items()})


def _checked(name: str, value: object, n_neurons: int) -> Any:
    """One field, clean. Raises ExplorerError."""
    if name in LIMITS:
        return _range(name, value)
    if name in _WORDS:
        return checks.one_of(value, name, _WORDS[name])
    if name in ("text", "label", "listed"):
        return checks.text(value, f"the {name}", LONGEST_TEXT)
    if name == "classes":
        chosen = {checks.one_of(one, "class", CLASSES) for one in _entries(name, value, len(CLASSES))}
        return tuple(one for one in CLASSES if one in chosen)
    if name == "given":
        if value is None:
            return None
        return tuple(checks.whole(one, "neuron", n_neurons) for one in _entries(name, value, MOST_GIVEN))
    if name == "like":
        return None if value is None else checks.whole(value, "neuron", n_neurons)
    if name == "page":
        return checks.whole(value, "page", n_neurons + 1)
    if not isinstance(value, bool):
        raise ExplorerError(f"{name} is either true or false")
    return value


_WORDS = {"sort": SORTS, "view": VIEWS, "colour": COLOURS, "origin": ORIGINS}


def _entries(name: str, value: object, most: int) -> list[object]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise ExplorerError(f"{name} is not a list of at most {most}")
    return list(value)


def _range(name: str, value: object) -> Range:
    """A range with open ends as None; ends at the limits count as open."""
    low, high = LIMITS[name]
    ends = [None if end is None else checks.finite(end, f"the {name}") for end in _entries(name, value, 2)]
    if len(ends) != 2:
        raise ExplorerError(f"{name} needs a lower and an upper end")
    first = None if ends[0] is None or ends[0] <= low else ends[0]
    last = None if ends[1] is None or ends[1] >= high else ends[1]
    if first is not None and last is not None and first > last:
        raise ExplorerError(f"{name} from {first:g} to {last:g} lets nothing pass; swap the ends")
    return first, last


def _closed(ends: Range, limits: tuple[float, float]) -> tuple[float, float]:
    return (
        limits[0] if ends[0] is None else ends[0],
        limits[1] if ends[1] is None else ends[1],
    )
