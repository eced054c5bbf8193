"""Opens a session even when its store is missing, damaged, outdated or of another SAE: without it, then.

Says why, and what to run. Knows the commands of the index and the page, but runs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from explorer.errors import StoreError
from explorer.session.advice import WITH, build_words, short, why
from explorer.session.opening import open_parts
from explorer.session.session import EMBEDDED_STORE, Session
from explorer.store import Store, is_upgradable
from explorer.vlm.loading import Choice, Tell, silent


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
        command = build_words(choice, EMBEDDED_STORE if embedded else Path("stores/mine"), embedded)
        return Opened(Session(*parts), f"this session has no store of exemplars; {WITH}{command}")
    try:
        found = Store.open(wanted)
    except StoreError as error:
        if is_upgradable(Path(wanted)):
            command = f"python -m index upgrade {short(Path(wanted))}"
            return Opened(Session(*parts), f"{why(error)}; bring it up to date with: {command}")
        out = Path(f"{wanted}-new") if Path(wanted).is_file() else Path(wanted)
        drawn = embedded and "--images" not in str(error)
        return Opened(Session(*parts), f"{why(error)}; {WITH}{build_words(choice, out, drawn)}")
    try:
        return Opened(Session(*parts, found))
    except StoreError as error:
        found.close()
        command = build_words(choice, Path(f"{wanted}-new"), embedded)
        return Opened(Session(*parts), f"{why(error)}; {WITH}{command}")
