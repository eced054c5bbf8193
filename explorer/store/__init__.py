"""The folder that the indexer writes and the page reads. FORMAT.md is the normative description."""

from explorer.store.manifest import Manifest, is_outdated, is_upgradable
from explorer.store.probe import Probe
from explorer.store.publish import atomic, check_target
from explorer.store.reader import Store, concept_key
from explorer.store.writer import StoreWriter

__all__ = [
    "Manifest",
    "Probe",
    "Store",
    "StoreWriter",
    "atomic",
    "check_target",
    "concept_key",
    "is_outdated",
    "is_upgradable",
]
