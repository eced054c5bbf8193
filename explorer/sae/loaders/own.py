"""The explorer's own SAE files: what `SAE.save` wrote."""

from __future__ import annotations

from collections.abc import Mapping

from explorer.sae import files
from explorer.sae.loaders.found import Found
from explorer.sae.model import SAE

NAME = "Neuron explorer"
HINTS: tuple[str, ...] = ()


def claims(found: Found) -> bool:
    """Whether the safetensors metadata has the explorer's entry."""
    return files.HEADER_KEY in found.metadata


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE. Raises SAEError for a file that is not as `SAE.save` writes it."""
    return SAE.stored(found.weights, *files.stored(found.weights, found.tensors, found.metadata))
