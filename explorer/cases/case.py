"""A case: what a person shows another: picture, question, bench, settings, both answers, and why it matters.

A case is one file, JSON in UTF-8 with the picture inside, lossless, so that it stands alone and a replay
sees the same activations. Everything read from a file is checked. Knows of model and SAE what they are
called; runs neither.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from PIL import Image

from explorer.cases import checks, rows, settings
from explorer.cases.rows import Row
from explorer.cases.settings import Settings
from explorer.errors import CaseError, ExplorerError
from explorer.images import load_image
from explorer.records import Box, Grid

FORMAT = "visual neurons case"
VERSION = 1
ENDING = ".case.json"

LONGEST_TITLE, LONGEST_NOTES, LONGEST_ANSWER, LONGEST_ID = 80, 2000, 8000, 300
LARGEST_PICTURE = 32 << 20
"""Bytes of an encoded picture."""
LARGEST_FILE = LARGEST_PICTURE * 4 // 3 + (1 << 20)
MOST_NEURONS, MOST_PATCHES, MOST_BLOCKS = 1 << 24, 1000, 1000
_LONGEST_NUMBER = 18

_KINDS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_FIELDS = (
    *("format", "version", "title", "notes", "model", "sae", "question", "bench", "settings"),
    *("baseline", "steered", "picture"),
)


class Frame(NamedTuple):
    """All that a bench has to fit: how many neurons there are, and the patch grid."""

    n_neurons: int
    grid: Grid


@dataclass(frozen=True)
class Identity:
    """On what the answers were made: the model's id, the block that the SAE reads, how many rows and columns
    of patches the picture has there, the SAE's id and how many neurons it has."""

    model: str
    block: int
    rows: int
    cols: int
    sae: str
    neurons: int

    def __post_init__(self) -> None:
        _line(self.model, "the model's id", LONGEST_ID)
        _line(self.sae, "the SAE's id", LONGEST_ID)
        for name, limit in (("block", MOST_BLOCKS), ("rows", MOST_PATCHES), ("cols", MOST_PATCHES)):
            _whole(getattr(self, name), f"the number of {name}", name != "block", limit)
        _whole(self.neurons, "the number of neurons", 1, MOST_NEURONS)

    @property
    def frame(self) -> Frame:
        """What the bench has to fit."""
        return Frame(self.neurons, Grid(self.rows, self.cols, 1, 1, Box(0, 0, 1, 1)))


@dataclass(frozen=True)
class Case:
    """One case. Raises CaseError for anything that no case holds.

    picture: an encoded PNG or JPEG; rows: the bench; a row whose region is "seen" holds in its patches where
    its concept was seen; steered: None when nothing was steered.
    """

    title: str
    notes: str
    identity: Identity
    question: str
    rows: tuple[Row, ...]
    settings: Settings
    baseline: str
    steered: str | None
    picture: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _line(self.title, "the title", LONGEST_TITLE)
        _printable(self.notes, "the notes", LONGEST_NOTES, "\n")
        _line(self.question, "the question", checks.LONGEST_PROMPT)
        _printable(self.baseline, "the untouched answer", LONGEST_ANSWER, "\n\t\r")
        if self.steered is not None:
            _printable(self.steered, "the steered answer", LONGEST_ANSWER, "\n\t\r")
        _bench(rows.dump(self.rows), self.identity)
        if len(self.picture) > LARGEST_PICTURE:
            raise CaseError(
                f"the picture takes {len(self.picture) >> 20} MB without loss; "
                f"a case holds {LARGEST_PICTURE >> 20}: scale it down and open it again"
            )
        if not self.picture.startswith(tuple(_KINDS.values())):
            raise CaseError("the picture of a case is neither PNG nor JPEG")

    def image(self) -> Image.Image:
        """The picture, upright. Raises ImageError when it is damaged or too large."""
        return load_image(self.picture)

    @property
    def bench(self) -> str:
        """The bench as JSON, as the page takes it."""
        return rows.dump(self.rows)

    @property
    def steers(self) -> bool:
        """Whether bench or settings ask for anything but the untouched answer."""
        return self.settings.changes or any(moves(row) for row in self.rows)


def moves(row: Row) -> bool:
    """Whether a row of the bench asks for anything: moved, and not muted."""
    return row.value is not None and not row.muted


