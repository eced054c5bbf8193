"""Brings a finished store up to date, from what it holds itself. Holds the lock that builds hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from explorer.store import Manifest
from explorer.store.manifest import FORMAT, UPGRADABLE, is_outdated, read_manifest
from explorer.store.upgrade import upgrade as upgrade_store
from index.leftovers import clear_leftovers
from index.meaning.layout import positions
from index.work import locked, work_folder


def upgrade(folder: Path, tell: Callable[[str], None] = lambda words: None) -> Manifest | None:
    """Publish the store in this program's format; None when it has it already.

    Raises StoreError when there is no store, when its format is too old, when it is being built, or when
    something cannot be written.
    """
    if not is_outdated(folder):
        read_manifest(folder, FORMAT)
        return None
    read_manifest(folder, UPGRADABLE)
    with locked(work_folder(folder, None)):
        clear_leftovers(folder)
        return upgrade_store(folder.absolute(), positions, tell)
