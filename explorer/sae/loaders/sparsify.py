"""EleutherAI's sparsify, and multimodal-sae, which grew from it: `cfg.json` beside `sae.safetensors`, in a
folder that is named after the module whose output the SAE reads.

Formulas after `sparsify.sparse_coder` and `sparsify.fused_encoder`; `signed` after the `sae` package of 2024.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from explorer.errors import SAEError
from explorer.sae.loaders import fold
from explorer.sae.loaders.found import Found, flag, need, text, told, whole
from explorer.sae.loaders.sites import block_of
from explorer.sae.model import SAE, ActivationRule

NAME = "sparsify"
HINTS = ("top_k",)
WEIGHTS = "sae.safetensors"
SHAPES = {"encoder.weight": "F d", "encoder.bias": "F", "W_dec": "F d", "b_dec": "d"}
ACTIVATIONS = ("topk", "groupmax")
COMMIT = r"[0-9a-f]{40}"
"""The name of a folder of the hub's cache, which says nothing of the place."""
REFUSED = {
    "transcode": "a transcoder predicts a module's output from its input; it does not encode one place",
    "skip_connection": "a linear path past the activations adds to what they decode to",
    "embed_skip": "what it decodes to needs the token embeddings too",
    "gram_lookup": "a table of token n-grams is taken off its input",
}
"""Settings under which the SAE is no function of the vectors at one place, and why."""


def claims(found: Found) -> bool:
    """Whether the tensors are named as sparsify names them, or the settings and the file are."""
    config = found.config
    settings = "k" in config and bool({"num_latents", "expansion_factor"} & config.keys())
    return found.has("encoder.weight", "W_dec") or (settings and found.weights.name == WEIGHTS)


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE. hints: "top_k", how many activations stay, where no cfg.json says k (it is taken for a plain
    autoencoder with the activation "topk" then).

    Raises SAEError for transcoders and settings that are not known, and for tensors that do not fit them.
    """
    config = found.config
    for key, why in REFUSED.items():
        if flag(config, key, False):
            raise SAEError(f"{key} is true: {why}; expected an SAE without it")
    skips = [name for name in found.tensors if "skip" in name]
    if skips:
        raise SAEError(f"it has {skips[0]}: {REFUSED['skip_connection']}; expected {', '.join(SHAPES)}")
    tensors, dims = need(found.tensors, SHAPES, _sizes(config))
    weights = fold.Weights(
        tensors["encoder.weight"].T.contiguous(), tensors["encoder.bias"], tensors["W_dec"], tensors["b_dec"]
    )
    facts = _facts(found)
    return SAE(
        *weights,
        rule=_rule(config, hints, dims["F"]),
        site_block=block_of(facts["hook"]),
        facts=facts,
    )


def _sizes(config: dict[str, Any]) -> dict[str, int]:
    """What the settings say of the width d and the number of neurons F."""
    if config.get("d_in") is None:
        return {}
    width = whole(config, "d_in")
    latents = whole({"num_latents": 0} | config, "num_latents", 0)
    if latents or config.get("expansion_factor") is None:
        return {"d": width} | ({"F": latents} if latents else {})
    return {"d": width, "F": width * whole(config, "expansion_factor")}


def _rule(config: dict[str, Any], hints: Mapping[str, object], n_neurons: int) -> ActivationRule:
    """The activation rule that the settings name."""
    k = told(config, "k", hints, "top_k", n_neurons)
    activation = config.get("activation", "topk")
    if activation not in ACTIVATIONS:
        raise SAEError(f"the activation is {activation!r:.80}; expected one of {', '.join(ACTIVATIONS)}")
    if not flag(config, "signed", False):
        return ActivationRule(activation, k=k)
    if activation != "topk" or "multi_topk" in config:
        raise SAEError(
            "signed is true beside a newer setting: sparsify of 2024 keeps signs, multimodal-sae does not; "
            "expected signed = true in the settings of 2024 alone, without multi_topk"
        )
    return ActivationRule("abstopk", k=k)


def _facts(found: Found) -> dict[str, Any]:
    """What the files tell of the SAE, as JSON values: the folder's name is the hook.

    A run with several seeds keeps a folder for each of them below it.
    """
    folder = found.folder.parent if re.fullmatch(r"seed\d+", found.folder.name) else found.folder
    run = _run(folder.parent / "config.json")
    multimodal = "signed" in found.config and "multi_topk" in found.config
    return {
        "format": NAME,
        "project": "EvolvingLMMs-Lab/multimodal-sae" if multimodal else "EleutherAI/sparsify",
        "class": "Sae" if "activation" not in found.config else "SparseCoder",
        "model": text(run, "model"),
        "hook": None if re.fullmatch(COMMIT, folder.name) else folder.name,
    }


def _run(path: Path) -> dict[str, Any]:
    """The settings of the training run, which sparsify keeps one folder up; {} if they are not there."""
    try:
        run = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}
