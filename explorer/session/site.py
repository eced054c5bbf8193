"""Whether an SAE belongs to a model, and where it sits in it."""

from __future__ import annotations

from explorer.errors import SAEError
from explorer.sae import SAE
from explorer.vlm.base import LVLM


def site_block(lvlm: LVLM, sae: SAE) -> int:
    """The block of the vision tower whose output the SAE reads: the one it names, else the read block.

    Raises SAEError when the SAE was trained on other weights or vectors of another width, or names a place
    that is no block's output; ModelError when its block does not exist or cannot matter to the text.
    """
    if sae.model_id is not None and _weights(sae.model_id) != _weights(lvlm.model_id):
        raise SAEError(
            f"the SAE was trained on the model {sae.model_id}, this one is {lvlm.model_id}; "
            "use an SAE that was trained on this model (--sae)"
        )
    if sae.site_block is None and (hook := sae.facts.get("hook")):
        raise SAEError(
            f"the SAE reads {str(hook)!r:.120}, its files say, which names no output of a block of a "
            "vision tower; if it is one, say which with --block N (in Python: sae.site_block = N), counted "
            "from 0"
        )
    block = lvlm.read_block if sae.site_block is None else sae.site_block
    width = lvlm.width(block)
    if width != sae.width:
        raise SAEError(
            f"the SAE takes vectors of width {sae.width}, but block {block} of {lvlm.model_id} gives "
            f"{width}; use an SAE that was trained on this model"
        )
    return block


def _weights(model_id: str) -> str:
    """The part of a model id that follows the weights, wherever the folder lies."""
    return model_id.rpartition("@")[2]
