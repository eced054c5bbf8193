"""Marks the words in which two answers differ. Knows text and HTML; nothing of models."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from html import escape
from typing import NamedTuple

_TOKEN = re.compile(r"\s*(?:[\w'’-]+|[^\w\s])")


class Marked(NamedTuple):
    """Two answers as HTML: the first with its lost words in <del>, the second with its new ones in <ins>."""

    before: str
    after: str
    changes: int


def tokens(text: str) -> list[str]:
    """Words and punctuation marks, each with the space before it."""
    return _TOKEN.findall(text.strip())


def mark(before: str, after: str, finished: bool = True) -> Marked:
    """Compare two answers word by word.

    finished: False while `after` still grows; what it has not reached yet does not count as lost.
    """
    old, new = tokens(before), tokens(after)
    keys = [[token.strip().casefold() for token in side] for side in (old, new)]
    steps = SequenceMatcher(None, *keys, autojunk=False).get_opcodes()
    left, right, changes = "", "", 0
    for tag, i0, i1, j0, j1 in steps:
        pending = not finished and i1 == len(old) and tag in ("delete", "replace")
        changes += tag != "equal" and not (pending and tag == "delete")
        left += _wrap(old[i0:i1], "del" if tag != "equal" and not pending else None)
        right += _wrap(new[j0:j1], "ins" if tag != "equal" else None)
    return Marked(left, right, changes)


def _wrap(part: list[str], tag: str | None) -> str:
    """Tokens as escaped HTML, inside an element when there is one; the leading space stays outside."""
    text = "".join(part)
    if tag is None or not text:
        return escape(text)
    bare = text.lstrip()
    return f"{text[: len(text) - len(bare)]}<{tag}>{escape(bare)}</{tag}>"
