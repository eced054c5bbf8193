"""SAEs of saprmarks/dictionary_learning (PyPI dictionary-learning), written and read as its training does."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from explorer.evals.peers.made import STORED, Codes, Made, cast, fill, sizes

PACKAGE = "dictionary_learning"
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
LAYOUTS = ("ae.pt", "trainer_0/ae.pt", "trainer_0/checkpoints/ae_500.pt")
ALONE = {"GatedAutoEncoder", "MatryoshkaBatchTopKSAE", "AutoEncoderNew", "AutoEncoder"}
"""Classes that the names of the tensors tell without a configuration."""


def make(draw: Random, folder: Path) -> Made:
    """Write an SAE with random options. Raises ImportError where the package is missing."""
    classes = _classes()
    name = draw.choice(CLASSES)
    width, neurons = sizes(draw)
    k = draw.randint(1, neurons)
    sae = _built(classes[name], name, draw, width, neurons, k)
    weights = folder / draw.choice(LAYOUTS)
    weights.parent.mkdir(parents=True, exist_ok=True)
    dtype, wrapper = draw.choice(STORED), draw.choice(("", "", "_orig_mod.", "module."))
    torch.save(cast(sae.state_dict(), dtype), folder / "plain.of.peer")
    torch.save(cast(sae.state_dict(), dtype, wrapper), weights)
    described = name not in ALONE or draw.random() < 0.7
    if described:
        above = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
        (above / "config.json").write_text(json.dumps(_config(name, draw, width, neurons, k)), "utf-8")
    read = classes[name].from_pretrained(folder / "plain.of.peer").eval()

    def run(x: Tensor) -> Codes:
        z = read.encode(x)
        return Codes(z, read.decode(z))

    path = weights if draw.random() < 0.5 else folder
    return Made(name, path, width, run)


def _classes() -> dict[str, Any]:
    """The project's classes by their names."""
    found = vars(importlib.import_module(f"{PACKAGE}.dictionary"))
    for module in ("top_k", "batch_top_k", "matryoshka_batch_top_k"):
        found = found | vars(importlib.import_module(f"{PACKAGE}.trainers.{module}"))
    return {name: found[name] for name in CLASSES}


def _built(kind: Any, name: str, draw: Random, width: int, neurons: int, k: int) -> Any:
    """An SAE of a class with random weights, groups and thresholds."""
    if name == "MatryoshkaBatchTopKSAE":
        cuts = sorted(draw.sample(range(1, neurons), min(neurons - 1, draw.randint(0, 3))))
        groups = [b - a for a, b in zip([0, *cuts], [*cuts, neurons], strict=True)]
        sae = kind(width, neurons, k, groups)
    elif name.endswith(("TopK", "TopKSAE")):
        sae = kind(width, neurons, k)
    else:
        sae = kind(width, neurons)
    fill(sae)
    if name == "AutoEncoder" and draw.random() < 0.3:
        sae.normalize_decoder()
    if "threshold" in dict(sae.named_buffers()):
        sae.threshold.fill_(draw.choice((-1.0, 0.0, 0.3, 0.8, float("inf"))))
    return sae


def _config(name: str, draw: Random, width: int, neurons: int, k: int) -> dict[str, Any]:
    """A configuration as training writes it beside the weights."""
    trainer: dict[str, Any] = {
        "dict_class": name,
        "trainer_class": "ATrainer",
        "activation_dim": width,
        "dict_size": neurons,
        "layer": draw.randint(0, 23),
        "lm_name": "openai/clip-vit-large-patch14-336",
        "submodule_name": draw.choice((None, "resid_post_layer_3")),
    }
    if name.endswith(("TopK", "TopKSAE")):
        trainer["k"] = k
    if draw.random() < 0.5:
        trainer["norm_factor"] = draw.uniform(0.5, 20.0)
    return {"trainer": trainer} | draw.choice(({}, {"buffer": {"d_submodule": width, "io": "out"}}))
