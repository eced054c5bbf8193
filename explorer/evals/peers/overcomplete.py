"""SAEs of KempnerInstitute/overcomplete (PyPI overcomplete): state dicts, and hints for what they omit."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from explorer.evals.peers.made import STORED, Codes, Made, cast, fill, sizes

PACKAGE = "overcomplete"
CLASSES = ("SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE", "RATopKSAE", "RAJumpSAE")
NORMALIZATIONS = ("l2", "max_l2", "l1", "max_l1", "identity")


def make(draw: Random, folder: Path) -> Made:
    """Write an SAE with random options. Raises ImportError where the package is missing."""
    name, dtype = draw.choice(CLASSES), draw.choice(STORED)
    width, neurons = sizes(draw)
    encoder = draw.choice(("linear", "mlp_bn_1"))
    options: dict[str, Any] = {"encoder_module": encoder}
    hints: dict[str, object] = {}
    if name.startswith("RA"):
        options |= {"points": torch.randn(neurons + 5, width), "delta": draw.choice((0.1, 1.0, 3.0))}
        hints["delta"] = options["delta"]
    else:
        kind = draw.choice(NORMALIZATIONS)
        options["dictionary_params"] = {"normalization": kind, "use_multiplier": draw.random() < 0.5}
        hints["normalization"] = kind
    if "TopK" in name:
        options["top_k"] = draw.randint(1, neurons)
    module = f"{PACKAGE}.sae.rasae" if name.startswith("RA") else f"{PACKAGE}.sae"
    found = getattr(importlib.import_module(module), name)
    sae, read = found(width, neurons, **options), found(width, neurons, **options)
    fill(sae)
    _trained(sae, torch.randn(64, width))
    path = folder / draw.choice(("state_dict.pt", "sae.pt", "run/weights.pth"))
    path.parent.mkdir(exist_ok=True)
    torch.save(cast(sae.state_dict(), dtype), path)
    read.load_state_dict(torch.load(path))
    if name == "BatchTopKSAE":
        hints["running_threshold"] = read.running_threshold = draw.choice((0.0, 0.2, 0.7))
    elif "TopK" in name:
        hints["top_k"] = options["top_k"]
    elif name == "SAE":
        hints["cls"] = name
    read.eval()

    def run(x: Tensor) -> Codes:
        _, z = read.encode(x)
        return Codes(z, read.decode(z))

    return Made(f"{name} {encoder}", path, width, run, hints)


@torch.no_grad()
def _trained(sae: Any, x: Tensor) -> None:
    """Go through the vectors as in training, so that batch norm and dictionary are what training leaves."""
    sae.train()
    sae(x)
