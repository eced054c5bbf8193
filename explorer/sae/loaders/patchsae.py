"""PatchSAE (dynamical-inference/patchsae): one pickle of {"cfg" or "config", "state_dict"}.

    z = ReLU((x - b_dec) W_enc + b_enc)    x_hat = z W_dec + b_dec

The configuration is an object of one class of the project, which is read as an inert record, or a plain dict.
It names the model and the block of its vision tower (negative ones count from the end), and whether the class
token alone was used; all tokens were otherwise. A gated one was never finished there and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from explorer.errors import SAEError
from explorer.sae.loaders.fold import Weights
from explorer.sae.loaders.found import Found, need, text, whole
from explorer.sae.model import SAE
from explorer.sae.rules import ActivationRule

NAME = "PatchSAE"
HINTS: tuple[str, ...] = ()
INERT = frozenset(
    f"{folder}sae_training.config.{name}"
    for folder in ("src.", "")
    for name in ("ViTSAERunnerConfig", "Config")
)
SHAPES = {"W_enc": "d F", "b_enc": "F", "W_dec": "F d", "b_dec": "d"}
BLOCKS = {"openai/clip-vit-base-": 12, "openai/clip-vit-large-": 24}
"""How many blocks the vision towers have that the project trains on, by how their names begin."""


def claims(found: Found) -> bool:
    """Whether the record in the weight file is of the project's class, or names a block as that does."""
    record = found.record or {}
    return found.record_class in INERT or {"block_layer", "module_name", "d_in"} <= record.keys()


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE. Raises SAEError for a gated one, and for sizes that the record and the tensors differ in."""
    record = found.record
    if record is None:
        raise SAEError(f"it has no configuration; expected cfg and state_dict, found {found.listing()}")
    if record.get("gated_sae") or found.has("r_mag") or found.has("b_mag"):
        raise SAEError(
            "it is gated (gated_sae, r_mag, b_mag), which PatchSAE never finished; expected a plain one"
        )
    width = whole(record, "d_in")
    factor = "d_sae" if record.get("d_sae") is not None else "expansion_factor"
    neurons = whole(record, factor) * (1 if factor == "d_sae" else width)
    fitted = need(found.tensors, SHAPES, {"d": width, "F": neurons})
    weights = Weights(*(fitted.tensors[name] for name in SHAPES))
    facts = {
        "format": "patchsae",
        "project": "dynamical-inference/patchsae",
        "class": "SparseAutoencoder",
        "model": text(record, "model_name"),
        "hook": f"{record.get('module_name')} of block {record.get('block_layer')}",
        "tokens": "cls" if record.get("class_token") else "all",
    }
    return SAE(*weights, ActivationRule("relu"), site_block=_block(record), facts=facts)


def _block(record: Mapping[str, Any]) -> int | None:
    """The block whose output it reads; None if the record or the model's name does not tell."""
    block, model = record.get("block_layer"), record.get("model_name")
    if isinstance(block, bool) or not isinstance(block, int) or record.get("module_name") != "resid":
        return None
    if block >= 0:
        return block
    depth = next((blocks for start, blocks in BLOCKS.items() if str(model).startswith(start)), 0)
    return depth + block if depth + block >= 0 and depth else None
