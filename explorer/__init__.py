"""A microscope and a workbench for the visual neurons of large vision-language models.

`from explorer import Session, Edit, load_image` is the whole Python API. Names are imported on first
use, so that reading the records does not load torch.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "Session": "explorer.session",
    "View": "explorer.session",
    "load_image": "explorer.images",
    **dict.fromkeys(
        ("Activation", "Box", "Cell", "Edit", "Exemplar", "Found", "Grid", "NeuronSummary"),
        "explorer.records",
    ),
    "ExplorerError": "explorer.errors",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'explorer' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
