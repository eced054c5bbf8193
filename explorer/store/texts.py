"""Search by words: over the store's texts and people's notes. Knows SQLite's FTS5 query language.

A person's text is never query syntax: each word becomes a quoted phrase, all must occur, and the last
one may be the beginning of a word.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from explorer.records import TextMatch
from explorer.store.database import Database
from explorer.store.notes import Notes

MAX_WORDS = 16
MAX_WORD = 64
# How much a match in name, labels or words counts; the first is the neuron's number, which is not indexed.
_WEIGHTS = "0.0, 8.0, 3.0, 1.0"


def match_expression(text: str) -> str:
    """The FTS5 query that asks for all words of a text, "" when it has none.

    Words beyond the sixteenth, and letters of a word beyond the 64th, are left out.
    """
    words = [_plain(word)[:MAX_WORD] for word in text.split()[: 4 * MAX_WORDS]]
    words = [word for word in words if any(unicodedata.category(sign)[0] in "LN" for sign in word)]
    phrases = ['"' + word.replace('"', '""') + '"' for word in words[:MAX_WORDS]]
    return " ".join(phrases) + "*" if phrases else ""


def _plain(word: str) -> str:
    """A word without the characters that cannot be sent to SQLite, or that would end the text there."""
    return "".join(" " if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in word)


def search_texts(database: Database, notes: Notes, text: str, k: int) -> list[TextMatch]:
    """At most k neurons: first those whose name or note by people matches, then by the store's texts."""
    expression = match_expression(text)
    if not expression or k < 1:
        return []
    own = notes.search(expression, k)
    matches = [TextMatch(match.neuron, match.name, True, match.score) for match in own]
    known = {match.neuron for match in matches}
    rows = database.ask(
        f"SELECT neuron, name, -bm25(texts, {_WEIGHTS}) AS score FROM texts WHERE texts MATCH ?"
        " ORDER BY score DESC, neuron LIMIT ?",
        (expression, k + len(known)),
    )
    rest = [row for row in rows if row[0] not in known]
    called = notes.read([row[0] for row in rest])
    for neuron, label, score in rest:
        name = called[neuron].name if neuron in called else ""
        matches.append(TextMatch(neuron, name or label, False, score))
    unnamed = [match.neuron for match in matches if not match.name]
    labels = _labels(database, unnamed)
    return [match if match.name else match._replace(name=labels[match.neuron]) for match in matches][:k]


def matching_texts(database: Database, expression: str) -> np.ndarray:
    """All neurons whose texts in the store match an FTS5 expression, int64, in no order."""
    ((found,),) = database.ask("SELECT group_concat(rowid) FROM texts WHERE texts MATCH ?", (expression,))
    return np.array(found.split(",") if found else [], dtype=np.int64)


def _labels(database: Database, neurons: list[int]) -> dict[int, str]:
    """The labels of neurons, in plain words."""
    marks = ", ".join("?" * len(neurons))
    rows = database.ask(f"SELECT neuron, label FROM neurons WHERE neuron IN ({marks})", neurons)
    return {neuron: label.replace("_", " ") for neuron, label in rows}
