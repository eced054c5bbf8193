"""Draws the small parts of the page: answers, example pictures, questions to ask, notices."""

from __future__ import annotations

import io
from collections.abc import Iterable
from html import escape

from PIL import Image

from explorer.cases.examples import Example
from explorer.errors import StoreError
from explorer.session import Session, View
from explorer.session.opening import is_embedded
from explorer.ui.buttons import does
from explorer.ui.heat import data_uri

THUMB_SIDE = 96
ONE_LINE = 12
"""Example pictures that stand in one line; more stand in two."""

WAITING = '<p class="text waiting" aria-live="polite"><span class="caret"></span></p>'


def answer(text: str, growing: bool = False) -> str:
    """An answer. text: HTML whose words are escaped and marked already; growing: more is to come."""
    caret = '<span class="caret" aria-hidden="true"></span>' if growing else ""
    shown = text if text.strip() or growing else '<span class="quiet">(no words)</span>'
    return f'<p class="text" aria-busy="{str(growing).lower()}">{shown}{caret}</p>'


def hint(words: str) -> str:
    """What a panel says while it has nothing to show."""
    return f'<p class="text quiet">{escape(words)}</p>'


def thumbnail(image: Image.Image) -> str:
    """A small square of a picture as a data URI."""
    small = image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return data_uri(stream.getvalue())


FOREIGN = "Drawn for the embedded model; see what this one says."
"""The story of an example where another model is open."""


class Shelf:
    """The row of example pictures; their thumbnails are made once.

    known: whether their stories are about the model that is open.
    """

    def __init__(self, examples: Iterable[Example], known: bool = True) -> None:
        self._known = known
        self._examples = [(example, thumbnail(example.image)) for example in examples]

    def html(self, chosen: str, story: str = "", seen: str = "") -> str:
        """The examples as buttons, with the story of the chosen one (a key, or "" for none).

        story: HTML that is told when none is chosen; seen: what is added, of how the model sees the picture.
        """
        buttons = "".join(
            f'<button type="button" {does("example", key=example.key)} title="{escape(example.title)}" '
            f'aria-label="{escape(example.title)}" aria-pressed="{str(example.key == chosen).lower()}">'
            f'<img src="{uri}" alt=""></button>'
            for example, uri in self._examples
        )
        story = story or "Your own picture. Paste or drop another at any time."
        for example, _ in self._examples:
            if example.key == chosen:
                told = example.story if self._known else FOREIGN
                story = f"<b>{escape(example.title)}.</b> {escape(told)}"
        story = f"{story} {escape(seen)}".strip()
        count = len(self._examples)
        columns = count if count <= ONE_LINE else (count + 1) // 2
        return (
            f'<div class="shelf" style="--n:{columns};--half:{(count + 1) // 2}" role="group" '
            f'aria-label="Example pictures">{buttons}</div>'
            f'<div class="tale" tabindex="0"><p class="story">{story}</p></div>'
        )


def how_seen(session: Session, view: View) -> str:
    """What is particular in the way that the model sees the picture, in a sentence or two; "" for nothing."""
    said, tiles = [], len(view.prepared.scales)
    if tiles:
        more = "a larger tile" if tiles == 1 else f"{tiles} larger tiles"
        said.append(
            f"The model also reads it in {more}: sliders act there too; lists and map are of the whole view."
        )
    if not getattr(session.lvlm, "has_places", True):
        said.append("A Q-Former sums the patches up for the text, so no word looks at a place of its own.")
    return " ".join(said)


def questions(items: Iterable[str], asked: str) -> str:
    """Questions to ask, as buttons."""
    return "".join(
        f'<button type="button" class="chip" {does("ask", text=item)} '
        f'aria-pressed="{str(item == asked).lower()}">{escape(item)}</button>'
        for item in items
    )


def notices(session: Session, view: View) -> str:
    """What a person should know before trusting the page: a picture unlike those of the index."""
    try:
        familiar = session.familiar(view)
    except StoreError:
        return ""  # the page says so already, over all tabs
    if familiar:
        return ""
    why = "The SAE explains it less well than those, and its neurons' names, found on them, mean less here."
    if is_embedded(session.lvlm.model_id):
        why = (
            "The embedded model only knows drawn scenes: its words about this picture mean little, and so do "
            "the names of its neurons."
        )
    return f'<p class="notice" role="status"><b>This picture is unlike those of the index.</b> {why}</p>'
