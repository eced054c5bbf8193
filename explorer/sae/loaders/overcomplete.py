"""overcomplete (KempnerInstitute/overcomplete): a state dict, which is less than the SAE.

    p = x W^T + b    z = rule(ReLU(p))    x_hat = z D    D = normalised weights * e^multiplier

There is no b_dec; batch norm after the encoder is folded into W and b. A state dict does not hold its class,
top_k (TopKSAE), the running threshold (BatchTopKSAE), how the dictionary is normalised, or delta of an
archetypal one: hints give them. JumpSAE stores the logarithms of its thresholds and keeps z >= threshold, as
BatchTopKSAE does. Encoders: linear, mlp_bn_1 and tieable ones. Hidden layers, layer norm, attention and
convolutions are not linear in x and are refused, like QSAE (quantised) and matching pursuit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.loaders.found import LISTED, Found, need, number, whole
from explorer.sae.model import SAE
from explorer.sae.rules import ActivationRule

NAME = "overcomplete"
CLASSES = ("SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE", "RATopKSAE", "RAJumpSAE")
HINTS = (
    "top_k",
    "normalization",
    "running_threshold",
    "threshold",
    "delta",
    "cls",
    "nb_concepts",
    "input_shape",
    "encoder",
    "use_multiplier",
)
NORMALIZATIONS = ("l2", "max_l2", "l1", "max_l1", "identity")
EPS = 1e-8
"""Added to a row's norm before it divides, by the project."""
BATCH_NORM_EPS = 1e-5
NOT_LINEAR = {
    "encoder.mlp_blocks.": "hidden layers (mlp_bn_3, mlp_ln_3)",
    "encoder.attention_blocks.": "attention",
    "encoder.resnet_blocks.": "convolutions",
}
LINEAR, NORM, TIED = "encoder.final_block.0", "encoder.final_block.1", "encoder.tied_to"
WEIGHTS, MULTIPLIER = "dictionary._weights", "dictionary.multiplier"
ARCHETYPES = ("dictionary.C", "dictionary.W", "dictionary.Relax")


class Encoder(NamedTuple):
    """kind: as the project's factory calls it; weight: [F, d], None for the dictionary's; bias: [F]."""

    kind: str
    weight: Tensor | None
    bias: Tensor | None


