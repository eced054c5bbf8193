"""Which concepts of the drawn world a session's store knows: what measurements by concept need."""

from __future__ import annotations

from explorer.errors import StoreError
from explorer.session import Session
from explorer.world import CONCEPTS


def known_concepts(session: Session) -> frozenset[str]:
    """The drawn world's concepts with neurons that stand for them and places where they are seen; or none."""
    if session.store is None or (probe := session.store.probe()) is None:
        return frozenset()
    return frozenset(CONCEPTS).intersection(probe.concepts, session.store.concepts())


def needed_concepts(session: Session) -> frozenset[str]:
    """The same. Raises StoreError when there are none, with what to do."""
    found = known_concepts(session)
    if not found:
        what = "there is no store" if session.store is None else f"{session.store.folder} knows none of them"
        raise StoreError(
            "which neurons stand for the drawn world's concepts is known to a store of drawn scenes, and "
            f"{what}; build one with: python -m index build --scenes 4000, for this --model and --sae, and "
            "give it with --store"
        )
    return found
