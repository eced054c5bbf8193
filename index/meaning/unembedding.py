"""The words that a neuron's direction points at in the language model's own vocabulary: the quick way.

The mean patch goes through the projector as it is and with the neuron raised by its mean activation; the
difference, in the language model's space, is weighted by the final norm and read by the unembedding. No pass
through the language model is needed, so its cost is one matrix product. What is lost is what that model's
layers do in between: on the embedded LVLM the words found so fit no more often than chance (LOG.md has the
figures); `words` asks the model itself. Knows the LVLM's seam and torch.
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
class UnembeddingConfig:
    """How to read.

    floor: how far a neuron is raised at least, in lengths of the mean patch, however faint its activations
    (below, rounding would speak); limit: words per neuron; numbers: logits that are in memory at a time.
    """

    floor: float = 0.05
    limit: int = 10
    numbers: int = 2**23

    def __post_init__(self) -> None:
        if min(self.limit, self.numbers) < 1 or not self.floor > 0:
            raise ExplorerError(f"cannot look for words with {self}; every number must be above 0")


@torch.no_grad()
def unembedded_words(
    lvlm: LVLM,
    block: int,
    mean_patch: np.ndarray,
    directions: np.ndarray,
    active_mean: np.ndarray,
    config: UnembeddingConfig | None = None,
    seen: Callable[[int], None] = lambda count: None,
) -> NeuronWords:
    """The words that each living neuron's direction points at most, best first; none that most point at.

    mean_patch [d]: of the sampled images; directions [F, d]: decoder rows; active_mean [F]: mean activation
    where the neuron fires, 0 for a dead one, which has no words. Words that differ in case count once.
    `seen` hears how many more neurons are done. Gains are scaled, see `most_raised`.
    """
    config = config or UnembeddingConfig()
    active = np.asarray(active_mean, dtype=np.float32)
    names = lvlm.words()
    vocabulary = vocabulary_of(names)
    patch = torch.from_numpy(np.asarray(mean_patch, dtype=np.float32))
    least = config.floor * float(patch.norm())
    calm = lvlm.alone(patch[None], block)

    def gains(neurons: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(directions[neurons].astype(np.float32))
        length = rows.norm(dim=1, keepdim=True) * torch.from_numpy(active[neurons, None])
        raised = lvlm.alone(patch + functional.normalize(rows, dim=1) * length.clamp_min(least), block)
        return vocabulary.gains(lvlm.unembed(raised - calm))

    live = np.flatnonzero((active > 0) & directions.any(1))
    batch = max(1, config.numbers // max(len(names), 16 * len(patch)))
    return most_raised(gains, live, vocabulary.words, config.limit, batch, seen, scaled=True)
