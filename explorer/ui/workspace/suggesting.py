"""Words that find something in the store at hand, for whoever searches. Asks the session; draws nothing."""

from __future__ import annotations

from explorer.errors import ExplorerError
from explorer.session import Session

FIRST_CHOICE = "fork_and_knife"
"""The concept that the embedded store's stories turn on: the example wherever a store knows it."""

NO_STORE = "needs a store"
NO_NAMES = "a word, or a name that you gave"


def known(session: Session, most: int) -> list[str]:
    """Concepts that the store knows, else labels, the commonest first, in plain words; [] without a store."""
    if session.store is None:
        return []
    probe = session.store.probe()
    names = [] if probe is None else sorted(probe.concepts, key=lambda name: name != FIRST_CHOICE)
    if not names:
        names = [label for label, _ in session.label_counts()]
    plain = (name.partition(",")[0].replace("_", " ").strip() for name in names[:most])
    return [name for name in dict.fromkeys(plain) if name]


def example(session: Session) -> str:
    """One of them, "" when there is none."""
    return next(iter(known(session, 1)), "")


def placeholder(session: Session) -> str:
    """What the empty search says."""
    if session.store is None:
        return NO_STORE
    return example(session) or NO_NAMES


def wanted(session: Session, ask: str) -> ExplorerError:
    """The error for an empty search: what to do (`ask`), and a word that finds something."""
    such = example(session)
    return ExplorerError(f"{ask}, for instance: {such}" if such else ask)
