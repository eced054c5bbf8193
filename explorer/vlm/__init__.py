"""Large vision-language models behind one seam: `open_lvlm` gives an `LVLM`, whatever its family.

Names are imported on first use, so that the records of `loading` can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.vlm.base import (
        LVLM,
        AnswerWord,
        Asked,
        AttentionEdit,
        Choose,
        Prepared,
        Scale,
        Step,
        WordGradients,
    )
    from explorer.vlm.loading import Choice, Loading
    from explorer.vlm.opening import FAMILIES, open_lvlm

__all__ = [
    "FAMILIES",
    "LVLM",
    "AnswerWord",
    "Asked",
    "AttentionEdit",
    "Choice",
    "Choose",
    "Loading",
    "Prepared",
    "Scale",
    "Step",
    "WordGradients",
    "open_lvlm",
]
_HOME = {"FAMILIES": "opening", "open_lvlm": "opening", "Choice": "loading", "Loading": "loading"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'explorer.vlm' has no attribute {name!r}")
    return getattr(import_module(f"explorer.vlm.{_HOME.get(name, 'base')}"), name)


def __dir__() -> list[str]:
    return __all__
