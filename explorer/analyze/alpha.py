"""What a neuron does to an answer as its value is turned: captions, and one word's log-probability.

The untouched picture is always one of the points. Going away from its value on either side, the sweep
tells where the word leaves the caption or comes into it (the flip points), and narrows each down by
halving. Between two neighbouring points that agree nothing is looked for: a word that leaves and comes
back there is missed.

Knows a session; nothing of drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from explorer.analyze.columns import checked
from explorer.analyze.places import (
    BATCH,
    Place,
    Progress,
    best_place,
    log_probs,
    runs_of,
)
from explorer.errors import EditError
from explorer.records import Cancel, Edit, Mode
from explorer.session import Session, View

Got = TypeVar("Got")
Patches = np.ndarray | Literal["active"] | None
"""None for all patches, "active" for those where a neuron fires, or a (rows, cols) boolean mask."""


@dataclass(frozen=True)
class AlphaPoint:
    """One value: the greedy caption, whether it says the word, and the word's log-probability in nats.

    untouched: no edit at all; `alpha` is then where the untouched picture stands among the values.
    """

    alpha: float
    caption: str
    said: bool
    log_prob: float
    untouched: bool = False


@dataclass(frozen=True)
class FlipPoint:
    """Where the word leaves the caption, or comes into it, going away from the untouched picture.

    alpha: the first value known where it has; before: the last known where it has not; leaves: False where
    it comes in; caption: at `alpha`.
    """

    alpha: float
    before: float
    leaves: bool
    caption: str


@dataclass(frozen=True)
class AlphaSweep:
    """A sweep over the values of some neurons.

    place: where the word's log-probability is read (`place.said` is False for a word that the untouched
    answer lacks); points: ascending by alpha; flips: ascending; extra: captions that narrowing down took;
    complete: False when it was cancelled, and points or narrowing are missing.
    """

    neurons: tuple[int, ...]
    mode: Mode
    place: Place
    points: tuple[AlphaPoint, ...]
    flips: tuple[FlipPoint, ...]
    extra: int
    complete: bool

    @property
    def untouched(self) -> AlphaPoint:
        """The point without any edit."""
        return next(point for point in self.points if point.untouched)


def alpha_sweep(
    session: Session,
    view: View,
    neurons: int | Sequence[int],
    alphas: Sequence[float],
    word: str,
    prompt: str | None = None,
    mode: Mode = "set",
    patches: Patches = "active",
    *,
    says: Callable[[str], bool] | None = None,
    tolerance: float | None = None,
    max_new_tokens: int = 64,
    batch: int = BATCH,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> AlphaSweep:
    """Caption and log-probability of a word over values of one neuron, or of several at once.

    alphas: the values, in any order; mode, patches: as in `Edit`. The untouched picture stands at the mean
    activation over the patches that are set (mode "set"), at 0 ("add") or at 1 ("scale"). word: a word or a
    run of words; its log-probability is read at its place in the untouched answer, or at the best place by
    the untouched model (`best_place`). says: whether a caption says it, None for the very words whatever
    their case. tolerance: how far flip points are narrowed down, None for 1 % of the span; batch: pictures at
    a time. Cancelled, it gives what it has.
    Raises EditError for unknown neurons, values that are none or not finite, a mask of another shape, or a
    text without words.
    """
    several = [neurons] if isinstance(neurons, int) else neurons
    chosen = tuple(checked(several, view.n_neurons).tolist())
    values = _checked(alphas)
    makes = _Edits(view, chosen, mode, patches)
    resting = makes.resting()
    step = _step(tolerance, [*values, resting])
    answer = session.answer(view, prompt, max_new_tokens=max_new_tokens)
    place = best_place(session, view, word, prompt, answer, batch)
    found = says or (lambda text: bool(runs_of(session.lvlm, text, word)))
    work = _Work(session, view, makes, prompt, max_new_tokens, batch, progress, cancel, 2 * len(values) + 1)

    base = float(log_probs(session, [(view, ())], prompt, place, batch)[0])
    points = [AlphaPoint(resting, answer, found(answer), base, untouched=True)]
    captions = work.captions(values)
    chances = work.log_probs(values[: len(captions)], place)
    points += [
        AlphaPoint(alpha, caption, found(caption), chance)
        for alpha, caption, chance in zip(values, captions, chances, strict=False)
    ]
    before = work.done
    flips = sorted(_narrowed(work, _flips(points), step, found), key=lambda flip: flip.alpha)
    points.sort(key=lambda point: (point.alpha, not point.untouched))
    extra = work.done - before
    return AlphaSweep(chosen, mode, place, tuple(points), tuple(flips), extra, not work.stopped)


@dataclass(frozen=True, eq=False)
class _Edits:
    """The edits of a value, one per neuron."""

    view: View
    neurons: tuple[int, ...]
    mode: Mode
    patches: Patches

    def __call__(self, alpha: float) -> tuple[Edit, ...]:
        return tuple(Edit(neuron, alpha, self.mode, self.patches) for neuron in self.neurons)

    def resting(self) -> float:
        """Where the untouched picture stands among the values. Raises EditError for a misshapen mask."""
        maps = np.stack([self.view.map(neuron) for neuron in self.neurons])
        mask = self(0.0)[0].patches
        if isinstance(mask, np.ndarray) and mask.shape != maps.shape[1:]:
            raise EditError(f"the mask has the shape {mask.shape}, the picture's grid {maps.shape[1:]}")
        if self.mode != "set":
            return 0.0 if self.mode == "add" else 1.0
        reached = maps[:, mask] if isinstance(mask, np.ndarray) else maps[maps != 0] if mask else maps
        return float(reached.mean()) if reached.size else 0.0


@dataclass
class _Work:
    """Batches of pictures through the session, which can be watched and stopped between two of them."""

    session: Session
    view: View
    makes: _Edits
    prompt: str | None
    max_new_tokens: int
    batch: int
    progress: Progress | None
    cancel: Cancel | None
    total: int
    done: int = 0
    stopped: bool = False

    def captions(self, alphas: Sequence[float]) -> list[str]:
        """The captions of the values, fewer when stopped."""

        def ask(part: Sequence[float]) -> list[str]:
            asked = [(self.view, self.makes(alpha)) for alpha in part]
            return self.session.answers(asked, self.prompt, max_new_tokens=self.max_new_tokens)

        return self._batches(alphas, ask)

    def log_probs(self, alphas: Sequence[float], place: Place) -> list[float]:
        """The word's log-probabilities at the values, fewer when stopped."""

        def ask(part: Sequence[float]) -> list[float]:
            asked = [(self.view, self.makes(alpha)) for alpha in part]
            return log_probs(self.session, asked, self.prompt, place, self.batch).tolist()

        return self._batches(alphas, ask)

    def _batches(self, alphas: Sequence[float], ask: Callable[[Sequence[float]], list[Got]]) -> list[Got]:
        """What `ask` gives for all values, a batch at a time, until stopped."""
        results: list[Got] = []
        for start in range(0, len(alphas), self.batch):
            self.stopped = self.stopped or (self.cancel is not None and self.cancel.is_set())
            if self.stopped:
                break
            part = alphas[start : start + self.batch]
            results += ask(part)
            self.done += len(part)
            if self.progress is not None:
                self.progress(self.done, max(self.done, self.total))
        return results


