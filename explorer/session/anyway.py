"""Opens a session even when its store is missing, damaged, outdated or of another SAE: without it, then.

Says why, and what to run. Knows the commands of the index and the page, but runs nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from explorer.errors import StoreError
from explorer.session.opening import open_parts
from explorer.session.session import EMBEDDED_STORE, Session
from explorer.store import Store, is_upgradable
from explorer.vlm.loading import Choice, Tell, silent

WITH = "build one with: "


class Opened(NamedTuple):
    """A session; why it has no store, "" when it has one: in words, ended by ": " and the command to run."""

    session: Session
    trouble: str = ""


def open_anyway(choice: Choice, tell: Tell = silent) -> Opened:
    """As `Session.chosen`, but what is wrong with the store is told instead of raised.

    Raises ModelError or SAEError.
    """
    parts, embedded = open_parts(choice, tell), choice.embedded
    use_own = choice.store is None and embedded and EMBEDDED_STORE.exists()
    wanted = EMBEDDED_STORE if use_own else choice.store
    if wanted is None:
        command = _build(choice, EMBEDDED_STORE if embedded else Path("stores/mine"), embedded)
        return Opened(Session(*parts), f"this session has no store of exemplars; {WITH}{command}")
    try:
        found = Store.open(wanted)
    except StoreError as error:
        if is_upgradable(Path(wanted)):
            command = f"python -m index upgrade {_short(Path(wanted))}"
            return Opened(Session(*parts), f"{_why(error)}; bring it up to date with: {command}")
        out = Path(f"{wanted}-new") if Path(wanted).is_file() else Path(wanted)
        drawn = embedded and "--images" not in str(error)
        return Opened(Session(*parts), f"{_why(error)}; {WITH}{_build(choice, out, drawn)}")
    try:
        return Opened(Session(*parts, found))
    except StoreError as error:
        found.close()
        command = _build(choice, Path(f"{wanted}-new"), embedded)
        return Opened(Session(*parts), f"{_why(error)}; {WITH}{command}")


def _build(choice: Choice, out: Path, drawn: bool) -> str:
    """The command that builds a fitting store at `out`, of drawn scenes or of a folder of pictures."""
    pictures = "--scenes 4000" if drawn else "--images FOLDER"
    parts = ["python -m index build", choice.words(), pictures, "--out", _short(out)]
    return " ".join(part for part in parts if part)


def _short(path: Path) -> str:
    """The path for a command: from where it is run, as far as it lies below."""
    absolute, here = path.absolute(), Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else path))


def _why(error: StoreError) -> str:
    """What is wrong, without the advice: that is for any session, and this one knows its own names."""
    why = str(error)
    for advice in ("; build", "; bring", "; a store is", ". Build"):
        why = why.partition(advice)[0]
    return why
