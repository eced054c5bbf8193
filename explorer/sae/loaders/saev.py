"""saev (OSU-NLP-Group/saev): one line of JSON, then the state dict.

    p = x W_enc + b_enc    z = activation(p)    x_hat = z W_dec + b_dec

The line names a schema, and schemas differ (`saev/nn/modeling.py` through its history):
- none, and 1 with the activation as "cls": p = (x - b_dec) W_enc + b_enc. The last files of this kind do not
  subtract, and say nothing of it: the hint "subtract_b_dec" decides.
- 1 with "activation" in its settings, and 2 to 5: as above. Sizes are d_model and d_sae, before that d_vit
  and d_vit * exp_factor.
Relu; TopK keeps the largest p without ReLU; BatchTopK keeps p > activation.threshold, or ReLU while that is
0. Files of schema 2 have no threshold, BatchTopK was TopK then. Matryoshka training leaves no trace. The
settings of the training, where config.json lies beside, give layer and tokens, and whether it scaled vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.loaders.fold import Weights
from explorer.sae.loaders.found import Found, flag, need, number, whole
from explorer.sae.model import SAE
from explorer.sae.rules import ActivationRule

NAME = "saev"
HINTS = ("subtract_b_dec", "threshold", "scale_mean", "scale_norm", "prescaled")
SCHEMAS = (1, 2, 3, 4, 5)
ACTIVATIONS = ("Relu", "TopK", "BatchTopK")
SHAPES = {"W_enc": "d F", "b_enc": "F", "W_dec": "F d", "b_dec": "d"}
THRESHOLD = "activation.threshold"
CONFIG = "SparseAutoencoderConfig"
"""What a header of schema 1 names as its class, unless it names the activation."""
TOKENS = {
    "content": "patches",
    "special": "cls",
    "all": "all",
    "cls": "cls",
    "image": "patches",
    "patches": "patches",
}
"""What the training's choice of tokens is called, by this project."""


SCALED = (
    "the training took (x - scale_mean) / scale_norm (by default, or as config.json says), and its files "
    "do not hold the two, so this SAE reads vectors as they are: pass both as hints, or prescaled=True for "
    "vectors that were scaled"
)
"""What to know of files of a training that scaled its vectors."""


class Stated(NamedTuple):
    """What a header says. schema: 0 for none; settings: of the SAE; kind: of the activation, with its params;
    subtracts: whether b_dec is taken off before the encoder."""

    schema: int
    settings: dict[str, Any]
    kind: str
    params: dict[str, Any]
    subtracts: bool


