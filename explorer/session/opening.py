"""Opens the model and the SAE that a choice names, on one device, so that they fit together."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from explorer.sae import SAE, load_sae
from explorer.session.site import site_block
from explorer.vlm import LVLM, open_lvlm
from explorer.vlm.loading import Choice, Tell, silent

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED_MODEL = ROOT / "assets" / "lvlm"
EMBEDDED_SAE = ROOT / "assets" / "sae" / "sae.safetensors"


class Parts(NamedTuple):
    """An opened model and SAE."""

    lvlm: LVLM
    sae: SAE


def open_parts(choice: Choice, tell: Tell = silent) -> Parts:
    """The model and the SAE, which lies on the device of the model's vision side.

    tell: hears what memory a large model needs, and which block is taken where that is not plain. Raises
    ModelError or SAEError when they cannot be opened or do not belong together.
    """
    sae = open_sae(choice)
    size = sum(weight.numel() * weight.element_size() for weight in sae.parameters())
    lvlm = open_lvlm(choice.model or EMBEDDED_MODEL, loading=choice, beside=size, tell=tell)
    _settle_block(lvlm, sae, choice.block, tell)
    return Parts(lvlm, sae.to(lvlm.model.device))


def open_sae(choice: Choice) -> SAE:
    """The SAE alone, on the CPU. Raises SAEError."""
    return load_sae(choice.sae or EMBEDDED_SAE, hints=choice.hints, revision=choice.sae_revision)


def _settle_block(lvlm: LVLM, sae: SAE, block: int | None, tell: Tell) -> None:
    """Make the SAE name the block that it is to read, which is then checked wherever it is used."""
    if block is not None:
        if sae.site_block not in (None, block):
            tell(f"warning: the SAE says that it reads block {sae.site_block}; --block {block} overrides it")
        sae.site_block = block
    elif sae.site_block is None:
        tell(
            f"note: the SAE does not say which block it reads: block {lvlm.read_block} is taken, which the "
            "language model reads; --block names another"
        )
    site_block(lvlm, sae)