def _flips(points: Sequence[AlphaPoint]) -> list[FlipPoint]:
    """Where neighbouring points disagree, going outwards from the untouched one on either side."""
    start = points[0]
    assert start.untouched, "the untouched point comes first"
    above = sorted((p for p in points[1:] if p.alpha >= start.alpha), key=lambda p: p.alpha)
    below = sorted((p for p in points[1:] if p.alpha < start.alpha), key=lambda p: -p.alpha)
    return [
        FlipPoint(far.alpha, near.alpha, near.said, far.caption)
        for side in (above, below)
        for near, far in zip([start, *side], side, strict=False)
        if near.said != far.said
    ]


def _narrowed(
    work: _Work, flips: Sequence[FlipPoint], step: float, found: Callable[[str], bool]
) -> list[FlipPoint]:
    """The flip points halved until they are known to `step`: one batch per round for all of them."""
    current = list(flips)
    while True:
        middles = {
            i: middle
            for i, flip in enumerate(current)
            if abs(flip.alpha - flip.before) > step
            and (middle := (flip.alpha + flip.before) / 2) not in (flip.alpha, flip.before)
        }
        captions = work.captions(list(middles.values()))
        for (i, middle), caption in zip(middles.items(), captions, strict=False):
            flip = current[i]
            if found(caption) == flip.leaves:
                current[i] = FlipPoint(flip.alpha, middle, flip.leaves, flip.caption)
            else:
                current[i] = FlipPoint(middle, flip.before, flip.leaves, caption)
        if not middles or work.stopped:
            return current


def _step(tolerance: float | None, values: Sequence[float]) -> float:
    """How far flip points are narrowed down."""
    if tolerance is None:
        return (max(values) - min(values)) / 100
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise EditError(f"the tolerance must be a number above 0, not {tolerance!r}")
    return tolerance


def _checked(alphas: Sequence[float]) -> list[float]:
    """The values, each once and ascending. Raises EditError for none and for what is not finite."""
    values = sorted({float(alpha) for alpha in alphas if math.isfinite(alpha)})
    wrong = [alpha for alpha in alphas if not math.isfinite(alpha)]
    if wrong:
        raise EditError(f"the value {wrong[0]!r} is not a finite number")
    if not values:
        raise EditError("no values were given; give one or more, such as -30, 0, 30")
    return values
