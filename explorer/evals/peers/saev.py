"""SAEs of OSU-NLP-Group/saev 0.1.0, the version on PyPI: files whose header names no schema."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random

from torch import Tensor

from explorer.evals.peers.made import Codes, Made, fill

PACKAGE = "saev"


def make(draw: Random, folder: Path) -> Made:
    """Write an SAE with random options. Raises ImportError where no such package is installed."""
    nn = importlib.import_module(f"{PACKAGE}.nn")
    settings = importlib.import_module(f"{PACKAGE}.config")
    width = draw.randint(3, 24)
    config = settings.SparseAutoencoder(
        d_vit=width,
        exp_factor=draw.randint(1, 6),
        ghost_grads=draw.random() < 0.5,
        normalize_w_dec=draw.random() < 0.5,
        seed=draw.randint(0, 99),
    )
    sae = nn.SparseAutoencoder(config)
    fill(sae)
    place = folder / draw.choice(("sae.pt", "checkpoints/abc123/sae.pt"))
    nn.dump(str(place), sae)
    read = nn.load(str(place)).eval()

    def run(x: Tensor) -> Codes:
        x_hat, z, _ = read(x)
        return Codes(z, x_hat)

    return Made("SparseAutoencoder", draw.choice((place, folder)), width, run, {"prescaled": True})
