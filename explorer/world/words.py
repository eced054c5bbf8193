"""The language of the drawn world: phrases, captions, and reading concepts back out of a text.

Knows nothing of pixels; a thing is a concept, a count and a colour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from explorer.errors import WorldError
from explorer.world.concepts import BY_NAME, TABLE

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
DESCRIBE = (
    "Describe the image.",
    "Describe this picture.",
    "What is in the image?",
    "What can you see?",
    "Please describe this image in detail.",
)


class Kind(NamedTuple):
    """All objects of one concept in a scene: how many, and their colour if the concept has variants."""

    concept: str
    count: int
    color: str | None


def phrase(concept: str, count: int = 1) -> str:
    """The words for a concept: "fork and knife", or from two on "two apples". Raises WorldError."""
    if concept not in BY_NAME:
        raise WorldError(f"the drawn world has no concept {concept!r}")
    entry = BY_NAME[concept]
    return entry.phrase if count == 1 else f"{NUMBERS[count]} {entry.plural}"


def article(words: str) -> str:
    """The indefinite article that fits the words."""
    return "an" if words[0] in "aeiou" else "a"


def noun_phrase(kind: Kind) -> str:
    """A kind as a caption names it: "a black apple", "three red cars", "a cat"."""
    entry = BY_NAME[kind.concept]
    color = f"{kind.color} " if kind.color else ""
    if kind.count == 1:
        words = color + entry.phrase
        return f"{article(words)} {words}"
    return f"{NUMBERS[kind.count]} {color}{entry.plural}"


def caption(theme: str, kinds: Sequence[Kind]) -> str:
    """The caption of a scene: its place, then its kinds in the order given."""
    parts = [noun_phrase(kind) for kind in kinds]
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"{article(theme).capitalize()} {theme} with {listed}."


def _pattern() -> re.Pattern[str]:
    """One alternation of all phrases and plurals, the longest first so that "hot dog" is no dog."""
    words = sorted({w for c in TABLE for w in (c.phrase, c.plural)}, key=lambda w: (-len(w), w))
    return re.compile(r"\b(" + "|".join(re.escape(w) for w in words) + r")\b", re.IGNORECASE)


_BY_WORDS = {w: c.name for c in TABLE for w in (c.plural, c.phrase)}
_PATTERN = _pattern()


def mentions(text: str) -> tuple[str, ...]:
    """The concepts that a text names, in order of first mention, each once."""
    found = (_BY_WORDS[match.group(1).lower()] for match in _PATTERN.finditer(text))
    return tuple(dict.fromkeys(found))
