"""SAEs of saprmarks/dictionary_learning: `ae.pt` beside a `config.json`, or `checkpoints/ae_STEP.pt`.

Biases and thresholds in these files are for raw vectors. Only what an interrupted run leaves in `ae.pt` (the
state dict under "ae", beside "step" and "norm_factor") still wants vectors divided by its norm_factor. The
classes and what their `encode` does by default:

    AutoEncoder              relu(W (x - b) + b_enc); its loader gives decoder rows length 1 and scales z
    AutoEncoderNew           relu(W x + b_enc), nothing subtracted
    GatedAutoEncoder         relu(exp(r) u + b_mag) where u + b_gate > 0, with u = W (x - b)
    JumpReluAutoEncoder      p where p > threshold [F], p = W x + b_enc, nothing subtracted
    AutoEncoderTopK          the k largest after ReLU; its threshold is for another mode and may be +inf
    BatchTopKSAE, Matryoshka what exceeds one threshold after ReLU; -1 means that it was never set

Source: dictionary_learning 0.1.0, dictionary.py, trainers/*.py, training.py. Some versions before 2025
multiplied z of gated and jump-ReLU SAEs by the norms of the decoder's rows; nothing in a file tells, and this
does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.loaders import fold
from explorer.sae.loaders.fold import Weights
from explorer.sae.loaders.found import Fitted, Found, flag, need, number, text, whole
from explorer.sae.model import SAE, ActivationRule

NAME = "dictionary_learning"
HINTS = ("dict_class", "k", "normalize_decoder", "apply_b_dec_to_input", "norm_factor")
PROJECT = "saprmarks/dictionary_learning"

LINEAR = {"encoder.weight": "F d", "decoder.weight": "d F"}
PLAIN = {"W_enc": "d F", "b_enc": "F", "W_dec": "F d", "b_dec": "d"}
SHAPES: dict[str, dict[str, str]] = {
    "AutoEncoder": {"bias": "d", "encoder.bias": "F", **LINEAR},
    "AutoEncoderNew": {"encoder.bias": "F", "decoder.bias": "d", **LINEAR},
    "GatedAutoEncoder": {"decoder_bias": "d", "r_mag": "F", "gate_bias": "F", "mag_bias": "F", **LINEAR},
    "JumpReluAutoEncoder": {**PLAIN, "threshold": "F"},
    "AutoEncoderTopK": {"b_dec": "d", "encoder.bias": "F", **LINEAR, "threshold": ""},
    "BatchTopKSAE": {"b_dec": "d", "encoder.bias": "F", **LINEAR, "threshold": ""},
    "MatryoshkaBatchTopKSAE": {**PLAIN, "threshold": ""},
}
"""The tensors of each class; some hold the whole numbers k and group_sizes besides."""
COUNTS = {"AutoEncoderTopK": {"k"}, "BatchTopKSAE": {"k"}, "MatryoshkaBatchTopKSAE": {"k", "group_sizes"}}
OPTIONAL = {"AutoEncoderTopK": {"threshold"}}
HOOK = re.compile(r"resid_(?P<end>pre|post)(?:_layer)?_?(?P<layer>\d{1,4})?")
"""Names of the stream before and after a block, with its number or without."""
UNLIKE = ("IdentityDict", "CrossCoder", "BatchTopKCrossCoder")
"""Classes of the project that are no autoencoders of one site."""


def claims(found: Found) -> bool:
    """Whether a configuration names one of the project's classes, or the keys are those of one."""
    return "dict_class" in trainer_of(found) or bool(_by_keys(found))


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE with the activations of the peer's default `encode`.

    hints: "dict_class" where no configuration names it; "k" where the files disagree or none says it;
    "normalize_decoder" (AutoEncoder: true as in the peer's loader); "apply_b_dec_to_input" (JumpReLU: false
    as in the peer); "norm_factor" for an interrupted run that does not hold it. Raises SAEError.
    """
    return build(found, hints, PROJECT)


def build(found: Found, hints: Mapping[str, object], project: str) -> SAE:
    """As `load`, for a project that shares these classes."""
    trainer = trainer_of(found)
    kind = _class_of(found, trainer, hints)
    dims = {
        key: whole(trainer, name, 1)
        for key, name in (("d", "activation_dim"), ("F", "dict_size"))
        if name in trainer
    }
    fitted = need(
        found.tensors,
        SHAPES[kind],
        dims,
        optional=OPTIONAL.get(kind, ()),
        ignored=COUNTS.get(kind, ()),
        infinite=("threshold",),
    )
    tensors = _raw(found, fitted, hints)
    n_neurons, facts = fitted.dims["F"], _facts(found, trainer, kind, project)
    groups: tuple[int, ...] = ()
    rule = ActivationRule("relu")
    if kind == "AutoEncoder":
        weights = _autoencoder(tensors, flag(hints, "normalize_decoder", True))
    elif kind == "AutoEncoderNew":
        weights = _linear(tensors, "decoder.bias").uncentred()
    elif kind == "GatedAutoEncoder":
        weights, rule = _gated(tensors)
    elif kind == "JumpReluAutoEncoder":
        weights = Weights(*(tensors[name] for name in PLAIN))
        weights = weights if flag(hints, "apply_b_dec_to_input", False) else weights.uncentred()
        rule = ActivationRule("jumprelu", tensors["threshold"])
    else:
        k, nested = _k(found, trainer, hints, n_neurons), kind == "MatryoshkaBatchTopKSAE"
        groups = _groups(found, trainer, n_neurons) if nested else ()
        weights = Weights(*(tensors[name] for name in PLAIN)) if nested else _linear(tensors, "b_dec")
        top = kind == "AutoEncoderTopK"
        rule = (
            ActivationRule("topk", k=k) if top else ActivationRule("jumprelu", float(tensors["threshold"]), k)
        )
    block = site_block(trainer, found.config.get("buffer"))
    return SAE(*weights, rule, group_sizes=groups, site_block=block, facts=facts)


def trainer_of(found: Found) -> Mapping[str, Any]:
    """The trainer's entries: of the weight file of an interrupted run, or of the configuration beside it."""
    inner = found.record if found.record and "dict_class" in found.record else found.config.get("trainer")
    return inner if isinstance(inner, Mapping) else {}


