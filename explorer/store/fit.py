"""Whether a store belongs to a model and an SAE, in words. Knows the manifest only."""

from __future__ import annotations

from collections.abc import Mapping

from explorer.store.manifest import Manifest

SHORT = 12
"""Digits of an SAE's id that people are shown."""
_WORDS = {
    "model_id": "model",
    "block": "block",
    "sae_id": "SAE",
    "n_neurons": "number of neurons",
    "preprocessing": "preprocessing",
    "score": "score",
}


def differences(manifest: Manifest, wanted: Mapping[str, object]) -> list[str]:
    """What differs between a store's manifest and the facts wanted of it; None is not compared.

    wanted: facts by the manifest's names. Models are compared by the hash of their weights: a folder may
    be moved.
    """
    pairs = ((name, getattr(manifest, name), value) for name, value in wanted.items() if value is not None)
    return [
        f"its {_WORDS[name]} is {_shown(name, own)}, the session's is {_shown(name, value)}"
        for name, own, value in pairs
        if _core(name, own) != _core(name, value)
    ]


def _core(name: str, value: object) -> object:
    """The part of a fact that must agree."""
    return str(value).rpartition("@")[2] if name == "model_id" else value


def _shown(name: str, value: object) -> object:
    """A fact for people: of a long id its beginning."""
    return str(value)[:SHORT] if name == "sae_id" else value
