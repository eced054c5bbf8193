"""Neurons as people see them: names, and strips of small exemplars with their heat over them.

`Strips` asks the session and keeps the strips that were drawn lately. Knows nothing of visitors.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Literal

import numpy as np
from PIL import Image

from explorer.records import Exemplar, Histogram, NeuronSummary
from explorer.session import Session
from explorer.ui.heat import COLOURS, data_uri, levels
from explorer.ui.marks import name_of

STRIP = 6
"""Exemplars on a card; the chosen neuron's card shows all that the store has."""

ALL = 64
"""More exemplars than a store keeps of a neuron."""

SIDE = 72
QUALITY = 62

_KEPT_STRIPS = 2048


class Strips:
    """The store as the cards need it. A session without a store gives cards without exemplars."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._strip = lru_cache(maxsize=_KEPT_STRIPS)(self._draw_strip)

    def summaries(self, neurons: Sequence[int]) -> Mapping[int, NeuronSummary]:
        """What is known of the neurons, by neuron."""
        return {} if self._session.store is None else self._session.summaries(neurons)

    def own(self, neurons: Sequence[int]) -> dict[int, str]:
        """The names that people gave, by neuron; neurons without one are left out."""
        if self._session.store is None:
            return {}
        return {neuron: note.name for neuron, note in self._session.notes(neurons).items() if note.name}

    def histogram(self, neuron: int, which: Literal["score", "active"]) -> Histogram | None:
        """How often each size came up, over images ("score") or over patches; None without a store."""
        return None if self._session.store is None else self._session.histogram(neuron, which)

    def strip(self, neuron: int, count: int = STRIP) -> str:
        """The neuron's strongest exemplars as HTML."""
        return "" if self._session.store is None else self._strip(neuron, count)

    def _draw_strip(self, neuron: int, count: int) -> str:
        return strip(self._session.exemplars(neuron)[:count])

    def name(self, neuron: int) -> str:
        """The neuron's name for people: their own, else its label, else its number."""
        return name_of(neuron, self.summaries([neuron]).get(neuron), self.own([neuron]).get(neuron, ""))

    def label(self, neuron: int) -> str:
        """The concept that the neuron stands for, or ""."""
        summary = self.summaries([neuron]).get(neuron)
        return summary.label if summary is not None else ""

    def title(self, neuron: int) -> str:
        """The name with the number, each once."""
        name = self.name(neuron)
        return name if name.endswith(f" {neuron}") else f"{name} #{neuron}"


def strip(exemplars: Sequence[Exemplar]) -> str:
    """Thumbnails with the heat of their patch maps, strongest first, on one scale."""
    if not exemplars:
        return '<p class="quiet">Never fired while indexing.</p>'
    peak = max(float(exemplar.patch_map.max()) for exemplar in exemplars)
    return "".join(thumbnail(exemplar, peak) for exemplar in exemplars)


def thumbnail(exemplar: Exemplar, peak: float, side: int = SIDE) -> str:
    """A small square of an exemplar, encoded anew with its heat laid over it: about one KB.

    peak: the activation at the top of the colour scale.
    """
    shown = ", ".join(label.replace("_", " ") for label in exemplar.labels[:6])
    words = escape(f"exemplar {exemplar.rank + 1}" + (f": {shown}" if shown else ""))
    return (
        f'<span class="thumb" title="{words}"><img src="{data_uri(_small(exemplar, peak, side))}" '
        f'alt="{words}" width="{side}" height="{side}"></span>'
    )


def _small(exemplar: Exemplar, peak: float, side: int) -> bytes:
    """The middle square of the exemplar with its heat, as JPEG: half the work of WebP, a third larger."""
    with Image.open(io.BytesIO(exemplar.thumbnail)) as picture:
        picture.draft("RGB", (side, side))
        width, height = picture.size
        edge = min(width, height)
        left, top = (width - edge) / 2 / width, (height - edge) / 2 / height
        middle = (left, top, 1 - left, 1 - top)
        square = _resized(picture.convert("RGB"), side, middle)
    heat = _resized(Image.fromarray(levels(exemplar.patch_map, peak)), side, middle)
    colours = Image.fromarray(COLOURS[np.asarray(heat)])
    square.paste(colours, (0, 0), colours)
    stream = io.BytesIO()
    square.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()


def _resized(picture: Image.Image, side: int, part: tuple[float, float, float, float]) -> Image.Image:
    """A part of a picture, in shares of its width and height, as a square."""
    left, top, right, bottom = part
    width, height = picture.size
    box = (left * width, top * height, right * width, bottom * height)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box)