def site_block(trainer: Mapping[str, Any], buffer: object) -> int | None:
    """The block whose output was read, if the configuration says so without doubt."""
    layer, hook = trainer.get("layer"), HOOK.fullmatch(str(trainer.get("submodule_name") or ""))
    side = buffer.get("io", "out") if isinstance(buffer, Mapping) else "out"
    if hook is None or type(layer) is not int or side not in ("in", "out"):
        return None
    if hook["layer"] and int(hook["layer"]) != layer:
        return None
    block = layer - 1 if hook["end"] == "pre" or side == "in" else layer
    return block if block >= 0 else None


def _by_keys(found: Found) -> list[str]:
    """The classes that the names of the tensors allow."""
    names, fitting = set(found.tensors), []
    for kind, shapes in SHAPES.items():
        counts = COUNTS.get(kind, set())
        if set(shapes) <= names <= set(shapes) | counts and ("group_sizes" in counts) == (
            "group_sizes" in names
        ):
            fitting.append(kind)
    if fitting == ["JumpReluAutoEncoder"] and not found.weights.name.startswith("ae"):
        return []  # other projects use these names too, and subtract b_dec
    return fitting


def _class_of(found: Found, trainer: Mapping[str, Any], hints: Mapping[str, object]) -> str:
    """The class, by its name here. Raises SAEError when it is unknown or cannot be told."""
    said, given = text(trainer, "dict_class"), text(hints, "dict_class")
    if said and given and said != given:
        raise SAEError(f"the configuration says dict_class {said!r}, the hint {given!r}; leave the hint out")
    kind = said or given
    if kind is None:
        fitting = _by_keys(found)
        if len(fitting) == 1:
            return fitting[0]
        raise SAEError(
            "there is no config.json that names the class, and the tensors fit "
            f"{' and '.join(fitting) or 'none'}: put config.json beside it, or pass "
            f"hints={{'dict_class': ...}} with one of {', '.join(SHAPES)}"
        )
    if kind in UNLIKE:
        raise SAEError(f"a {kind} is no autoencoder of one site; expected one of {', '.join(SHAPES)}")
    known = kind.replace("Matroyshka", "Matryoshka")
    if known not in SHAPES:
        raise SAEError(f"unknown dict_class {kind!r:.80}; expected one of {', '.join(SHAPES)}")
    buffer = found.config.get("buffer")
    if isinstance(buffer, Mapping) and buffer.get("io") == "in_and_out":
        raise SAEError(
            "it was trained from a module's input to its output (io 'in_and_out'): a transcoder, no SAE"
        )
    return known


