"""A neuron's own page: opening it, what it shows, its picture enlarged. One method per action.

Keeps nothing of a visitor: which neuron is open is in the visitor's own state, as a whole number or None.
The pictures of neurons that were opened lately are kept, as they are the same for everybody.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.records import Histogram
from explorer.ui.exemplars import Strips
from explorer.ui.heat import data_uri, lay_over
from explorer.ui.hub import Rules
from explorer.ui.marks import percent
from explorer.ui.neuron import desk, numbers, sheet
from explorer.ui.neuron.keeping import kept, names_of
from explorer.ui.neuron.lens import enlarged
from explorer.ui.notices import trouble
from explorer.ui.plain import plainly, safe
from explorer.ui.sent import sent
from explorer.ui.visit import Focus, Visit
from explorer.ui.workspace.looking import Looking, Shown

NEAR = 8
"""Neurons beside this one in each list."""

LONGEST_NUMBER = 12
"""Digits of a neuron's number in a link."""

NEAR_STRIP = 3
_KEPT_PICTURES = 256
TILE = 96


class Page(NamedTuple):
    """What is shown of an open neuron, in the order of the page's outputs (`layout.wire`)."""

    neuron: int | None
    head: str
    sheet: str
    here: str
    keeping: str
    numbers: str


class Pages:
    """The actions on the pages of one session's neurons."""

    def __init__(self, looking: Looking, rules: Rules) -> None:
        self.session, self.rules = looking.session, rules
        self._looking = looking
        self._strips: Strips = looking.strips
        self._pictures = lru_cache(maxsize=_KEPT_PICTURES)(self._draw_pictures)

    # Opening and leaving

    @plainly
    def open(self, visit: Visit | None, event: gr.EventData) -> Page:
        """The page of the neuron that a button names."""
        return self.draw(self._neuron(sent(event, "neuron")), visit)

    @plainly
    def linked(self, visit: Visit | None, request: gr.Request) -> tuple:
        """The page of the neuron in the link, `?neuron=65`; nothing changes without one.

        A number that does not exist gives a message, and the gallery.
        """
        asked = request.query_params.get("neuron")
        gallery = gr.Tabs(selected="gallery")
        if asked is None:
            return (*[gr.skip()] * len(Page._fields), gr.skip())
        try:
            neuron = self._neuron(int(asked) if asked.isdecimal() and len(asked) < LONGEST_NUMBER else asked)
        except ExplorerError as error:
            gr.Warning(f"The link leads nowhere: {safe(error)}.", title="No such neuron")
            return (*self.leave(), gallery)
        return (*self.draw(neuron, visit), gallery)

    def leave(self) -> Page:
        """Back to the list, which stands as it stood."""
        return Page(None, "", "", "", "", "")

    def draw(self, neuron: int, visit: Visit | None) -> Page:
        """The whole page of a neuron."""
        writable = not self.rules.read_only
        if self.session.store is None:
            head = desk.head(neuron, self.session.sae.n_neurons, None, desk.NOTHING_KEPT, False)
            shown, mine, figures = sheet.nothing(trouble(self.session, self.rules)), "", ""
        else:
            held, summary = kept(self.session, neuron), self.session.summary(neuron)
            head = desk.head(neuron, self.session.sae.n_neurons, summary, held, writable)
            shown, mine = self._sheet(neuron), desk.keeping(neuron, held, writable)
            figures = self._numbers(neuron, visit)
        here = desk.here(self._here(neuron, visit))
        return Page(neuron, head, shown, here, mine, figures)

    # What depends on the visitor's picture

    @plainly
    def look_again(self, visit: Visit | None, neuron: int | None) -> tuple[object, object]:
        """Another picture is open: what the neuron does there, and where that lies in its histograms."""
        if neuron is None:
            return gr.skip(), gr.skip()
        figures = "" if self.session.store is None else self._numbers(neuron, visit)
        return desk.here(self._here(neuron, visit)), figures

    @plainly
    def attempt(self, visit: Visit | None, focus: Focus | None, event: gr.EventData) -> Shown:
        """Its heat on the visitor's picture, in the workspace."""
        neuron = self._neuron(sent(event, "neuron"))
        return self._looking.show(visit, replace(focus or Focus(), neuron=neuron))

    @plainly
    def show_cards(self, visit: Visit | None, focus: Focus | None) -> tuple:
        """The workspace's cards again, since names may have changed."""
        if visit is None or focus is None:
            return (gr.skip(),) * len(Shown._fields)
        return self._looking.show(visit, focus)

    # The exemplars

    @plainly
    def enlarge(self, neuron: int | None, event: gr.EventData) -> str:
        """One exemplar for the dialog, as JSON."""
        if neuron is None:
            raise ExplorerError("no neuron is open; choose one in the gallery")
        kind = checks.one_of(sent(event, "kind"), "the kind of exemplar", ("strong", "weaker"))
        strong = self.session.exemplars(neuron)
        shown: Sequence = strong if kind == "strong" else self.session.interval_exemplars(neuron)
        if not shown:
            raise ExplorerError(f"neuron {neuron} has no such exemplars")
        rank = checks.whole(sent(event, "rank"), "exemplar", len(shown))
        return enlarged(self.session, shown[rank], len(shown), sheet.loudest(strong or shown))

    # Parts

    def _neuron(self, value: object) -> int:
        return checks.whole(value, "neuron", self.session.sae.n_neurons)

    def _sheet(self, neuron: int) -> str:
        session = self.session
        partners, similar = session.partners(neuron), session.similar(neuron, NEAR)
        together = {one.neuron: f"on {percent(one.together)} of its patches" for one in partners[:NEAR]}
        alike = {one.neuron: f"cosine {numbers.short(one.value)}" for one in similar}
        names = names_of(self.session, [*together, *alike])
        body = (
            self._pictures(neuron)
            + sheet.pair(
                sheet.labels(session.labels(neuron), session.summary(neuron).label),
                sheet.words(session.words(neuron)),
            )
            + sheet.others(
                "Fires together with",
                "Neurons that fire on the same patches, closest first.",
                "No other neuron fires on the same patches.",
                self._near(together, names),
            )
            + sheet.others(
                "Similar neurons",
                "Neurons whose directions are closest to its own.",
                "No neuron has a similar direction.",
                self._near(alike, names),
                sheet.all_similar(neuron),
            )
        )
        return f'<div class="sheets">{body}</div>'

    def _draw_pictures(self, neuron: int) -> str:
        strong, weaker = self.session.exemplars(neuron), self.session.interval_exemplars(neuron)
        peak = sheet.loudest(strong or weaker)
        return sheet.exemplars(strong, peak) + sheet.intervals(weaker, peak)

    def _near(self, found: dict[int, str], names: dict[int, str]) -> list[sheet.Near]:
        return [
            sheet.Near(neuron, names[neuron], self._strips.strip(neuron, NEAR_STRIP), words)
            for neuron, words in found.items()
        ]

    def _here(self, neuron: int, visit: Visit | None) -> desk.Here | None:
        if visit is None:
            return None
        values = visit.view.map(neuron)
        row, col = divmod(int(values.argmax()), values.shape[1])
        below = None
        if self.session.store is not None and values.max() > 0:
            histogram = self.session.histogram(neuron)
            below = numbers.share_below(histogram, self._score(values)) if histogram.counts.any() else None
        tile = _tile(visit, values)
        return desk.Here(visit.title, tile, float(values.max()), row, col, self._score(values), below)

    def _score(self, values: np.ndarray) -> float:
        """The score of a picture, pooled as the store pools."""
        pooled = self.session.store is not None and self.session.store.manifest.score == "max"
        return float(values.max() if pooled else values.mean())

    def _numbers(self, neuron: int, visit: Visit | None) -> str:
        summary, store = self.session.summary(neuron), self.session.store
        baseline = None if store is None else store.manifest.monosemanticity_baseline
        values = None if visit is None else visit.view.map(neuron)
        score = 0.0 if values is None else self._score(values)
        active = 0.0 if values is None else float(values.max())
        return (
            "<section><header><h2>Numbers</h2></header>"
            + numbers.statistics(numbers.groups(summary, baseline))
            + _chart(self.session.histogram(neuron), "Scores", "pictures", summary.peak, score)
            + _chart(
                self.session.histogram(neuron, "active"),
                "Activations",
                "patches",
                summary.active_peak,
                active,
            )
            + "</section>"
        )


def _chart(histogram: Histogram, title: str, unit: str, peak: float, yours: float) -> str:
    caption = f"The {unit} that it fires {'in' if unit == 'pictures' else 'on'}, weak to strong."
    marks = [numbers.Mark(peak, "peak", "peak"), numbers.Mark(yours, "yours", "yours")]
    return numbers.chart(histogram, title, unit, caption, marks)


def _tile(visit: Visit, values: np.ndarray) -> str:
    """The part of the visitor's picture that the patches cover, small, with the heat over it."""
    part = visit.view.image.crop(tuple(round(edge) for edge in visit.view.grid.covered))
    small = lay_over(part.resize((TILE, TILE), Image.Resampling.BILINEAR, reducing_gap=2.0), values)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80, method=2)
    return data_uri(stream.getvalue())
