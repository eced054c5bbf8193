"""Small models of random weights, one or more for each family, in memory: what the contract is tried on.

Each module `made_<family>.py` in this folder has `MADE`: name -> maker of an opened `Adapter`, with weights
drawn so wide that the (meaningless) text depends on the picture, and a generation config without an end
token. `REFUSES` names the parts of the contract that the family refuses in plain words: "attention",
"attribution", "alone".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from explorer.vlm.adapter import Adapter

VOCABULARY = (
    "a an and apple ball beside big bowl cake cat chair dog fork green knife plate red table the tree with "
    "USER: ASSISTANT: Describe image. What is it? yes no"
)


class Made(NamedTuple):
    """An opened model, and what it refuses."""

    lvlm: Adapter
    refuses: frozenset[str]


def names() -> list[str]:
    """Of all models there are, "family/variant"."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("made_*.py"))
    return [f"{stem.removeprefix('made_')}/{name}" for stem in modules for name in _module(stem).MADE]


@cache
def made(name: str) -> Made:
    """The model of a name."""
    family, variant = name.split("/")
    module = _module(f"made_{family}")
    maker: Callable[[], Adapter] = module.MADE[variant]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lvlm = maker()
    return Made(lvlm, frozenset(getattr(module, "REFUSES", {}).get(variant, ())))


def _module(stem: str) -> object:
    return importlib.import_module(f"tests.vlm.families.{stem}")


@torch.no_grad()
def widen(model: nn.Module, spread: float = 1.0) -> None:
    """Draw all matrices so wide that sizes are kept on the way: then the text hangs on the picture."""
    for name, weights in model.named_parameters():
        if weights.ndim > 1 and "norm" not in name:
            fan = weights[0].numel()
            weights.normal_(0.0, spread * fan**-0.5)
