"""From what neurons do to the entries of a vocabulary to a few words for each neuron.

Both ways of asking share this: entries that begin one word count once, and what neurons do to a word as a
rule goes, so that words that every direction raises do not fill the lists. Knows torch; nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

REFERENCE = 256
"""Living neurons, evenly spread, that the mean gain of a word is taken from."""


class NeuronWords(NamedTuple):
    """Words by neuron and rank, columns of one length: neuron, rank int64; word str; gain float32."""

    neuron: np.ndarray
    rank: np.ndarray
    word: list[str]
    gain: np.ndarray


NO_WORDS = NeuronWords(np.zeros(0, np.int64), np.zeros(0, np.int64), [], np.zeros(0, np.float32))


class Vocabulary(NamedTuple):
    """Words in lower case [w], and the model's entries that begin one: places [v], and kinds [v], whose
    word."""

    words: list[str]
    places: torch.Tensor
    kinds: torch.Tensor

    def gains(self, change: torch.Tensor) -> torch.Tensor:
        """How much more than the mean word each word gains [n, w], from the change of all entries [n, V]:
        that of the entry that gains most."""
        best = torch.full((len(change), len(self.words)), -torch.inf, device=change.device)
        kinds = self.kinds.to(change.device).expand(len(change), -1)
        best = best.scatter_reduce(1, kinds, change[:, self.places.to(change.device)], "amax")
        return best - best.mean(1, keepdim=True)


def vocabulary_of(words: list[str]) -> Vocabulary:
    """Gather the entries of `LVLM.words()` by their word in lower case."""
    places = [place for place, word in enumerate(words) if word]
    lower = [words[place].lower() for place in places]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(lower))}
    kinds = [numbers[word] for word in lower]
    return Vocabulary(
        list(numbers), torch.tensor(places, dtype=torch.int64), torch.tensor(kinds, dtype=torch.int64)
    )


def most_raised(
    gains_of: Callable[[np.ndarray], torch.Tensor],
    live: np.ndarray,
    words: list[str],
    limit: int,
    block: int,
    seen: Callable[[int], None] = lambda count: None,
    scaled: bool = False,
) -> NeuronWords:
    """The words that each neuron of `live` raises most, best first; only those raised more than most do.

    gains_of: the gains [n, w] of up to `block` neurons, less their mean over the words. What neurons do to a
    word as a rule is taken from `REFERENCE` of them, each scaled to how much it changes at all. scaled: gains
    are in that scale, and divided by the word's standard deviation over these neurons plus the mean one of
    all words, for words that swing more than others with any neuron. `seen` hears how many more neurons are
    done.
    """
    if not len(live) or not words:
        return NO_WORDS

    def gains(neurons: np.ndarray) -> Iterator[torch.Tensor]:
        for start in range(0, len(neurons), block):
            yield gains_of(neurons[start : start + block])

    few = live[np.unique(np.linspace(0, len(live) - 1, min(REFERENCE, len(live))).astype(np.int64))]
    total = squares = torch.zeros(())
    for part in gains(few):
        even = (part / _size(part)).double()
        total, squares = total.to(even) + even.sum(0), squares.to(even) + even.square().sum(0)
    usual = total / len(few) if len(live) > 1 else torch.zeros_like(total)
    spread = (squares / len(few) - usual.square()).clamp_min(0).sqrt()
    usual, spread = usual.float(), (spread + spread.mean()).clamp_min(1e-12).float()
    limit = min(limit, len(words))
    found = []
    for part in gains(live):
        size = _size(part)
        if scaled:
            part = (part / size - usual) / spread
        else:
            part = part - size * usual
        found.append(part.topk(limit, dim=1))
        seen(len(size))
    gain = torch.cat([part.values for part in found]).cpu().numpy().astype(np.float32)
    kind = torch.cat([part.indices for part in found]).cpu().numpy()
    row, rank = np.nonzero(gain > 0)
    return NeuronWords(live[row], rank, [words[k] for k in kind[row, rank].tolist()], gain[row, rank])


def _size(gains: torch.Tensor) -> torch.Tensor:
    """How much a neuron changes at all: the root mean square of its gains [n, w] over the words, [n, 1]."""
    return gains.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
