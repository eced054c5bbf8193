"""SAEs of SAELens (PyPI sae-lens, version 6): those ready for use, those in training and what they export."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from explorer.evals.peers.made import STORED, Codes, Made, fill, sizes

PACKAGE = "sae_lens"
READY = ("standard", "gated", "jumprelu", "topk", "abstopk")
EXPORTED = (*READY, "batchtopk", "matryoshka_batchtopk")
RESCALED = ("topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
NORMALISED = ("none", "none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def make(draw: Random, folder: Path) -> Made:
    """Write an SAE with random options. Raises ImportError where the package is missing."""
    package = importlib.import_module(PACKAGE)
    export = draw.random() < 0.4
    registry = importlib.import_module(f"{PACKAGE}.registry")
    has = registry.SAE_TRAINING_CLASS_REGISTRY if export else registry.SAE_CLASS_REGISTRY
    name = draw.choice([one for one in (EXPORTED if export else READY) if one in has])
    width, neurons = sizes(draw)
    config = _config(name, draw, width, neurons)
    kind = package.TrainingSAE if export else package.SAE
    sae = kind.from_dict(kind.get_sae_config_class_for_architecture(name).from_dict(config).to_dict())
    fill(sae)
    _thresholds(sae, draw, neurons)
    place = folder / draw.choice((".", "layer_3/width_1k", "checkpoint_500"))
    (sae.save_inference_model if export else sae.save_model)(place)
    dtype = draw.choice(STORED)
    _cast(place / WEIGHTS, dtype)
    old = not export and config["normalize_activations"] != "constant_norm_rescale" and draw.random() < 0.3
    if old:
        _as_before_6(place / CONFIG, draw)
    read = package.SAE.load_from_disk(place, dtype="float32").eval()

    def run(x: Tensor) -> Codes:
        z = read.encode(x)
        return Codes(z, read.decode(z))

    how = "exported" if export else "settings of 5" if old else "saved"
    path = draw.choice((place, folder, place / WEIGHTS))
    return Made(f"{name} {how}", path, width, run)


def _config(name: str, draw: Random, width: int, neurons: int) -> dict[str, Any]:
    """Random settings of an architecture."""
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": width,
        "d_sae": neurons,
        "apply_b_dec_to_input": draw.random() < 0.5,
        "normalize_activations": draw.choice(NORMALISED),
        "metadata": {
            "model_name": "openai/clip-vit-large-patch14-336",
            "hook_name": draw.choice(("blocks.7.hook_resid_post", "blocks.7.hook_mlp_out")),
        },
    }
    if name in RESCALED:
        config |= {"k": draw.randint(1, neurons), "rescale_acts_by_decoder_norm": draw.random() < 0.5}
    if name == "matryoshka_batchtopk":
        config["matryoshka_widths"] = sorted({draw.randint(1, neurons), neurons})
    return config


@torch.no_grad()
def _thresholds(sae: Any, draw: Random, neurons: int) -> None:
    """Random thresholds, where the architecture has some."""
    for name in ("threshold", "log_threshold"):
        if hasattr(sae, name):
            getattr(sae, name).copy_(torch.rand(neurons) * draw.choice((0.0, 1.0)))
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(draw.choice((0.0, 0.4, 0.9)))


def _cast(path: Path, dtype: torch.dtype) -> None:
    """Store the weights in another type."""
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)


def _as_before_6(path: Path, draw: Random) -> None:
    """Write the settings as the versions before 6 did: no metadata, and older names."""
    config = json.loads(path.read_text("utf-8"))
    config |= config.pop("metadata")
    for name in ("sae_lens_version", "sae_lens_training_version", "reshape_activations"):
        config.pop(name, None)
    if config["architecture"] == "topk":
        config |= {"activation_fn_kwargs": {"k": config.pop("k")}, "architecture": "standard"}
        config[draw.choice(("activation_fn_str", "activation_fn"))] = "topk"
    if draw.random() < 0.5:
        config["hook_point"] = config.pop("hook_name")
    if config["normalize_activations"] in ("none", "expected_average_only_in") and draw.random() < 0.5:
        config["normalize_activations"] = config["normalize_activations"] != "none"
    path.write_text(json.dumps(config), "utf-8")
