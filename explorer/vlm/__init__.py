"""Large vision-language models behind one seam: `open_lvlm` gives an `LVLM`, whatever its family."""

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
from explorer.vlm.opening import FAMILIES, open_lvlm

__all__ = [
    "FAMILIES",
    "LVLM",
    "AnswerWord",
    "Asked",
    "AttentionEdit",
    "Choose",
    "Prepared",
    "Scale",
    "Step",
    "WordGradients",
    "open_lvlm",
]