def _raw(found: Found, fitted: Fitted, hints: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors for raw vectors: those of an interrupted run with biases and thresholds scaled up."""
    if not {"step", "optimizer"} <= set(found.extra) and "norm_factor" not in {*found.extra, *hints}:
        return fitted.tensors
    said = {**found.extra, **hints}
    if said.get("norm_factor") is None:
        raise SAEError(
            "it was left by an interrupted run that does not say its norm_factor: pass "
            "hints={'norm_factor': ...} (1 if its activations were not normalised)"
        )
    factor = number(said, "norm_factor", positive=True)
    scaled = dict(fitted.tensors)
    for name, tensor in fitted.tensors.items():
        unset = name == "threshold" and tensor.ndim == 0 and bool(tensor < 0)
        if tensor.ndim < 2 and name != "r_mag" and not unset:
            scaled[name] = tensor * factor
    return scaled


def _linear(tensors: Mapping[str, Tensor], b_dec: str) -> Weights:
    """The weights of classes that hold their matrices as linear layers."""
    encoder, decoder = tensors["encoder.weight"].T, tensors["decoder.weight"].T
    return Weights(encoder, tensors["encoder.bias"], decoder, tensors[b_dec])


def _autoencoder(tensors: Mapping[str, Tensor], normalize: bool) -> Weights:
    """The weights; the decoder's rows of length 1 if asked, as the peer's loader makes them by default."""
    weights = _linear(tensors, "bias")
    norms = weights.W_dec.norm(dim=1)
    return weights.unit_rows() if normalize and not norms.allclose(torch.ones_like(norms)) else weights


def _gated(tensors: Mapping[str, Tensor]) -> tuple[Weights, ActivationRule]:
    """The weights and the thresholds that stand for the gate."""
    encoder, biases = (
        tensors["encoder.weight"].T,
        [tensors[name] for name in ("gate_bias", "mag_bias", "r_mag")],
    )
    W_enc, b_enc, rule = fold.gated(encoder, *biases)
    return Weights(W_enc, b_enc, tensors["decoder.weight"].T, tensors["decoder_bias"]), rule


def _k(found: Found, trainer: Mapping[str, Any], hints: Mapping[str, object], n_neurons: int) -> int:
    """How many stay. Raises SAEError when none says, or weights and configuration disagree without a hint."""
    said = {
        where: whole(entries, "k", 1, n_neurons)
        for where, entries in (("hint", hints), ("weights", found.tensors), ("configuration", trainer))
        if entries.get("k") is not None
    }
    if not said:
        raise SAEError("neither the weights nor a config.json say k; pass hints={'k': ...}")
    if "hint" not in said and len(set(said.values())) > 1:
        raise SAEError(
            f"the weights say k = {said['weights']}, the configuration k = {said['configuration']} (which is "
            "normal while k is annealed); pass hints={'k': ...} with the one that counts"
        )
    return next(iter(said.values()))


def _groups(found: Found, trainer: Mapping[str, Any], n_neurons: int) -> tuple[int, ...]:
    """The sizes of the Matryoshka groups. Raises SAEError when they do not fit."""
    sizes = found.tensors.get("group_sizes")
    if sizes is None or sizes.is_floating_point() or sizes.ndim != 1:
        found_as = "nothing" if sizes is None else f"{sizes.dtype} of shape {list(sizes.shape)}"
        raise SAEError(f"group_sizes is {found_as}; expected whole numbers [groups]")
    groups = tuple(sizes.tolist())
    if sum(groups) != n_neurons or min(groups, default=0) < 1:
        raise SAEError(
            f"group_sizes {groups} sum to {sum(groups)}; expected sizes above 0 that sum to {n_neurons}"
        )
    listed = trainer.get("group_sizes")
    if listed is not None and listed != list(groups):
        raise SAEError(
            f"group_sizes are {list(groups)} in the weights and {listed!r:.80} in the configuration"
        )
    return groups


def _facts(found: Found, trainer: Mapping[str, Any], kind: str, project: str) -> dict[str, Any]:
    hook = ", ".join(
        str(part)
        for part in (trainer.get("submodule_name"), f"layer {trainer.get('layer')}")
        if part and part not in ("layer None", "layer ")
    )
    known = {
        "project": project,
        "class": trainer.get("dict_class", kind),
        "model": trainer.get("lm_name"),
        "hook": hook,
        "trainer": trainer.get("trainer_class"),
        "step": found.extra.get("step"),
    }
    return {name: value for name, value in known.items() if value not in (None, "")}
