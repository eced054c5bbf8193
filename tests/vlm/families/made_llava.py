"""LLaVA-1.5 in small: CLIP with a CLS token, and SigLIP without one."""

from __future__ import annotations

from explorer.vlm.adapter import Adapter
from explorer.vlm.synthetic import Shape, random_llava

SMALL = Shape(32, 8, 4, 64, 128, 2, 64, 128, 100)


def clip() -> Adapter:
    """Reads the last block but one, as LLaVA-1.5 does."""
    return random_llava(SMALL)


MADE = {"clip": clip}
