"""What to run when a store is missing or does not fit: the command, for this model and this SAE.

Knows the commands of the index, but runs nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from explorer.errors import StoreError
from explorer.vlm.loading import Choice

WITH = "build one with: "
"""Stands before the command, at the end of a message."""
EMBEDDED_BUILD = "python -m index build --scenes 4000 --out stores/embedded"
ANY_BUILD = "python -m index build --model MODEL --sae SAE --images FOLDER --out STORE"


def build_words(choice: Choice, out: Path, drawn: bool) -> str:
    """The command that builds a fitting store at `out`, of drawn scenes or of a folder of pictures."""
    pictures = "--scenes 4000" if drawn else "--images FOLDER"
    parts = ["python -m index build", choice.words(), pictures, "--out", short(out)]
    return " ".join(part for part in parts if part)


def short(path: Path) -> str:
    """The path for a command: from where it is run, as far as it lies below."""
    absolute, here = path.absolute(), Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else path))


def why(error: StoreError) -> str:
    """What is wrong, without the advice: that is for any session, and a choice knows its own names."""
    said = str(error)
    for advice in ("; build", "; bring", "; a store is", ". Build"):
        said = said.partition(advice)[0]
    return said
