"""Marks the words in which two answers differ, and makes the words of finished ones buttons.

Knows text and HTML; nothing of models. A word's button asks "why" with the place where the word begins in
the answer's text (`at`). Only an answer's first word is in the tab order; assets/ui/words.js goes on from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape
from typing import NamedTuple

from explorer.ui.buttons import does

_TOKEN = re.compile(r"[\w'’-]+|[^\w\s]")
_WORD = re.compile(r"\w")


class Token(NamedTuple):
    """A word or punctuation mark; at: where it begins in the text; gap: the space before it."""

    text: str
    at: int
    gap: str

    @property
    def key(self) -> str:
        """What two tokens are compared by."""
        return self.text.casefold()


class Marked(NamedTuple):
    """Two answers as HTML: the first with its lost words in <del>, the second with its new ones in <ins>."""

    before: str
    after: str
    changes: int


def tokens(text: str) -> list[Token]:
    """Words and punctuation marks in their order."""
    found, end = [], 0
    for hit in _TOKEN.finditer(text):
        found.append(Token(hit.group(), hit.start(), text[end : hit.start()] if found else ""))
        end = hit.end()
    return found


def words(text: str) -> str:
    """A finished answer as HTML, each word a button."""
    return _html(tokens(text), True, True)


def mark(before: str, after: str, finished: bool = True, buttons: bool = True) -> Marked:
    """Compare two answers word by word.

    finished: False while `after` still grows; what it has not reached yet does not count as lost, and its
    words are no buttons. buttons: False for words that nobody can ask about.
    """
    old, new = tokens(before), tokens(after)
    keys = [[token.key for token in side] for side in (old, new)]
    steps = SequenceMatcher(None, *keys, autojunk=False).get_opcodes()
    left, right, changes = "", "", 0
    for tag, i0, i1, j0, j1 in steps:
        pending = not finished and i1 == len(old) and tag in ("delete", "replace")
        changes += tag != "equal" and not (pending and tag == "delete")
        lost, new_here = tag != "equal" and not pending, tag != "equal"
        left += _part(old[i0:i1], "del" if lost else "", buttons, i0 == 0)
        right += _part(new[j0:j1], "ins" if new_here else "", buttons and finished, j0 == 0)
    return Marked(left, right, changes)


def _part(part: Sequence[Token], tag: str, buttons: bool, first: bool) -> str:
    """Tokens as HTML, inside an element when there is one; the leading space stays outside."""
    if not part or not tag:
        return _html(part, buttons, first)
    inside = _html([part[0]._replace(gap=""), *part[1:]], buttons, first)
    return f"{escape(part[0].gap)}<{tag}>{inside}</{tag}>"


def _html(part: Sequence[Token], buttons: bool, first: bool) -> str:
    """Tokens as escaped HTML. first: whether the first of them is the answer's first, in the tab order."""
    shown = []
    for place, token in enumerate(part):
        said = escape(token.text)
        if buttons and _WORD.search(token.text):
            how = f'tabindex="{0 if first and place == 0 else -1}" {does("why", at=token.at)}'
            said = f'<button type="button" class="word" {how}>{said}</button>'
        shown.append(escape(token.gap) + said)
    return "".join(shown)
