"""How far several measures of words x neurons agree, and which neurons are worth showing.

The measures are those of `explorer.analyze.words`: attention, which knows no sign, gradient and effect.
Numpy only; knows nothing of models.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_PAIRS = (("attention", "gradient"), ("attention", "effect"), ("gradient", "effect"))


class Agreement(NamedTuple):
    """Spearman's rank correlation over the neurons, between two measures of one word; NaN if one is flat.

    attention is compared with the size of the other, gradient and effect with their signs.
    """

    attention_gradient: float
    attention_effect: float
    gradient_effect: float


class Gap(NamedTuple):
    """A cell of the map in which two measures disagree.

    word, neuron: places in the map's words and neurons; between: the two measures; size: how far they are
    apart, in nats.
    """

    word: int
    neuron: int
    between: tuple[str, str]
    size: float


def best(values: np.ndarray, limit: int) -> np.ndarray:
    """The places, ascending, of at most `limit` neurons of values [M, W, n] that are best for some word.

    First the best of each word by each measure, then the second best, and so on; where the limit cuts
    such a round, those stay whose value is the largest share of what their measure reaches. Values of 0
    are no reason to be chosen, unless nothing else is left.
    """
    sizes = np.abs(values).astype(np.float64)
    n = sizes.shape[-1]
    tops = sizes.max(axis=(1, 2), keepdims=True)
    shares = np.divide(sizes, tops, out=np.zeros_like(sizes), where=tops > 0).reshape(-1, n)
    ranks = np.argsort(-shares, axis=1, kind="stable")
    kept: dict[int, None] = {}
    for round_ in range(n):
        column = ranks[:, round_]
        reached = shares[np.arange(len(column)), column]
        for row in np.argsort(-reached, kind="stable"):
            if len(kept) < limit and reached[row] > 0:
                kept[int(column[row])] = None
        if len(kept) >= limit:
            break
    return np.array(sorted(kept) or [0], dtype=np.int64)


def agreement(attention: np.ndarray, gradient: np.ndarray, effect: np.ndarray) -> Agreement:
    """How alike three measures rank the neurons, each [n], for one word."""
    return Agreement(
        rank_correlation(attention, np.abs(gradient)),
        rank_correlation(attention, np.abs(effect)),
        rank_correlation(gradient, effect),
    )


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's: Pearson's of the ranks, equal values sharing the mean of theirs. NaN if one is flat."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(one), _ranks(other)))
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else float("nan")


def widest(values: np.ndarray, count: int) -> tuple[Gap, ...]:
    """The `count` cells of values [3, W, n] in which two measures differ most, each cell by its widest pair.

    Attention has no unit: it is scaled for each word so that its largest is as large as the largest size that
    gradient or effect have there. So a word that nothing in the picture matters to shows no gaps.
    """
    nats = values.astype(np.float64)
    reached = np.abs(nats[1:]).max(axis=(0, 2))
    looked = nats[0].max(axis=1)
    nats[0] *= np.divide(reached, looked, out=np.zeros_like(looked), where=looked > 0)[:, None]
    sizes = np.abs(nats)
    apart = np.stack([abs(sizes[0] - sizes[1]), abs(sizes[0] - sizes[2]), abs(nats[1] - nats[2])])
    size, pair = apart.max(axis=0), apart.argmax(axis=0)
    cells = np.argsort(-size, axis=None, kind="stable")[:count]
    return tuple(
        Gap(int(word), int(neuron), _PAIRS[pair[word, neuron]], float(size[word, neuron]))
        for word, neuron in zip(*np.unravel_index(cells, size.shape), strict=True)
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks [n] from 0, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[place]
