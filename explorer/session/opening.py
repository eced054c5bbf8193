"""Opens the model and the SAE that a choice names, on one device, so that they fit together."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

from explorer.errors import SAEError
from explorer.sae import SAE, load_sae
from explorer.session.site import site_block
from explorer.vlm import LVLM, open_lvlm
from explorer.vlm.loading import Choice, Tell, silent
from explorer.vlm.loading.identity import weights_digest

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED_MODEL = ROOT / "assets" / "lvlm"
EMBEDDED_SAE = ROOT / "assets" / "sae" / "sae.safetensors"


class Parts(NamedTuple):
    """An opened model and SAE."""

    lvlm: LVLM
    sae: SAE


def open_parts(choice: Choice, tell: Tell = silent, sae: SAE | None = None) -> Parts:
    """The model and the SAE, which lies on the device of the model's vision side.

    sae: that of the choice, if it is open already. tell: hears what memory a large model needs, which block
    is taken where that is not plain, and what of the SAE may not fit. Raises ModelError or SAEError when they
    cannot be opened or do not belong together.
    """
    sae = open_sae(choice, tell) if sae is None else sae
    size = sum(weight.numel() * weight.element_size() for weight in sae.parameters())
    lvlm = open_lvlm(choice.model or EMBEDDED_MODEL, loading=choice, beside=size, tell=tell)
    _settle_block(lvlm, sae, choice.block, tell)
    if sae.tokens == "cls":
        tell(
            "warning: the SAE was trained on the class token alone; here it reads patches, where its neurons "
            "may mean something else"
        )
    if sae.rule.negatives:
        tell(
            "note: activations of this SAE may be below 0: edits act on them, but lists, statistics and "
            "stores, and so the always-on neurons, count those above 0 only"
        )
    if (named := sae.facts.get("model")) and named != lvlm.model_id:
        tell(
            f"note: the SAE's files name the model {named!s:.80}; nothing tells whether {lvlm.model_id} sees "
            "with the same vision tower"
        )
    return Parts(lvlm, sae.to(lvlm.model.device))


def is_embedded(model_id: str) -> bool:
    """Whether a model is the one that ships with the program, by its weights, wherever they lie."""
    return model_id.rpartition("@")[2] == _embedded_weights()


@cache
def _embedded_weights() -> str:
    """The part of the embedded model's id that follows its weights; "-" where it is not there."""
    return weights_digest(EMBEDDED_MODEL)[:12] if EMBEDDED_MODEL.is_dir() else "-"


def open_sae(choice: Choice, tell: Tell = silent) -> SAE:
    """The SAE alone, on the CPU. tell: hears what its files warn of, in the place of Python's warnings.

    Raises SAEError.
    """
    with warnings.catch_warnings():
        if tell is not silent:
            warnings.filterwarnings("ignore", category=UserWarning, module=r"explorer\.sae\b")
        sae = load_sae(choice.sae or EMBEDDED_SAE, hints=choice.hints, revision=choice.sae_revision)
    if warned := sae.facts.get("warning"):
        tell(f"warning: {warned}")
    return sae


def _settle_block(lvlm: LVLM, sae: SAE, block: int | None, tell: Tell) -> None:
    """Make the SAE name the block that it is to read, which is then checked wherever it is used."""
    if block is not None:
        if isinstance(block, bool) or not isinstance(block, int):
            raise SAEError(f"the block must be a whole number, counted from 0, not {block!r}")
        if sae.site_block not in (None, block):
            tell(f"warning: the SAE says that it reads block {sae.site_block}; --block {block} overrides it")
        sae.site_block = block
    elif sae.site_block is None and not sae.facts.get("hook"):
        tell(
            f"note: the SAE does not say which block it reads: block {lvlm.read_block} is taken, which the "
            "language model reads; --block names another"
        )
    site_block(lvlm, sae)
