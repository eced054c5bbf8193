"""Large vision-language models behind one seam: `open_lvlm` gives an `LVLM`, whatever its family."""

from explorer.vlm.base import LVLM, Cancel, Prepared
from explorer.vlm.opening import FAMILIES, open_lvlm

__all__ = ["FAMILIES", "LVLM", "Cancel", "Prepared", "open_lvlm"]
