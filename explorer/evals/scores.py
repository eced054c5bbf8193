"""Scores of answers with their uncertainty: yes/no questions, objects named in captions, bootstrap.

Every score is a ratio of two sums over scenes, a `Tally`: accuracy, precision, recall, F1, CHAIR. The
scene is the unit that is drawn anew: several questions, seeds or captions of one scene are summed first,
since they are not independent. Knows what was said and what is true; nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 1 << 22  # counts of drawn scenes held at once
_WORD = re.compile(r"[a-z]+(?:['’][a-z]+)*")


class Tally(NamedTuple):
    """A score before it is divided: parts [S] over wholes [S], one entry per scene."""

    parts: np.ndarray
    wholes: np.ndarray

    @property
    def score(self) -> float:
        """Sum of the parts over the sum of the wholes; NaN without any."""
        return _ratio(self.parts.sum(), self.wholes.sum())


class Interval(NamedTuple):
    """A score and the bounds of its confidence interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def tally(scenes: Sequence[Hashable], parts: Sequence[float], wholes: Sequence[float]) -> Tally:
    """Sum observations by scene; scenes come in the order of their first observation.

    scenes, parts, wholes: one entry per observation. For a mean, let the wholes be 1.
    """
    place = {scene: i for i, scene in enumerate(dict.fromkeys(scenes))}
    where = np.array([place[scene] for scene in scenes], dtype=np.int64)
    size = len(place)
    return Tally(np.bincount(where, parts, size), np.bincount(where, wholes, size))


def interval(score: Tally, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """A score with its percentile bootstrap interval over scenes.

    Resamples in which the score is not defined are left out.
    """
    return _percentiles(score.score, _resampled([score], resamples, seed)[0], level)


def difference(
    score: Tally, against: Tally, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """score - against with its percentile bootstrap interval; both are drawn with the same scenes.

    The two must be of the same scenes in the same order.
    """
    assert len(score.parts) == len(against.parts), "paired scores are of the same scenes"
    one, other = _resampled([score, against], resamples, seed)
    return _percentiles(score.score - against.score, one - other, level)


def intervals(scores: Mapping[str, Tally], **settings: float) -> dict[str, Interval]:
    """`interval` of each named score."""
    return {name: interval(score, **settings) for name, score in scores.items()}


def differences(
    scores: Mapping[str, Tally], against: Mapping[str, Tally], **settings: float
) -> dict[str, Interval]:
    """`difference` of each named score to the one of the same name."""
    return {name: difference(score, against[name], **settings) for name, score in scores.items()}


def yes_or_no(answer: str) -> bool | None:
    """What an answer says: True, False, or None when it says neither.

    Only the first sentence counts, case does not. "no", "not", "cannot" and words that end in "n't" say no,
    even beside a "yes"; otherwise "yes" says yes. Whole words only: "know" and "nothing" say nothing. POPE's
    own reader (RUCAIBox/POPE, evaluate.py) takes what says neither for a yes; here it is a wrong answer.
    """
    sentence = re.split(r"[.!?\n]", answer.strip(), maxsplit=1)[0].lower()
    words = _WORD.findall(sentence)
    if any(word in ("no", "not", "cannot") or word.endswith(("n't", "n’t")) for word in words):
        return False
    return True if "yes" in words else None


def yes_no(
    scenes: Sequence[Hashable], truths: Sequence[bool], answers: Sequence[bool | None]
) -> dict[str, Tally]:
    """Scores of yes/no questions, "yes" being positive, as POPE (arXiv 2305.10355) has them.

    accuracy: right answers over all; precision, recall and f1 (2 TP / (2 TP + FP + FN)) of "yes", where an
    answer that says neither is no "yes"; yes_ratio: share answered "yes"; unclear: share that say neither.
    """
    truth = np.array(truths, dtype=bool)
    said = np.array([answer is True for answer in answers], dtype=bool)
    unclear = np.array([answer is None for answer in answers], dtype=bool)
    right, hit = (said == truth) & ~unclear, said & truth
    all_asked = np.ones(len(truth))
    return {
        "accuracy": tally(scenes, right, all_asked),
        "precision": tally(scenes, hit, said),
        "recall": tally(scenes, hit, truth),
        "f1": tally(scenes, 2 * hit, said.astype(int) + truth),
        "yes_ratio": tally(scenes, said, all_asked),
        "unclear": tally(scenes, unclear, all_asked),
    }


def object_hallucination(
    scenes: Sequence[Hashable],
    named: Sequence[Collection[str]],
    there: Sequence[Collection[str]],
    clear: Sequence[Collection[str]] | None = None,
) -> dict[str, Tally]:
    """CHAIR (arXiv 1809.02156) on exact truth; one entry per caption.

    named: the objects that it names; there: those that are in the picture; clear: those that it should
    name, None for all. chair_i: false among all named, each object counted once per caption (CHAIR counts
    repetitions); chair_s: captions with a false one; recall: named among the clear ones; length: objects
    named per caption.
    """
    wanted = there if clear is None else clear
    false = np.array([len(set(n) - set(t)) for n, t in zip(named, there, strict=True)])
    said = np.array([len(set(n)) for n in named])
    found = np.array([len(set(n) & set(w)) for n, w in zip(named, wanted, strict=True)])
    captions = np.ones(len(said))
    return {
        "chair_i": tally(scenes, false, said),
        "chair_s": tally(scenes, false > 0, captions),
        "recall": tally(scenes, found, [len(set(w)) for w in wanted]),
        "length": tally(scenes, said, captions),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _resampled(scores: Sequence[Tally], resamples: int, seed: int) -> np.ndarray:
    """Each score [len(scores), resamples] over scenes drawn with replacement, the same for all of them."""
    size = len(scores[0].parts)
    sums = np.stack([column for score in scores for column in score], axis=1).astype(float)
    found = np.full((len(scores), resamples), np.nan)
    start = 0
    for times in _draws(size, resamples, seed):
        drawn, end = times @ sums, start + len(times)
        parts, wholes = drawn[:, ::2].T, drawn[:, 1::2].T
        np.divide(parts, wholes, out=found[:, start:end], where=wholes != 0)
        start = end
    return found


def _draws(size: int, resamples: int, seed: int) -> Iterable[np.ndarray]:
    """How often each scene is drawn, [some resamples, size], until there are as many as asked for."""
    step = max(1, _CHUNK // max(1, size))
    if step >= resamples:
        return (_first_draws(size, resamples, seed),)
    rng = np.random.default_rng(seed)
    counts = (min(step, resamples - start) for start in range(0, resamples, step))
    return (rng.multinomial(size, np.full(size, 1 / size), count).astype(float) for count in counts)


@lru_cache(maxsize=2)
def _first_draws(size: int, resamples: int, seed: int) -> np.ndarray:
    """All draws at once: reports score the same scenes many times."""
    if not size:
        return np.zeros((resamples, 0))
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), resamples).astype(float)


def _percentiles(value: float, drawn: np.ndarray, level: float) -> Interval:
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
