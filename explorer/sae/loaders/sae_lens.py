"""SAELens: `cfg.json` beside `sae_weights.safetensors`, of versions 6 and before, trained or in training.

Formulas after `sae_lens.saes` (PyPI sae-lens 6.54.12), older settings after its `handle_pre_6_0_config`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.loaders import fold
from explorer.sae.loaders.found import Found, flag, need, number, text, told, whole
from explorer.sae.loaders.reading import read_config, read_weights
from explorer.sae.loaders.sites import block_of
from explorer.sae.model import SAE, ActivationRule
from explorer.sae.scaling import Scaling

NAME = "SAELens"
HINTS = ("scaling_factor", "top_k")
WEIGHTS = "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
"""What a checkpoint of a training run holds beside the weights, of the scaling of its inputs."""

CLASSES = {
    "standard": "StandardSAE",
    "gated": "GatedSAE",
    "jumprelu": "JumpReLUSAE",
    "topk": "TopKSAE",
    "abstopk": "AbsTopKSAE",
    "batchtopk": "BatchTopKTrainingSAE",
    "matryoshka_batchtopk": "MatryoshkaBatchTopKTrainingSAE",
}
"""The architectures that are read, and SAELens' names of their classes."""
REFUSED = {
    **dict.fromkeys(
        ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder", "clt"),
        "predicts the output of a layer from its input; it does not encode one place of the model",
    ),
    "temporal": "attends to earlier tokens; its activations do not follow from one vector",
    "matching_pursuit": "searches for its activations step by step; they are no function of W_enc",
    "crosscoder": "reads several layers at once",
}
RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
    "uses_scaling_factor": "finetuning_scaling_factor",
}
"""Keys of versions before 6, and what they were called last."""
RESCALED = ("topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
"""Architectures that may multiply activations by the lengths of their decoder rows."""
SCALINGS = {
    "layer_norm": Scaling("layer_norm", eps=1e-5, ddof=1),
    "constant_norm_rescale": Scaling("constant_norm"),
}
"""Normalisations of each vector by itself."""
EXPECTED = {
    "expected_average_only_in": "this SAE was trained on vectors times a number that gave them a mean length "
    "of sqrt(d); the number is not in its files, so it reads vectors as they are: pass it as the hint "
    "scaling_factor",
    "covariance_whitening": "this SAE was trained on whitened vectors; the whitening is not in its files, so "
    f"it reads vectors as they are: {WHITENING} belongs beside the weights",
}
"""Normalisations whose figures SAELens keeps apart from the weights until training ends, and what to say
when they are missing."""


def claims(found: Found) -> bool:
    """Whether the weight file or the settings beside it are named as SAELens names them."""
    config = found.config
    sized = {"d_in", "d_sae"} <= config.keys() and not {"layer_subtype", "cls_token_only"} & config.keys()
    said = {"architecture", "apply_b_dec_to_input", "hook_name", "hook_point", "metadata"} & config.keys()
    return found.weights.name == WEIGHTS or bool(sized and said)


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE. hints: "scaling_factor", the number that the vectors were multiplied by in training, where the
    files do not hold it; "top_k", where they do not say how many activations stay.

    Raises SAEError for settings that SAELens does not have or that are not read, and for tensors that do not
    fit them; warns when the SAE expects inputs scaled by figures that are not in the files.
    """
    config = _settings(found)
    architecture = config["architecture"]
    tensors, dims = _tensors(found, config)
    rescaled = architecture in RESCALED and flag(config, "rescale_acts_by_decoder_norm", False)
    weights, rule = _folded(tensors, config, hints)
    if not flag(config, "apply_b_dec_to_input", True):
        weights = weights.uncentred()
    facts = _facts(config)
    inputs = config["normalize_activations"]
    factor = _factor(found, inputs, hints)
    if factor is not None:
        weights = weights.factored(factor)
        facts["scaling_factor"] = factor
        if rescaled and rule.kind == "jumprelu":
            rule = ActivationRule("jumprelu", rule.threshold / factor, rule.k)
    if rescaled:
        weights = weights.unit_rows()
    whitening = _whitening(found, inputs, dims["d"])
    if whitening:
        weights = weights.whitened(*whitening)
    if inputs in EXPECTED and factor is None and whitening is None:
        facts["warning"] = EXPECTED[inputs]
        warnings.warn(f"{found.weights}: {EXPECTED[inputs]}", stacklevel=2)
    return SAE(
        *weights,
        rule=rule,
        group_sizes=_group_sizes(config, dims["F"]),
        site_block=_block(config),
        facts=facts,
        scaling=SCALINGS.get(inputs),
    )


def _settings(found: Found) -> dict[str, Any]:
    """The settings with version 6's names. Raises SAEError for what is unknown or not read."""
    if not found.config:
        raise SAEError(f"there is no cfg.json beside {found.weights.name}; SAELens writes one: put it there")
    config = dict(found.config)
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise SAEError(f"metadata is {metadata!r:.80}; expected an object")
    version = text(config, "sae_lens_version") or text(metadata, "sae_lens_version") or "0"
    major = version.split(".")[0]
    config = config | {"metadata": metadata} if major.isdigit() and int(major) > 5 else _modern(config)
    architecture = text(config, "architecture")
    if architecture not in CLASSES:
        why = REFUSED.get(architecture or "", "is not known")
        raise SAEError(f"the architecture {architecture!r} {why}; expected one of {', '.join(CLASSES)}")
    skips = [name for name in found.tensors if name.startswith("W_skip")]
    if skips:
        raise SAEError(f"it has {skips[0]}: a transcoder {REFUSED['transcoder']}; expected an autoencoder")
    if (text(config, "reshape_activations") or "none") != "none":
        raise SAEError(
            f"reshape_activations is {config['reshape_activations']!r}: it reads the outputs of attention "
            f"heads side by side, not the vectors between blocks; expected 'none'"
        )
    inputs = config.get("normalize_activations")
    if isinstance(inputs, bool):
        inputs = "expected_average_only_in" if inputs else "none"
    if inputs not in (None, "none", *SCALINGS, *EXPECTED):
        known = ", ".join(("none", *SCALINGS, *EXPECTED))
        raise SAEError(f"normalize_activations is {inputs!r:.80}; expected one of {known}")
    return config | {"normalize_activations": inputs or "none"}


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a version before 6 as version 6 has them."""
    config = {RENAMED.get(key, key): value for key, value in config.items()}
    architecture = text(config, "architecture") or "standard"
    activation = text(config, "activation_fn") or "relu"
    arguments = config.get("activation_fn_kwargs") or {}
    if not isinstance(arguments, dict):
        raise SAEError(f"activation_fn_kwargs is {arguments!r:.80}; expected an object")
    if activation not in ("relu", "topk") or (
        activation == "topk" and architecture not in ("standard", "topk")
    ):
        raise SAEError(
            f"the activation function is {activation!r:.80} in the architecture {architecture!r}; expected "
            f"'relu', or 'topk' in 'standard' or 'topk'"
        )
    if arguments.get("signed"):
        raise SAEError(
            "activation_fn_kwargs has signed = true, which SAELens does not know; expected k alone"
        )
    if activation == "topk":
        architecture = "topk"
    if "k" in arguments and architecture == "topk":
        config["k"] = arguments["k"]
    hook = text(config, "hook_name") or ""
    reshaped = "hook_z" if "hook_z" in hook else "none"
    known = {key: config[key] for key in ("model_name", "hook_name", "dataset_path") if key in config}
    return {"reshape_activations": reshaped} | config | {"architecture": architecture, "metadata": known}


def _tensors(found: Found, config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors of the architecture and their sizes d and F."""
    architecture = config["architecture"]
    shapes = {"W_enc": "d F", "W_dec": "F d", "b_dec": "d"}
    if architecture == "gated":
        shapes |= {"b_gate": "F", "b_mag": "F", "r_mag": "F"}
    else:
        shapes["b_enc"] = "F"
    if architecture == "jumprelu":
        logarithms = found.has("log_threshold") and not found.has("threshold")
        shapes["log_threshold" if logarithms else "threshold"] = "F"
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        shapes["topk_threshold"] = ""
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if found.has(name):
            shapes[name] = "F"
    known = {
        letter: whole(config, key)
        for letter, key in (("d", "d_in"), ("F", "d_sae"))
        if config.get(key) is not None
    }
    return need(found.tensors, shapes, known, infinite=("threshold", "log_threshold"))


def _folded(
    tensors: dict[str, Tensor], config: dict[str, Any], hints: Mapping[str, object]
) -> tuple[fold.Weights, ActivationRule]:
    """The weights as for vectors that b_dec is taken off, and the rule in the units of their p."""
    architecture = config["architecture"]
    if "top_k" in hints and architecture not in ("topk", "abstopk"):
        raise SAEError(f"the hint top_k does not fit the architecture {architecture!r}; expected none")
    W_dec = tensors["W_dec"]
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors and not torch.allclose(tensors[name], torch.ones(())):
            if not flag(config, "finetuning_scaling_factor", False):
                raise SAEError(f"{name} is not 1 but finetuning_scaling_factor is not true; expected both")
            W_dec = W_dec * tensors[name][:, None]
    if architecture == "gated":
        W_enc, b_enc, rule = fold.gated(*(tensors[name] for name in ("W_enc", "b_gate", "b_mag", "r_mag")))
        return fold.Weights(W_enc, b_enc, W_dec, tensors["b_dec"]), rule
    weights = fold.Weights(tensors["W_enc"], tensors["b_enc"], W_dec, tensors["b_dec"])
    if architecture == "standard":
        return weights, ActivationRule("relu")
    if architecture in ("topk", "abstopk"):
        return weights, ActivationRule(architecture, k=told(config, "k", hints, "top_k", len(W_dec)))
    if architecture == "jumprelu":
        bars = tensors["log_threshold"].exp() if "log_threshold" in tensors else tensors["threshold"]
        return weights, ActivationRule("jumprelu", fold.thresholds(bars), _mean_k(config))
    return weights, ActivationRule("jumprelu", tensors["topk_threshold"].item(), _mean_k(config))


def _training(config: dict[str, Any], key: str) -> Any:
    """A setting of the training, from the settings or from what an export keeps of them; None if unknown."""
    details = config["metadata"].get("training_architecture_details")
    kept = details.get(key) if isinstance(details, dict) else None
    return config.get(key, kept)


def _mean_k(config: dict[str, Any]) -> int:
    """How many activations were meant to stay on average; 0 if unknown or no whole number."""
    k = _training(config, "k")
    whole_number = type(k) is int or (type(k) is float and k.is_integer())
    return int(k) if whole_number and k > 0 else 0


def _group_sizes(config: dict[str, Any], n_neurons: int) -> tuple[int, ...]:
    """The Matryoshka groups, also of an SAE that was exported as "jumprelu"; () for another."""
    trained = config["metadata"].get("training_architecture", config["architecture"])
    if "matryoshka_batchtopk" not in (trained, config["architecture"]):
        return ()
    return fold.groups(_training(config, "matryoshka_widths"), n_neurons)


def _factor(found: Found, inputs: str, hints: Mapping[str, object]) -> float | None:
    """The number that vectors were multiplied by in training, None if there is none or it is not known."""
    if inputs != "expected_average_only_in":
        if "scaling_factor" in hints:
            raise SAEError(
                f"the hint scaling_factor does not fit: normalize_activations is {inputs!r}, so this SAE "
                f"takes vectors as they are"
            )
        return None
    factor = hints.get("scaling_factor")
    path = found.folder / SCALER
    if factor is None and path.is_file():
        scaler = read_config(path)
        if "scaling_factor" not in scaler:
            raise SAEError(f"{path} does not hold a scaling_factor; remove it or repair it")
        factor = scaler["scaling_factor"]
    if factor is None:
        return None
    return number({"scaling_factor": factor}, "scaling_factor", positive=True)


def _whitening(found: Found, inputs: str, width: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """The mean, matrix and inverse of the whitening in a training checkpoint; None if there is none."""
    path = found.folder / WHITENING
    if inputs != "covariance_whitening" or not path.is_file():
        return None
    shapes = {"mean": "d", "matrix": "d d", "inverse_matrix": "d d"}
    ready, _ = need(read_weights(path).tensors, shapes, {"d": width})
    return ready["mean"], ready["matrix"], ready["inverse_matrix"]


def _block(config: dict[str, Any]) -> int | None:
    """The block whose output it reads, if the hook's name leaves no doubt."""
    heads = (config.get("hook_head_index"), config["metadata"].get("hook_head_index"))
    return None if any(head is not None for head in heads) else block_of(config["metadata"].get("hook_name"))


def _facts(config: dict[str, Any]) -> dict[str, Any]:
    """What the settings tell of the SAE, as JSON values."""
    metadata = config["metadata"]
    facts = {
        "format": NAME,
        "project": "decoderesearch/SAELens",
        "class": CLASSES[config["architecture"]],
        "model": text(metadata, "model_name"),
        "hook": text(metadata, "hook_name"),
        "normalize_activations": config["normalize_activations"],
    }
    trained = text(metadata, "training_architecture")
    return facts if trained is None else facts | {"trained_as": trained}
