"""The words that a neuron's direction raises most in what the LVLM says.

The picture of mean patches is the ground: the LVLM describes it, then every neuron in turn is raised on half
of its patches, and the LVLM reads its own description again. What counts is how much likelier each word has
become as the next one, in log-probability, on average over the places of the description, less what it does
to the mean word. From that goes what the neurons do to the word as a rule, scaled to how much this one
changes at all, so that words that every direction raises do not fill the lists.

The shorter way, the decoder row through projector, final norm and unembedding, names nothing: on the embedded
LVLM its first word fits no more often than chance, at any strength, because a language model's first layers
do not speak its last layer's language (LOG.md has the figures). Knows the LVLM's seam and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from explorer.errors import ExplorerError
from explorer.vlm.base import LVLM

REFERENCE = 256
"""Living neurons, evenly spread, that the mean gain of a word is taken from."""


@dataclass(frozen=True)
class WordsConfig:
    """How to ask.

    patches: how many patches the picture has (few are enough, and quick); raised: on how many of them a
    neuron is raised; strength: how far, in lengths of the mean patch; limit: words per neuron; answer_tokens:
    length of the description; batch: neurons at a time.
    """

    patches: int = 16
    raised: int = 8
    strength: float = 4.0
    limit: int = 10
    answer_tokens: int = 16
    batch: int = 32

    def __post_init__(self) -> None:
        if min(self.patches, self.limit, self.answer_tokens, self.batch) < 1 or not self.strength > 0:
            raise ExplorerError(f"cannot look for words with {self}; every number must be above 0")
        if not 1 <= self.raised <= self.patches:
            raise ExplorerError(f"cannot raise a neuron on {self.raised} of {self.patches} patches")


class NeuronWords(NamedTuple):
    """Words by neuron and rank, columns of one length: neuron, rank int64; word str; gain float32 (nats)."""

    neuron: np.ndarray
    rank: np.ndarray
    word: list[str]
    gain: np.ndarray


class Vocabulary(NamedTuple):
    """Words in lower case [w], and the model's entries that begin one: places [v], and kinds [v], whose
    word."""

    words: list[str]
    places: torch.Tensor
    kinds: torch.Tensor


def vocabulary_of(words: list[str]) -> Vocabulary:
    """Gather the entries of `LVLM.words()` by their word in lower case."""
    places = [place for place, word in enumerate(words) if word]
    lower = [words[place].lower() for place in places]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(lower))}
    kinds = [numbers[word] for word in lower]
    return Vocabulary(
        list(numbers), torch.tensor(places, dtype=torch.int64), torch.tensor(kinds, dtype=torch.int64)
    )


class _Reading:
    """The LVLM before its picture of mean patches, ready to have neurons raised in it."""

    def __init__(self, lvlm: LVLM, block: int, mean_patch: np.ndarray, config: WordsConfig) -> None:
        self._lvlm, self._block, self._config = lvlm, block, config
        self.vocabulary = vocabulary_of(lvlm.words())
        self._patch = torch.from_numpy(np.asarray(mean_patch, dtype=np.float32))
        self.distance = config.strength * float(self._patch.norm())
        self._before = lvlm.patch_slice.start or 0
        features = self._features(torch.zeros(1, len(self._patch)))
        self._answer = lvlm.generate(features[0], lvlm.default_prompt, config.answer_tokens)
        self._calm = self._next(features)

    def gains(self, raised: torch.Tensor) -> torch.Tensor:
        """How much likelier than the mean word each word [n, w] becomes when every patch gains `raised` [n,
        d]."""
        change = self._next(self._features(raised)) - self._calm
        words = self.vocabulary
        best = torch.full((len(change), len(words.words)), -torch.inf, device=change.device)
        kinds = words.kinds.to(change.device).expand(len(change), -1)
        best = best.scatter_reduce(1, kinds, change[:, words.places.to(change.device)], "amax")
        return best - best.mean(1, keepdim=True)

    def _features(self, raised: torch.Tensor) -> torch.Tensor:
        """Image features [n, N, D] of n pictures of mean patches (CLS too); some gain `raised` [n, d].

        The blocks after the site run on such a picture as well, so an earlier site needs nothing of its own.
        """
        tokens = self._before + self._config.patches
        hidden = self._patch.repeat(len(raised), tokens, 1)
        hidden[:, self._before : self._before + self._config.raised] += raised[:, None]
        return self._lvlm.features(hidden, self._block)

    def _next(self, features: torch.Tensor) -> torch.Tensor:
        """Mean log-probability [n, V] along the description."""
        return self._lvlm.next_words(features, self._lvlm.default_prompt, self._answer).mean(1)


@torch.no_grad()
def neuron_words(
    lvlm: LVLM,
    block: int,
    mean_patch: np.ndarray,
    directions: np.ndarray,
    live: np.ndarray,
    config: WordsConfig | None = None,
    seen: Callable[[int], None] = lambda count: None,
) -> NeuronWords:
    """The words that each living neuron raises most, best first; only words that it raises more than most do.

    mean_patch [d]: of the sampled images; directions [F, d]: decoder rows; live [F]: above 0 where the neuron
    fires at all (a dead one has no words). Words that differ in case count once. `seen` hears how many more
    neurons are done.
    """
    config = config or WordsConfig()
    live = np.flatnonzero(np.asarray(live) > 0)
    reading = _Reading(lvlm, block, mean_patch, config)
    if not len(live) or not reading.vocabulary.words:
        return NeuronWords(np.zeros(0, np.int64), np.zeros(0, np.int64), [], np.zeros(0, np.float32))

    def raised(neurons: np.ndarray) -> Iterator[torch.Tensor]:
        for start in range(0, len(neurons), config.batch):
            part = directions[neurons[start : start + config.batch]].astype(np.float32)
            yield reading.gains(functional.normalize(torch.from_numpy(part), dim=1) * reading.distance)

    spread = live[np.unique(np.linspace(0, len(live) - 1, min(REFERENCE, len(live))).astype(np.int64))]
    usual = sum((gains / _size(gains)).double().sum(0) for gains in raised(spread)) / len(spread)
    if len(live) == 1:
        usual = torch.zeros_like(usual)
    limit = min(config.limit, len(reading.vocabulary.words))
    found = []
    for gains in raised(live):
        found.append((gains - _size(gains) * usual).topk(limit, dim=1))
        seen(len(gains))
    gain = torch.cat([part.values for part in found]).cpu().numpy().astype(np.float32)
    kind = torch.cat([part.indices for part in found]).cpu().numpy()
    row, rank = np.nonzero(gain > 0)
    words = [reading.vocabulary.words[k] for k in kind[row, rank].tolist()]
    return NeuronWords(live[row], rank, words, gain[row, rank])


def _size(gains: torch.Tensor) -> torch.Tensor:
    """How much a neuron changes at all: the root mean square of its gains [n, w] over the words, [n, 1]."""
    return gains.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
