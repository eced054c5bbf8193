"""What the page remembers of one visitor: the picture looked at, and what of it is in focus.

Frozen records that handlers replace; they live in `gr.State` and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from explorer.records import Cell
from explorer.session import View

Source = Literal["picture", "patch", "concept"]


@dataclass(frozen=True, eq=False)
class Visit:
    """The picture on the page.

    view: how the session saw it; title: its name; photo: the picture as a data URI, small enough to show;
    questions: what to ask of it; example: key of the example, "" for an upload.
    """

    view: View
    title: str
    photo: str
    questions: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Focus:
    """What the cards list and which neuron the heat map shows.

    source: whose neurons the cards are; pool: how patches are pooled for the whole picture;
    patch: the marked patch; concept: what was searched for; neuron: the chosen one.
    """

    source: Source = "picture"
    pool: Literal["mean", "max"] = "mean"
    patch: Cell | None = None
    concept: str = ""
    neuron: int | None = None


@dataclass(frozen=True)
class Said:
    """The untouched model's answer to a prompt about the present picture."""

    prompt: str
    text: str