def claims(found: Found) -> bool:
    """Whether a line of JSON stands before the weights: no other format has one."""
    return found.header is not None


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE.

    hints: "subtract_b_dec", whether a file of the first schemas does; "threshold" of a BatchTopK without one;
    "scale_mean" [d] and "scale_norm", which vectors were centred and divided by; "prescaled", that they are
    already. Raises SAEError for what header and tensors do not agree on; warns where the last are missing.
    """
    if found.header is None:
        raise SAEError("it has no header; expected one line of JSON before the weights")
    stated = _stated(found.header)
    training = _training(found.config)
    width = whole(stated.settings, "d_model" if "d_model" in stated.settings else "d_vit")
    neurons = _neurons(stated.settings, width)
    shapes = SHAPES | ({THRESHOLD: ""} if stated.kind == "BatchTopK" else {})
    fitted = need(found.tensors, shapes, {"d": width, "F": neurons}, optional=(THRESHOLD,))
    weights = Weights(*(fitted.tensors[name] for name in SHAPES))
    subtracts = flag(hints, "subtract_b_dec", stated.subtracts)
    if not subtracts:
        weights = weights.uncentred()
    weights = _scaled(weights, hints)
    layer = training.get("layer")
    block = layer if isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 else None
    facts = {
        "format": "saev",
        "project": "OSU-NLP-Group/saev",
        "class": stated.kind,
        "schema": stated.schema or None,
        "b_dec_subtracted": subtracts,
        "model": training.get("model"),
        "hook": None if layer is None else f"layer {layer}",
        "tokens": training.get("tokens"),
    }
    if _is_scaled(stated, training, hints):
        facts["warning"] = SCALED
        warnings.warn(f"{found.weights}: {SCALED}", stacklevel=2)
    rule = _rule(stated, neurons, fitted.tensors.get(THRESHOLD), hints)
    return SAE(*weights, rule, site_block=block, facts=facts)


def _stated(header: Mapping[str, Any]) -> Stated:
    """What the header says. Raises SAEError for an unknown schema or activation."""
    schema = header.get("schema", 0)
    if "schema" not in header:
        return Stated(0, dict(header), "Relu", {}, True)
    if isinstance(schema, bool) or schema not in SCHEMAS:
        raise SAEError(f"schema is {schema!r:.80}; expected none, or one of {', '.join(map(str, SCHEMAS))}")
    settings = _object(header, "cfg", "its header")
    if schema == 1 and (kind := header.get("cls", CONFIG)) != CONFIG:
        return Stated(1, settings, _known(kind), settings, True)
    if schema == 1 and "activation" not in settings:
        return Stated(1, settings, "Relu", {}, False)
    activation = _object(settings, "activation", "cfg")
    kind = _known(activation.get("cls"))
    return Stated(schema, settings, kind, _object(activation, "params", "cfg.activation"), False)


def _known(kind: object) -> str:
    if kind == "AbsBatchTopK":
        raise SAEError(
            "the activation is AbsBatchTopK, which looks at a whole batch: not a rule for one vector"
        )
    if kind not in ACTIVATIONS:
        raise SAEError(f"the activation is {kind!r:.80}; expected one of {', '.join(ACTIVATIONS)}")
    return str(kind)


def _neurons(settings: Mapping[str, Any], width: int) -> int:
    return whole(settings, "d_sae") if "d_sae" in settings else width * whole(settings, "exp_factor")


def _rule(
    stated: Stated, neurons: int, threshold: Tensor | None, hints: Mapping[str, object]
) -> ActivationRule:
    """The rule in evaluation. Raises SAEError for a BatchTopK whose threshold is not known."""
    if stated.kind == "Relu":
        return ActivationRule("relu")
    k = whole(stated.params, "top_k", most=None if stated.schema > 2 else neurons)
    k = min(k, neurons)
    if stated.kind == "BatchTopK":
        given = hints.get("threshold")
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float)):
            raise SAEError(f"the hint threshold is {given!r:.80}; expected a number")
        if threshold is not None or given is not None:
            value = float(threshold.item() if given is None and threshold is not None else given)
            return ActivationRule("jumprelu", threshold=value, k=k)
        if stated.schema != 2:
            raise SAEError(
                f"it is a BatchTopK of schema {stated.schema} without {THRESHOLD}: which values stay depends "
                'on the batch; give the threshold to use, as in hints={"threshold": 0.5}'
            )
    return ActivationRule("topk", k=k, signed=True)


def _training(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings of the training say of its data: layer, tokens, model, scale_mean, scale_norm."""
    data = next((config[key] for key in ("train_data", "data") if isinstance(config.get(key), dict)), {})
    metadata = data.get("metadata") if isinstance(data.get("metadata"), dict) else {}
    tokens = data.get("tokens", data.get("patches"))
    names = [metadata.get(key) for key in ("ckpt", "vit_ckpt", "model_ckpt")]
    return {
        "layer": data.get("layer"),
        "tokens": TOKENS.get(tokens) if isinstance(tokens, str) else None,
        "model": next((name for name in names if isinstance(name, str)), None),
        "scale_mean": data.get("scale_mean"),
        "scale_norm": data.get("scale_norm"),
    }


def _scaled(weights: Weights, hints: Mapping[str, object]) -> Weights:
    """The weights for vectors that are to be centred by scale_mean and divided by scale_norm first."""
    norm = number({"scale_norm": 1.0} | dict(hints), "scale_norm", positive=True)
    weights = weights if norm == 1 else weights.factored(1 / norm)
    if "scale_mean" not in hints:
        return weights
    width = weights.b_dec.numel()
    try:
        mean = torch.as_tensor(hints["scale_mean"], dtype=torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise SAEError(f"the hint scale_mean is no list of numbers ({error}); expected {width}") from error
    if mean.shape != (width,) or not mean.isfinite().all():
        raise SAEError(
            f"the hint scale_mean has the shape {list(mean.shape)}; expected {width} finite numbers"
        )
    return weights._replace(b_dec=weights.b_dec + mean)


def _is_scaled(stated: Stated, training: Mapping[str, Any], hints: Mapping[str, object]) -> bool:
    """Whether it was trained on vectors scaled by figures that neither the files nor the hints hold.

    Training without a schema did that by default; training of today cannot.
    """
    if flag(hints, "prescaled", False) or hints.keys() & {"scale_mean", "scale_norm"}:
        return False
    if stated.schema == 0 and training["scale_mean"] is None:
        return True
    return bool(training["scale_mean"] or training["scale_norm"])


def _object(entries: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = entries.get(key)
    if not isinstance(value, dict):
        raise SAEError(f"{where} has no object {key!r}; found {', '.join(map(str, list(entries)[:12]))}")
    return value
