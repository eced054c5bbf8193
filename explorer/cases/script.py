"""A case as a short Python script on the project's own API, which prints the same two answers.

The picture lies beside the script or is given as its first argument; marked patches are written as spans of
columns. Knows what the API looks like; runs nothing.
"""

from __future__ import annotations

import dataclasses
import io
import re
import unicodedata
import zipfile
from collections.abc import Sequence

from explorer.cases.case import Case, moves
from explorer.cases.rows import Row
from explorer.records import Cell
from explorer.steer import Contrast, Decoding

WIDTH = 100
PATCHES = '''
def patches(places: str) -> np.ndarray:
    """A mask of marked patches; "3:4-7,9" are columns 4 to 7 and 9 of row 3, counted from 0."""
    mask = np.zeros((view.grid.rows, view.grid.cols), bool)
    for row, spans in (part.split(":") for part in places.split()):
        for first, _, last in (span.partition("-") for span in spans.split(",")):
            mask[int(row), int(first) : int(last or first) + 1] = True
    return mask

'''


def slug(title: str) -> str:
    """A title as the name of a file: small letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "case"


def script(case: Case) -> str:
    """The script of a case. It prints the untouched answer and, if there is one, the steered one."""
    edits = [_edit(row) for row in case.rows if moves(row)]
    masks = any("patches(" in edit for edit in edits)
    options = case.settings.options()
    objects = [value for value in options.values() if isinstance(value, Contrast | Decoding)]
    used = [value for value in objects if _asks(value)]
    length = f"max_new_tokens={case.settings.max_new_tokens}"
    lines = [*_head(case), "import sys", "from pathlib import Path", ""]
    lines += ["import numpy as np", ""] if masks else []
    lines += [f"from explorer import {'Edit, ' if edits else ''}Session"]
    if used:
        lines.append(f"from explorer.steer import {', '.join(sorted({type(one).__name__ for one in used}))}")
    lines += [
        "",
        f'beside = Path(__file__).with_name("{slug(case.title)}{_ending(case)}")',
        "picture = sys.argv[1] if len(sys.argv) > 1 else beside",
        "session = Session.open(*sys.argv[2:])",
        "view = session.look(picture)",
        f"question = {case.question!r}",
        *(PATCHES.splitlines() if masks else []),
        f"print(session.answer(view, question, {length}))",
    ]
    if case.steered is None:
        return "\n".join(lines) + "\n"
    if edits:
        lines += ["edits = [", *(f"    {edit}" for edit in edits), "]"]
    more = [f"{name}={_written(value)}" for name, value in options.items() if _asks(value)]
    arguments = ["view", "question", *(["edits"] if edits else []), *more]
    call = f"print(session.answer({', '.join(arguments)}))"
    if len(call) > WIDTH:
        call = "\n    ".join(["steered = session.answer(", *(f"{one}," for one in arguments)])
        call += "\n)\nprint(steered)"
    return "\n".join([*lines, call]) + "\n"


def bundle(case: Case) -> bytes:
    """A zip file with the script and the picture beside it."""
    name, stream = slug(case.title), io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/{name}.py", script(case))
        archive.writestr(f"{name}/{name}{_ending(case)}", case.picture)
    return stream.getvalue()


def spans(cells: Sequence[Cell]) -> str:
    """Patches as spans of columns, row by row: "3:4-7,9 5:0"."""
    by_row: dict[int, list[list[int]]] = {}
    for row, col in sorted(set(cells)):
        runs = by_row.setdefault(row, [])
        if runs and runs[-1][1] == col - 1:
            runs[-1][1] = col
        else:
            runs.append([col, col])
    return " ".join(
        f"{row}:" + ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
        for row, runs in by_row.items()
    )


def _head(case: Case) -> list[str]:
    """What it shows, how to run it, and on what it was made, as comments."""
    name, known = slug(case.title), case.identity
    told = [case.title, "", *_wrapped(case.notes), ""] if case.notes else [case.title, ""]
    told += [
        "Run it in the project's folder, with the picture beside it:",
        f"    PYTHONPATH=. python {name}.py [PICTURE [MODEL SAE STORE]]",
        f"Made with the model {known.model} and the SAE {known.sae[:12]}.",
    ]
    return [f"# {_comment(line)}".rstrip() for line in told]


def _wrapped(text: str, width: int = WIDTH) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines.append(line)
    return lines


def _comment(text: str) -> str:
    """Text that cannot end a comment's line."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _ending(case: Case) -> str:
    return ".jpg" if case.picture.startswith(b"\xff\xd8") else ".png"


def _edit(row: Row) -> str:
    place = {"all": "", "active": ', "active"'}.get(row.region, f', patches("{spans(row.patches)}")')
    name = f"  # {_comment(row.name)}" if row.name else ""
    return f'Edit({row.neuron}, {row.value!r}, "{row.mode}"{place}),{name}'


def _asks(value: object) -> bool:
    """Whether an option asks for anything but the default; the likeliest token asks for nothing."""
    if isinstance(value, Decoding):
        return value.method != "plain" or value.temperature > 0
    return value is not None and value is not False


def _written(value: object) -> str:
    """An argument as Python writes it; of a record only what is not its default."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    parts = [
        f"{one.name}={getattr(value, one.name)!r}"
        for one in dataclasses.fields(value)
        if getattr(value, one.name) != one.default
    ]
    return f"{type(value).__name__}({', '.join(parts)})"
