"""Which way the words of neurons are looked for: asked of the model, read off its unembedding, or not at all.

Asking is far more often right, and costs a pass through the language model for each neuron: hardly anything
for a small model, days for a large one on a CPU. Knows both ways and what the first costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from explorer.errors import ModelError
from explorer.sae import SAE
from explorer.store.manifest import Route
from explorer.vlm.base import LVLM
from index.meaning.ranking import NO_WORDS, NeuronWords
from index.meaning.unembedding import unembedded_words
from index.meaning.words import neuron_words

MOST = 2e12
"""Neurons x weights of the language model up to which it is asked, unless told: up to an hour of a core."""
TELL_EVERY = 60.0
"""Seconds between two words about how far it is."""


class Choice(NamedTuple):
    """A way, and why, in words."""

    route: Route
    why: str


class FoundWords(NamedTuple):
    """The way that was taken, and the words; no words when it is "none"."""

    route: Route
    words: NeuronWords


def choose_route(asked: Route | None, n_neurons: int, text_size: int) -> Choice:
    """The way that was asked for, else the one that suits a language model of `text_size` weights."""
    if asked is not None:
        return Choice(asked, "as asked")
    size = f"{n_neurons:,} neurons x {_short(text_size)} weights of the language model"
    if n_neurons * text_size <= MOST:
        return Choice("answer", f"{size} are few enough to ask it about each neuron")
    return Choice(
        "unembedding", f"{size} are too many to ask it about each neuron; --words answer does, and is better"
    )


def find_words(
    asked: Route | None,
    lvlm: LVLM,
    block: int,
    mean_patch: np.ndarray | None,
    directions: np.ndarray,
    active_mean: np.ndarray,
    tell: Callable[[str], None],
) -> FoundWords:
    """Look for the words of all living neurons; `tell` hears which way is taken, and why.

    mean_patch [d], None when no picture was kept for it; directions [F, d]: decoder rows; active_mean [F]:
    mean activation where a neuron fires.
    """
    route, why = choose_route(asked, len(directions), lvlm.text_size)
    if mean_patch is None and route != "none":
        route, why = "none", "there is no mean picture to start from; use a larger --sample"
    tell(f"words: {route} ({why})")
    if mean_patch is None or route == "none":
        return FoundWords("none", NO_WORDS)
    find = {"answer": neuron_words, "unembedding": unembedded_words}[route]
    seen = _counting(int(np.count_nonzero(active_mean)), tell)
    try:
        return FoundWords(route, find(lvlm, block, mean_patch, directions, active_mean, seen=seen))
    except ModelError as error:
        if asked is not None:
            raise
        tell(f"words: none ({error})")
        return FoundWords("none", NO_WORDS)


def at_patch(sae: SAE, directions: np.ndarray, patch: np.ndarray | None) -> np.ndarray:
    """Decoder rows [F, d] in the units of a patch [d]: as they are, unless the SAE scales each vector."""
    scale = None if patch is None else sae.scale(torch.from_numpy(np.asarray(patch)))
    return directions if scale is None else directions * float(scale.factor)


def _counting(total: int, tell: Callable[[str], None]) -> Callable[[int], None]:
    """Something that hears of neurons that are done, and tells now and then how many are."""
    done, told = 0, time.monotonic()

    def seen(count: int) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told >= TELL_EVERY:
            told = time.monotonic()
            tell(f"words of {done:,} of {total:,} neurons")

    return seen


def _short(number: int) -> str:
    """A large number, for people."""
    return f"{number / 1e9:.1f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"
