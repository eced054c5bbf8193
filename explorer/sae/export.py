"""Writes an SAE in the format of another project, so that its tools can use it: SAELens.

A folder with `cfg.json` and `sae_weights.safetensors`, as `sae_lens.saes` of version 6.54 reads them. The
formulas of the two agree, so the activations do. Knows nothing of models; reading is `loaders.sae_lens`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.files import replacing
from explorer.sae.model import SAE
from explorer.sae.rules import ActivationRule
from explorer.sae.scaling import Scaling

VERSION = "6.54.12"
"""Of SAELens: the settings are written as this version does."""
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
EPS = 1e-5
"""What SAELens adds to the deviation when it normalises layers."""


class Rule(NamedTuple):
    """SAELens' name for an activation rule, further settings, and further tensors."""

    architecture: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor]


def to_saelens(sae: SAE, folder: str | Path) -> list[Path]:
    """Write the SAE as SAELens does; the files that were written.

    Raises SAEError for a rule or a scaling that SAELens does not know, for a folder that holds such files
    already, and when nothing can be written there.
    """
    out = Path(folder)
    rule, inputs = _rule(sae), _inputs(sae)
    paths = [out / WEIGHTS, out / CONFIG]
    if out.exists() and not out.is_dir():
        raise SAEError(f"{out} is a file; name a folder to write {CONFIG} and {WEIGHTS} to")
    if there := [path.name for path in paths if path.exists()]:
        raise SAEError(f"{out} holds {' and '.join(there)} already; name a new folder")
    config = {
        "d_in": sae.width,
        "d_sae": sae.n_neurons,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": inputs,
        "reshape_activations": "none",
        "metadata": _metadata(sae),
        "architecture": rule.architecture,
        **rule.settings,
    }
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")} | rule.tensors
    ready = {name: tensor.detach().cpu().float().contiguous().clone() for name, tensor in weights.items()}
    try:
        with replacing(paths[0]) as part:
            save_file(ready, part)
        with replacing(paths[1]) as part:
            part.write_text(json.dumps(config, indent=1), encoding="utf-8")
    except SAEError as error:
        why = getattr(error.__cause__, "strerror", None) or error.__cause__ or error
        raise SAEError(f"cannot write in {out}: {why}; name another folder") from error
    return paths


def _rule(sae: SAE) -> Rule:
    """The activation rule as SAELens has it."""
    rule = sae.rule
    if rule.kind == "relu":
        return Rule("standard", {}, {})
    if rule.kind == "jumprelu":
        return Rule("jumprelu", {}, {"threshold": _thresholds(rule, sae.n_neurons)})
    if rule.kind in ("topk", "abstopk") and not rule.signed:
        return Rule(rule.kind, {"k": rule.k, "rescale_acts_by_decoder_norm": False}, {})
    name = "signed topk" if rule.signed else rule.kind
    raise SAEError(f"SAELens has no activation rule like {name!r}; it has relu, jumprelu, topk and abstopk")


def _thresholds(rule: ActivationRule, n_neurons: int) -> Tensor:
    """What each neuron's pre-activation must exceed, [F] float32."""
    bars = torch.as_tensor(rule.threshold, dtype=torch.float32).detach().cpu().expand(n_neurons).clone()
    if rule.inclusive:  # p >= t is p > the number before t
        bars = torch.nextafter(bars, torch.tensor(-math.inf))
    return bars.clamp_min(0.0)


def _inputs(sae: SAE) -> str:
    """SAELens' name for the scaling of the input."""
    scaling = sae.scaling
    if not scaling:
        return "none"
    if scaling == Scaling("layer_norm", eps=EPS, ddof=1, norm=scaling.norm):
        return "layer_norm"
    root = math.sqrt(sae.width)
    if scaling.kind == "constant_norm" and math.isclose(scaling.norm or root, root, rel_tol=1e-6):
        return "constant_norm_rescale"
    raise SAEError(
        f"SAELens cannot scale vectors by {scaling.stated()}; it has layer_norm with eps {EPS} and ddof 1, "
        "and constant_norm with the norm sqrt(d)"
    )


def _metadata(sae: SAE) -> dict[str, Any]:
    """What is known of the SAE; SAELens keeps entries that it does not know."""
    known: dict[str, Any] = {"sae_lens_version": VERSION, "sae_lens_training_version": VERSION}
    model = sae.model_id or sae.facts.get("model")
    if model is not None:
        known |= {"model_name": model.rpartition("@")[0] or model, "model_id": model}
    if sae.site_block is not None:
        known["hook_name"] = f"vision_tower.layers.{sae.site_block}"
    if sae.tokens is not None:
        known["tokens"] = sae.tokens
    if len(sae.group_sizes) > 1:
        details: dict[str, Any] = {"matryoshka_widths": list(sae.boundaries)}
        if sae.rule.k:
            details["k"] = float(sae.rule.k)
        known |= {"training_architecture": "matryoshka_batchtopk", "training_architecture_details": details}
    for name in ("trained_on", "quality", "preserved"):
        if name in sae.facts:
            known[name] = sae.facts[name]
    return known
