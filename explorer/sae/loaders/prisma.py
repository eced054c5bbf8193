"""ViT-Prisma: a .pt file of weights and settings, or of weights alone with `config.json` beside it.

Formulas after `vit_prisma.sae.sae`; settings are those of `vit_prisma.sae.config.VisionModelSAERunnerConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from explorer.errors import SAEError
from explorer.sae.loaders import fold
from explorer.sae.loaders.found import Found, flag, need, number, text, whole
from explorer.sae.loaders.sites import block_of
from explorer.sae.model import SAE, ActivationRule
from explorer.sae.scaling import Scaling

NAME = "ViT-Prisma"
HINTS = ("normalize_activations",)
INERT = frozenset({"vit_prisma.sae.config.VisionModelSAERunnerConfig"})
MARKS = ("layer_subtype", "cls_token_only", "use_patches_only", "vit_model_cfg")
"""Settings that ViT-Prisma alone has."""
SCALINGS = {
    None: Scaling(),
    "none": Scaling(),
    "expected_average_only_in": Scaling(),
    "layer_norm": Scaling("layer_norm", eps=1e-5, ddof=1),
    "constant_norm_rescale": Scaling("constant_norm"),
}
"""What each `normalize_activations` does; ViT-Prisma has no more than a name for the third."""
SHAPES = {"W_enc": "d F", "b_enc": "F", "W_dec": "F d", "b_dec": "d"}
GATES = {"b_gate": "F", "b_mag": "F", "r_mag": "F"}
TRANSCODER = "a transcoder predicts a layer's output from its input; it does not encode one place"


def claims(found: Found) -> bool:
    """Whether the settings, in the file or beside it, are ViT-Prisma's."""
    settings = _settings(found)
    if found.record_class is not None and found.record_class not in INERT:
        return False
    return found.has("W_enc", "W_dec") and "d_in" in settings and any(key in settings for key in MARKS)


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE. hints: "normalize_activations", where the settings of an old file do not say it.

    Raises SAEError for settings that are not known, and for tensors that do not fit them.
    """
    config = {**hints, **_settings(found)}
    if flag(config, "is_transcoder", False):
        raise SAEError(f"is_transcoder is true: {TRANSCODER}; expected an SAE")
    architecture = text(config, "architecture") or ("gated" if found.has("b_gate") else "standard")
    if architecture not in ("standard", "vanilla", "gated"):
        raise SAEError(f"the architecture is {architecture!r:.80}; expected standard, vanilla or gated")
    scaling = _scaling(config)
    shapes = SHAPES | (GATES if architecture == "gated" else {})
    tensors, dims = need(found.tensors, shapes, _sizes(config))
    weights = fold.Weights(*(tensors[name] for name in SHAPES))
    rule = _rule(config, dims["F"])
    if architecture == "gated":
        if rule.kind != "relu":
            raise SAEError(
                "the activation function of a gated SAE is 'topk', which ranks the neurons before the gate "
                "closes some of them; this is not read, expected 'relu'"
            )
        W_enc, b_enc, rule = fold.gated(*(tensors[name] for name in ("W_enc", *GATES)))
        weights = weights._replace(W_enc=W_enc, b_enc=b_enc)
    return SAE(
        *weights,
        rule=rule,
        site_block=_block(config),
        facts=_facts(config, architecture),
        scaling=scaling,
    )


def _settings(found: Found) -> dict[str, Any]:
    """The settings: those in the weight file, as ViT-Prisma prefers them, else those beside it."""
    return found.record if found.record is not None else found.config


def _sizes(config: dict[str, Any]) -> dict[str, int]:
    """What the settings say of the width d and the number of neurons F."""
    width = whole(config, "d_in")
    if isinstance(config.get("expansion_factor"), list | None):
        return {"d": width}
    return {"d": width, "F": round(width * number(config, "expansion_factor", positive=True))}


def _rule(config: dict[str, Any], n_neurons: int) -> ActivationRule:
    """The activation rule that the settings name."""
    activation = text(config, "activation_fn_str") or "relu"
    arguments = config.get("activation_fn_kwargs") or {}
    if not isinstance(arguments, dict):
        raise SAEError(f"activation_fn_kwargs is {arguments!r:.80}; expected an object")
    if activation not in ("relu", "topk"):
        raise SAEError(f"the activation function is {activation!r:.80}; expected 'relu' or 'topk'")
    if activation == "relu":
        return ActivationRule("relu")
    if "postact_fn" in arguments:
        raise SAEError("activation_fn_kwargs has postact_fn, which is not read; expected k alone, for ReLU")
    return ActivationRule("topk", k=whole(arguments, "k", most=n_neurons))


def _scaling(config: dict[str, Any]) -> Scaling:
    """The scaling of the input that the settings name."""
    if "normalize_activations" not in config:
        raise SAEError(
            "the settings do not say normalize_activations: pass what was used, as in "
            "hints={'normalize_activations': 'none'}"
        )
    name = text(config, "normalize_activations")
    if name not in SCALINGS:
        known = ", ".join(key for key in SCALINGS if key)
        raise SAEError(f"normalize_activations is {name!r:.80}; expected one of {known}")
    return SCALINGS[name]


def _layer(config: dict[str, Any]) -> int | None:
    """The one layer that it was trained on; None if there are several or none is named."""
    layer = config.get("hook_point_layer")
    if isinstance(layer, list | tuple) and len(layer) == 1:
        layer = layer[0]
    return layer if type(layer) is int and layer >= 0 else None


def _hook(config: dict[str, Any]) -> str | None:
    """The name of the place that it reads, as ViT-Prisma makes it of two settings."""
    layer, subtype = _layer(config), text(config, "layer_subtype")
    return text(config, "hook_point") if layer is None or not subtype else f"blocks.{layer}.{subtype}"


def _block(config: dict[str, Any]) -> int | None:
    """The block whose output it reads; None for a place inside a block or a single head."""
    return block_of(_hook(config)) if config.get("hook_point_head_index") is None else None


def _tokens(config: dict[str, Any]) -> str | None:
    """The tokens that it was trained on. Raises SAEError when it says both kinds of "only"."""
    if flag(config, "cls_token_only", False) and flag(config, "use_patches_only", False):
        raise SAEError("both cls_token_only and use_patches_only are true; expected one of them at most")
    if "cls_token_only" not in config:
        return "patches" if flag(config, "use_patches_only", False) else None
    if flag(config, "cls_token_only", False):
        return "cls"
    return "patches" if flag(config, "use_patches_only", False) else "all"


def _facts(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    """What the settings tell of the SAE, as JSON values."""
    return {
        "format": NAME,
        "project": "Prisma-Multimodal/ViT-Prisma",
        "class": "GatedSparseAutoencoder" if architecture == "gated" else "StandardSparseAutoencoder",
        "model": text(config, "model_name"),
        "hook": _hook(config),
        "tokens": _tokens(config),
        "normalize_activations": config["normalize_activations"],
    }