def claims(found: Found) -> bool:
    """Whether there is a dictionary as the project's layers have it."""
    return WEIGHTS in found.tensors or all(name in found.tensors for name in ARCHETYPES)


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE. Raises SAEError for what is not linear, and for hints that are missing."""
    tensors = _renamed(found.tensors)
    _refuse(tensors)
    archetypal = WEIGHTS not in tensors
    shapes = _shapes(tensors, archetypal)
    dims = {
        letter: whole(hints, name)
        for letter, name in (("F", "nb_concepts"), ("d", "input_shape"))
        if name in hints
    }
    optional = (MULTIPLIER, "encoder.bias", f"{NORM}.weight", f"{NORM}.bias", f"{TIED}.multiplier")
    ignored = (f"{NORM}.num_batches_tracked", f"{TIED}._fused_dictionary")
    fitted = need(tensors, shapes, dims, optional=optional, ignored=ignored, infinite=("thresholds",))
    known, neurons = fitted.tensors, fitted.dims["F"]
    encoder = _encoder(known)
    scale = known[MULTIPLIER].double().exp().item() if MULTIPLIER in known else 1.0
    _check_hints(hints, encoder.kind, scale)
    dictionary = scale * (_archetypes(known, hints) if archetypal else _normalised(known[WEIGHTS], hints))
    weight = dictionary if encoder.weight is None else encoder.weight
    bias = torch.zeros(neurons) if encoder.bias is None else encoder.bias
    rule, name = _rule(known, neurons, hints, archetypal)
    facts = {
        "format": "overcomplete",
        "project": "KempnerInstitute/overcomplete",
        "class": name,
        "encoder": encoder.kind,
        "model": None,
        "hook": None,
        "tokens": None,
    }
    return SAE(weight.T, bias, dictionary, torch.zeros(fitted.dims["d"]), rule, facts=facts)


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with today's names: the encoder was once a plain sequence."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in (("encoder.0.", f"{LINEAR}."), ("encoder.1.", f"{NORM}.")):
            if name.startswith(old):
                name = new + name.removeprefix(old)
        renamed[name] = tensor
    return renamed


def _refuse(tensors: Mapping[str, Tensor]) -> None:
    """Raise SAEError for what is not linear up to its activation, by name."""
    for start, what in NOT_LINEAR.items():
        if any(name.startswith(start) for name in tensors):
            raise SAEError(f"its encoder has {what}; expected one linear layer, with batch norm or without")
    if f"{NORM}.weight" in tensors and f"{NORM}.running_mean" not in tensors:
        raise SAEError("its encoder ends in layer norm (mlp_ln_1); expected one linear layer, or batch norm")
    if "Q" in tensors:
        raise SAEError("it is a QSAE, whose activations are quantised; expected one of " + ", ".join(CLASSES))
    if not any(name.startswith("encoder.") for name in tensors):
        raise SAEError(
            "it has no encoder: it is MpSAE or OMPSAE (matching pursuit, which no linear layer can do), or "
            "its encoder is 'identity', which another model comes before; "
            f"expected one of {', '.join(CLASSES)}; found the tensors {', '.join(list(tensors)[:LISTED])}"
        )


def _shapes(tensors: Mapping[str, Tensor], archetypal: bool) -> dict[str, str]:
    """The names and shapes that the state dict has to have."""
    shapes = {MULTIPLIER: ""}
    if archetypal:
        shapes |= dict(zip(ARCHETYPES, ("points d", "F points", "F d"), strict=True))
    else:
        shapes |= {WEIGHTS: "F d"}
    if any(name.startswith(TIED) for name in tensors):
        inner = {name.replace("dictionary", TIED): shape for name, shape in shapes.items()}
        shapes |= inner | {"encoder.bias": "F"}
    elif "encoder.weight" in tensors:
        shapes |= {"encoder.weight": "F d", "encoder.bias": "F"}
    else:
        shapes |= {f"{LINEAR}.weight": "F d", f"{LINEAR}.bias": "F"}
        if any(name.startswith(NORM) for name in tensors):
            shapes |= {f"{NORM}.{name}": "F" for name in ("weight", "bias", "running_mean", "running_var")}
    return shapes | ({"thresholds": "F"} if "thresholds" in tensors else {})


def _encoder(known: Mapping[str, Tensor]) -> Encoder:
    """The linear encoder, with batch norm (as it acts in evaluation) folded in."""
    if any(name.startswith(TIED) for name in known):
        own = [name for name in known if name.startswith("dictionary.")]
        for name in own:
            if not torch.equal(known[name], known[name.replace("dictionary", TIED)]):
                raise SAEError(f"its encoder is tied to another dictionary than its own: {name} differs")
        return Encoder("tied", None, known.get("encoder.bias"))
    if "encoder.weight" in known:
        return Encoder("untied", known["encoder.weight"], known.get("encoder.bias"))
    weight, bias = known[f"{LINEAR}.weight"], known[f"{LINEAR}.bias"]
    if f"{NORM}.running_mean" not in known:
        return Encoder("linear", weight, bias)
    variance = known[f"{NORM}.running_var"].double()
    if bool((variance < 0).any()):
        raise SAEError(f"{NORM}.running_var has negative values; expected variances")
    factor = (variance + BATCH_NORM_EPS).rsqrt()
    if f"{NORM}.weight" in known:
        factor = factor * known[f"{NORM}.weight"].double()
    shift = (bias.double() - known[f"{NORM}.running_mean"].double()) * factor
    if f"{NORM}.bias" in known:
        shift = shift + known[f"{NORM}.bias"].double()
    return Encoder("mlp_bn_1", (weight.double() * factor[:, None]).float(), shift.float())


def _normalised(weights: Tensor, hints: Mapping[str, object]) -> Tensor:
    """The rows of the dictionary, normalised as the hint says. Raises SAEError without it."""
    kind = hints.get("normalization")
    if kind not in NORMALIZATIONS:
        found = "is missing" if kind is None else f"is {kind!r:.80}"
        raise SAEError(
            f"the hint normalization {found}: a state dict does not say how its dictionary is normalised; "
            f'give one of {", ".join(NORMALIZATIONS)}, as in hints={{"normalization": "l2"}}, its default'
        )
    if kind == "identity":
        return weights
    norms = weights.norm(p=1 if str(kind).endswith("l1") else 2, dim=1, keepdim=True)
    return weights / norms.amax() if str(kind).startswith("max") else weights / (norms + EPS)


def _archetypes(known: Mapping[str, Tensor], hints: Mapping[str, object]) -> Tensor:
    """The archetypal dictionary: convex mixtures of points, each moved by delta at most."""
    points, mixing, relax = (known[name] for name in ARCHETYPES)
    mixing = torch.relu(mixing)
    mixed = (mixing / (mixing.sum(dim=-1, keepdim=True) + EPS)) @ points
    if not bool(relax.any()):
        return mixed
    if hints.get("delta") is None:
        raise SAEError(
            "the hint delta is missing: a state dict does not say how far an archetypal dictionary may leave "
            'its points; give it, as in hints={"delta": 1.0} (the project\'s default)'
        )
    return mixed + relax * (number(hints, "delta") / relax.norm(dim=-1, keepdim=True)).clamp(max=1)


def _rule(
    known: Mapping[str, Tensor], neurons: int, hints: Mapping[str, object], archetypal: bool
) -> tuple[ActivationRule, str]:
    """The rule and the class. Raises SAEError when neither the tensors nor the hints say it."""
    asked = hints.get("cls")
    if asked is not None and asked not in CLASSES:
        raise SAEError(f"the hint cls is {asked!r:.80}; expected one of {', '.join(CLASSES)}")
    said = next((key for key in ("running_threshold", "threshold") if hints.get(key) is not None), None)
    threshold = None if said is None else number(hints, said)
    name = _class(known, hints, threshold)
    if asked is not None and str(asked).removeprefix("RA") != name:
        raise SAEError(f"the hint cls is {asked}, but the tensors and hints are those of {name}")
    shown = f"RA{name}" if archetypal else name
    if name == "JumpSAE":
        return ActivationRule("jumprelu", threshold=known["thresholds"].exp(), inclusive=True), shown
    if name == "BatchTopKSAE":
        return ActivationRule("jumprelu", threshold=threshold or 0.0, inclusive=True), shown
    if name == "TopKSAE":
        return ActivationRule("topk", k=whole(hints, "top_k", most=neurons)), shown
    return ActivationRule("relu"), shown


def _class(known: Mapping[str, Tensor], hints: Mapping[str, object], threshold: float | None) -> str:
    if "thresholds" in known:
        for name in ("top_k", "running_threshold", "threshold"):
            if name in hints:
                raise SAEError(f"the hint {name} does not fit: it is a JumpSAE, which has its own thresholds")
        return "JumpSAE"
    if threshold is not None:
        return "BatchTopKSAE"
    if hints.get("cls") == "BatchTopKSAE":
        raise SAEError(
            "the hint running_threshold is missing: BatchTopKSAE needs the threshold it ended with"
        )
    if "top_k" in hints:
        return "TopKSAE"
    if hints.get("cls") == "SAE":
        return "SAE"
    raise SAEError(
        'the hint top_k is missing: a state dict does not say which values stay; give {"top_k": k} for a '
        'TopKSAE, {"running_threshold": t} for a BatchTopKSAE, or {"cls": "SAE"} for plain ReLU'
    )


def _check_hints(hints: Mapping[str, object], kind: str, scale: float) -> None:
    """Raise SAEError for hints that the tensors contradict."""
    if hints.get("encoder", kind) != kind:
        raise SAEError(f"the hint encoder is {hints['encoder']!r:.80}, but the tensors are those of {kind!r}")
    if hints.get("use_multiplier") is False and scale != 1.0:
        raise SAEError(f"the hint use_multiplier is False, but the stored multiplier scales by {scale:.6g}")
