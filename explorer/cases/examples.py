"""The example pictures: data in one JSON list, drawn when the page starts. Knows the drawn world."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from explorer.errors import ExplorerError
from explorer.world import draw

EXAMPLES_FILE = Path(__file__).resolve().parents[2] / "assets" / "examples" / "examples.json"
SIDE = 448
"""Side of a drawn example, in pixels."""


@dataclass(frozen=True, eq=False)
class Example:
    """A picture to start from.

    key: short name for links and tests; title, story: what a person reads; questions: what to ask of it;
    concepts: what to look for among the neurons.
    """

    key: str
    title: str
    story: str
    questions: tuple[str, ...]
    concepts: tuple[str, ...]
    image: Image.Image


def load_examples(path: Path = EXAMPLES_FILE) -> dict[str, Example]:
    """The examples by key, in the file's order. Raises ExplorerError when the file is missing or damaged."""
    try:
        examples = [_example(entry) for entry in _entries(path)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExplorerError(f"cannot read the examples in {path}: {error!r}") from error
    return {example.key: example for example in examples}


def example_keys(path: Path = EXAMPLES_FILE) -> list[str]:
    """The examples' keys in the file's order; draws nothing. Raises ExplorerError as `load_examples` does."""
    try:
        return [str(entry["key"]) for entry in _entries(path)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExplorerError(f"cannot read the examples in {path}: {error!r}") from error


def _entries(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))


def _example(entry: dict) -> Example:
    scene = draw(int(entry["seed"]), entry["family"], size=SIDE)
    return Example(
        key=str(entry["key"]),
        title=str(entry["title"]),
        story=str(entry["story"]),
        questions=tuple(map(str, entry["questions"])),
        concepts=tuple(map(str, entry["concepts"])),
        image=scene.image,
    )
