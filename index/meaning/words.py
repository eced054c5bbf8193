"""The words that a neuron's direction raises most in what the LVLM says: the way that asks the model.

The picture of mean patches is the ground: the LVLM describes it, then every neuron in turn is raised on half
of its patches, and the LVLM reads its own description again. What counts is how much likelier each word has
become as the next one, in log-probability, on average over the places of the description, less what it does
to the mean word. From that goes what the neurons do to the word as a rule, scaled to how much this one
changes at all, so that words that every direction raises do not fill the lists.

It costs a pass through the language model for each neuron. The quick way, `unembedding`, costs next to
nothing and fits no more often than chance on the embedded LVLM, because a language model's first layers do
not speak its last layer's language (LOG.md has the figures). Knows the LVLM's seam and torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from explorer.errors import ExplorerError
from explorer.vlm.base import LVLM
from index.meaning.ranking import NeuronWords, most_raised, vocabulary_of


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


class _Reading:
    """The LVLM before its picture of mean patches, ready to have neurons raised in it."""

    def __init__(self, lvlm: LVLM, block: int, mean_patch: np.ndarray, config: WordsConfig) -> None:
        self._lvlm, self._block, self._config = lvlm, block, config
        self.vocabulary = vocabulary_of(lvlm.words())
        self._patch = torch.from_numpy(np.asarray(mean_patch, dtype=np.float32))
        self.distance = config.strength * float(self._patch.norm())
        self._like = lvlm.canvas(config.patches)
        features = self._features(torch.zeros(1, len(self._patch)))
        asked = lvlm.default_prompt
        self._answer = lvlm.generate(features[0], asked, config.answer_tokens, self._like)
        self._calm = self._next(features)

    def gains(self, raised: torch.Tensor) -> torch.Tensor:
        """How much likelier than the mean word each word [n, w] becomes when every patch gains `raised` [n,
        d]."""
        return self.vocabulary.gains(self._next(self._features(raised)) - self._calm)

    def _features(self, raised: torch.Tensor) -> torch.Tensor:
        """Image features [n, N, D] of n pictures of mean patches (CLS too); some gain `raised` [n, d].

        The blocks after the site run on such a picture as well, so an earlier site needs nothing of its own.
        """
        hidden = self._patch.repeat(len(raised), self._like.tokens, 1)
        patches = self._like.patches(hidden).clone()
        share = self._config.raised / self._config.patches
        patches[:, : max(1, round(share * patches.shape[1]))] += raised[:, None]
        return self._lvlm.features(self._like.put(hidden, patches), self._block, self._like)

    def _next(self, features: torch.Tensor) -> torch.Tensor:
        """Mean log-probability [n, V] along the description."""
        asked = self._lvlm.default_prompt
        return self._lvlm.next_words(features, asked, self._answer, self._like).mean(1)


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

    def gains(neurons: np.ndarray) -> torch.Tensor:
        part = torch.from_numpy(directions[neurons].astype(np.float32))
        return reading.gains(functional.normalize(part, dim=1) * reading.distance)

    return most_raised(gains, live, reading.vocabulary.words, config.limit, config.batch, seen)
