"""The folder that the indexer writes and the page reads. FORMAT.md is the normative description."""

from explorer.store.manifest import Manifest
from explorer.store.publish import atomic, check_target
from explorer.store.reader import Store
from explorer.store.writer import StoreWriter

__all__ = ["Manifest", "Store", "StoreWriter", "atomic", "check_target"]
