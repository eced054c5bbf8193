"""The arrows of the design, read from the imports: who may know whom, and how large anything may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("explorer/**/*.py"), *ROOT.glob("index/**/*.py"), *ROOT.glob("app.py")])

RECORDS = {"records", "errors", "images"}
PARTS = {"world", "vlm", "sae", "store"}
ALLOWED: dict[str, set[str]] = {
    **{name: RECORDS for name in RECORDS | PARTS},
    "world": RECORDS | {"vlm"},
    "steer": RECORDS | PARTS,
    "session": RECORDS | PARTS | {"steer"},
    "analyze": RECORDS | PARTS | {"steer", "session"},
    "cases": RECORDS | PARTS | {"steer", "session", "analyze"},
    "evals": RECORDS | PARTS | {"steer", "session", "analyze", "cases"},
    "ui": RECORDS | PARTS | {"steer", "session", "analyze", "cases", "evals"},
}
"""Which other layers of explorer/ a layer may import."""

PLACES: dict[str, tuple[str, ...]] = {
    "gradio": ("explorer/ui/", "app.py"),
    "transformers": ("explorer/vlm/", "explorer/world/"),
    "sqlite3": ("explorer/store/",),
    "sqlite_utils": ("explorer/store/",),
    "faiss": ("explorer/store/",),
    "ray": ("index/cluster.py",),
}
"""Where alone a library may be imported."""

MAX_MODULE, MAX_FUNCTION = 400, 60


class Parsed(NamedTuple):
    """What a file's text holds: functions by name and length; lines: how many."""

    lines: int
    docstring: str | None
    imports: list[ast.Import | ast.ImportFrom]
    functions: list[tuple[str, int]]
    handlers: list[ast.ExceptHandler]


def parsed(text: str) -> Parsed:
    """Go through a text once."""
    tree = ast.parse(text)
    found = Parsed(len(text.splitlines()), ast.get_docstring(tree), [], [], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imports.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions.append((node.name, (node.end_lineno or 0) - node.lineno + 1))
        elif isinstance(node, ast.ExceptHandler):
            found.handlers.append(node)
    return found


@cache
def read(path: Path) -> Parsed:
    """A file, parsed once for all tests."""
    return parsed(path.read_text(encoding="utf-8"))


class Import(NamedTuple):
    """One imported module: who imports it, its dotted name, and where."""

    place: str
    module: str
    line: int


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path, text: str | None = None) -> Iterator[Import]:
    """Every import in a file, also those inside functions; relative ones made absolute."""
    place = place_of(path)
    package = place.removesuffix(".py").removesuffix("/__init__").split("/")
    for node in (read(path) if text is None else parsed(text)).imports:
        if isinstance(node, ast.Import):
            yield from (Import(place, alias.name, node.lineno) for alias in node.names)
        else:
            depth = len(package) - node.level + (1 if path.name == "__init__.py" else 0)
            base = [*package[:depth], *filter(None, [node.module])] if node.level else [node.module]
            dotted = ".".join(base)
            if dotted == "explorer":
                yield from (Import(place, f"explorer.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield Import(place, dotted, node.lineno)


def layer_of(place: str) -> str:
    """The layer of explorer/ that a file belongs to."""
    return place.removeprefix("explorer/").split("/")[0].removesuffix(".py")


def broken_arrows(found: Iterator[Import]) -> list[str]:
    """What the imports say against the design, one line each."""
    wrong = []
    for place, module, line in found:
        parts = module.split(".")
        if parts[0] in PLACES and not place.startswith(PLACES[parts[0]]):
            wrong.append(
                f"{place}:{line} imports {parts[0]}, which belongs in {' or '.join(PLACES[parts[0]])}"
            )
        if parts[0] in ("index", "app", "tests") and parts[0] != place.split("/")[0]:
            wrong.append(f"{place}:{line} imports {module}; nothing imports {parts[0]}")
        if parts[0] == "explorer" and len(parts) > 1 and place.startswith("explorer/"):
            here, there = layer_of(place), parts[1]
            if here != "__init__" and there != here and there not in ALLOWED[here]:
                wrong.append(f"{place}:{line} imports {module}: {here} may not know {there}")
        if parts == ["explorer"] and place.startswith("explorer/"):
            wrong.append(f"{place}:{line} imports the whole package")
    return wrong


def test_every_file_belongs_to_a_layer() -> None:
    unknown = [
        place
        for place in map(place_of, SOURCES)
        if place.startswith("explorer/") and layer_of(place) not in {*ALLOWED, "__init__"}
    ]
    assert not unknown, "add these to ALLOWED here and to the design"


@pytest.mark.parametrize("path", SOURCES, ids=place_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    assert broken_arrows(imports_of(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=place_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    assert read(path).lines <= MAX_MODULE, "split this module"
    for name, length in read(path).functions:
        assert length <= MAX_FUNCTION, f"{name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=place_of)
def test_every_module_says_what_it_does_and_catches_nothing_broadly(path: Path) -> None:
    assert read(path).docstring, "open the module by saying what it does"
    for node in read(path).handlers:
        if not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
            names = (
                {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {""}
            )
            assert not names & {"", "Exception", "BaseException"}, f"line {node.lineno}: a broad except"


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("explorer/sae/x.py", "from explorer.vlm.base import LVLM", "sae may not know vlm"),
        ("explorer/vlm/x.py", "import explorer.world.scene", "vlm may not know world"),
        ("explorer/steer/x.py", "from explorer import session", "steer may not know session"),
        ("explorer/steer/x.py", "from ..session import Session", "steer may not know session"),
        ("explorer/session/__init__.py", "from ..ui import page", "session may not know ui"),
        ("explorer/records.py", "def f():\n    import explorer.sae", "records may not know sae"),
        ("explorer/session/x.py", "import transformers.models", "belongs in explorer/vlm/"),
        ("index/x.py", "import sqlite3", "belongs in explorer/store/"),
        ("explorer/evals/x.py", "import gradio as gr", "belongs in explorer/ui/ or app.py"),
        ("app.py", "from index.build import build", "nothing imports index"),
        ("explorer/sae/x.py", "import explorer", "the whole package"),
    ],
)
def test_this_test_sees_broken_arrows(place: str, code: str, words: str) -> None:
    assert [line for line in broken_arrows(imports_of(ROOT / place, code)) if words in line]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("explorer/world/x.py", "from explorer.vlm.families.llava import Llava\nimport transformers"),
        ("explorer/session/view.py", "from .site import site_block\nfrom explorer.steer import intervene"),
        ("index/x.py", "from index.build import build\nfrom explorer.session import Session"),
        ("app.py", "import gradio\nfrom explorer import Session"),
    ],
)
def test_this_test_lets_good_arrows_pass(place: str, code: str) -> None:
    assert broken_arrows(imports_of(ROOT / place, code)) == []
