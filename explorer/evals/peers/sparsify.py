"""SAEs of EleutherAI/sparsify (PyPI eai-sparsify), written and read by its `SparseCoder`."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from explorer.evals.peers.made import STORED, Codes, Made, fill, sizes

PACKAGE = "sparsify"
PLACES = ("layers.22", "vision_model.encoder.layers.3", "encoder.layers.5.mlp", "layers.0/seed1", ".")


def make(draw: Random, folder: Path) -> Made:
    """Write an SAE with random options. Raises ImportError where the package is missing."""
    package = importlib.import_module(PACKAGE)
    width, neurons = sizes(draw)
    activation = draw.choice(("topk", "topk", "groupmax"))
    expansion = draw.randint(1, 6) if draw.random() < 0.5 else None
    neurons = width * expansion if expansion else neurons
    shares = [n for n in range(1, neurons + 1) if activation == "topk" or neurons % n == 0]
    config = package.SparseCoderConfig(
        activation=activation,
        expansion_factor=expansion or 32,
        num_latents=0 if expansion else neurons,
        k=draw.choice(shares),
        normalize_decoder=draw.random() < 0.5,
        multi_topk=draw.random() < 0.3,
    )
    dtype = draw.choice(STORED)
    coder = package.SparseCoder(width, config, dtype=dtype)
    fill(coder)
    place = folder / draw.choice(PLACES)
    coder.save_to_disk(place)
    read = package.SparseCoder.load_from_disk(place).float()

    def run(x: Tensor) -> Codes:
        found = read.encode(x)
        z = torch.zeros(len(x), read.num_latents).scatter(-1, found.top_indices, found.top_acts)
        return Codes(z, read.decode(found.top_acts, found.top_indices))

    path = draw.choice((place, folder, place / "sae.safetensors"))
    return Made(activation, path, width, run)