def png(image: Image.Image) -> bytes:
    """A picture encoded without loss, and with nothing but its pixels."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write(case: Case) -> bytes:
    """The case as a file."""
    kind = next(kind for kind, start in _KINDS.items() if case.picture.startswith(start))
    known = case.identity
    grid = {"block": known.block, "rows": known.rows, "cols": known.cols}
    entries = {
        "format": FORMAT,
        "version": VERSION,
        "title": case.title,
        "notes": case.notes,
        "model": {"id": known.model, **grid},
        "sae": {"id": known.sae, "neurons": known.neurons},
        "question": case.question,
        "bench": json.loads(case.bench),
        "settings": asdict(case.settings),
        "baseline": case.baseline,
        "steered": case.steered,
        "picture": {"type": kind, "data": base64.b64encode(case.picture).decode()},
    }
    return (json.dumps(entries, ensure_ascii=False, indent=1) + "\n").encode("utf-8")


def read(data: bytes) -> Case:
    """The case in a file. Raises CaseError or ImageError that says what is wrong with it."""
    entries = _entries(data)
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise CaseError(f"this is no case file: it does not say 'format': {FORMAT!r}")
    version = entries.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise CaseError(f"the case is of version {_quote(version)}; this program reads version {VERSION}")
    _only(entries, "the case", _FIELDS)
    model = _only(entries["model"], "the model", ("id", "block", "rows", "cols"))
    sae = _only(entries["sae"], "the SAE", ("id", "neurons"))
    identity = Identity(model["id"], model["block"], model["rows"], model["cols"], sae["id"], sae["neurons"])
    steered = entries["steered"]
    case = Case(
        title=entries["title"],
        notes=entries["notes"],
        identity=identity,
        question=entries["question"],
        rows=_bench(json.dumps(_known_rows(entries["bench"])), identity),
        settings=_settings(entries["settings"]),
        baseline=entries["baseline"],
        steered=steered,
        picture=_picture(entries["picture"]),
    )
    case.image()
    return case


def clean_title(typed: object) -> str:
    """A title as a person typed it, in one line. Raises ExplorerError without one."""
    title = checks.text(typed, "the title", LONGEST_TITLE)
    if not title:
        raise CaseError("give the case a title first")
    return title


def clean_notes(typed: object) -> str:
    """Notes as a person typed them, without needless space and with at most one empty line between two."""
    if typed is not None and not isinstance(typed, str):
        raise CaseError(f"the notes {_quote(typed)} are not a text")
    lines: list[str] = []
    for line in (" ".join(part.split()) for part in (typed or "").splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def _entries(data: bytes) -> Any:
    """What the JSON of a file says: no NaN, no endless number, no name twice."""
    if not data:
        raise CaseError("the case file is empty (0 bytes)")
    if len(data) > LARGEST_FILE:
        raise CaseError(f"the case file has {len(data) >> 20} MB; a case has at most {LARGEST_FILE >> 20}")
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=_constant, parse_int=_integer, object_pairs_hook=_once
        )
    except UnicodeDecodeError as error:
        raise CaseError("the case file is not text in UTF-8") from error
    except ValueError as error:
        raise CaseError(f"the case file is damaged: {str(error)[:120]}") from error
    except RecursionError as error:
        raise CaseError("the case file is damaged: too deeply nested") from error


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _only(value: object, name: str, names: Sequence[str]) -> dict[str, Any]:
    """An object with exactly these fields."""
    if not isinstance(value, dict):
        raise CaseError(f"{name} is {_quote(value)}, not an object with the fields {', '.join(names)}")
    for missing in names:
        if missing not in value:
            raise CaseError(f"{name} lacks the field {missing!r}")
    _none_foreign(value, name, names)
    return value


def _none_foreign(value: dict[str, Any], name: str, names: Sequence[str]) -> None:
    foreign = next((one for one in value if one not in names), None)
    if foreign is not None:
        raise CaseError(f"{name} has an unknown field {_quote(foreign)}")


def _known_rows(value: object) -> object:
    """The bench, once none of its rows has a field that rows do not have."""
    names = [one.name for one in fields(Row)]
    for row in value if isinstance(value, list) else ():
        if isinstance(row, dict):
            _none_foreign(row, "a row of the bench", names)
    return value


def _bench(text: str, identity: Identity) -> tuple[Row, ...]:
    try:
        return tuple(rows.parse(text, identity.frame))  # type: ignore[arg-type]
    except CaseError:
        raise
    except ExplorerError as error:
        raise CaseError(f"the bench of the case: {error}") from error


def _settings(value: object) -> Settings:
    try:
        return settings.parse(json.dumps(value))
    except ExplorerError as error:
        raise CaseError(f"the settings of the case: {error}") from error


def _picture(value: object) -> bytes:
    entry = _only(value, "the picture", ("type", "data"))
    start = _KINDS.get(entry["type"]) if isinstance(entry["type"], str) else None
    if start is None:
        raise CaseError(f"the picture is of type {_quote(entry['type'])}; use {' or '.join(_KINDS)}")
    if not isinstance(entry["data"], str):
        raise CaseError("the picture's data is not a text in base64")
    try:
        data = base64.b64decode(entry["data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise CaseError(f"the picture's data is not base64: {error}") from error
    if not data.startswith(start):
        raise CaseError(f"the picture is not the {entry['type']} that it claims to be")
    return data


def _whole(value: object, name: str, least: int | bool, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CaseError(f"{name} is {_quote(value)}, not a whole number from {int(least)} to {most}")


def _line(value: object, name: str, longest: int) -> None:
    """One line that says something, without space around it or doubled."""
    _printable(value, name, longest, "")
    if not value or value != " ".join(str(value).split()):
        raise CaseError(f"{name} {_quote(value)} is not one line of text")


def _printable(value: object, name: str, longest: int, also: str) -> None:
    """A text of no more than `longest` characters that can be written, without control characters."""
    if not isinstance(value, str):
        raise CaseError(f"{name} {_quote(value)} is not a text")
    if len(value) > longest:
        raise CaseError(f"{name} has {len(value)} characters; a case holds {longest}")
    for sign in value:
        if unicodedata.category(sign) in ("Cc", "Cs") and sign not in also:
            raise CaseError(f"{name} holds a character that is no text: {sign!a}")


def _quote(value: object) -> str:
    shown = ascii(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"
