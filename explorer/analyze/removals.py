"""What a word of an answer loses when neurons are set to a value: measured, for many sets of neurons.

Knows a session and targets; nothing of rankings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from explorer.analyze.places import BATCH, Progress
from explorer.analyze.targets import Target
from explorer.errors import EditError
from explorer.records import Cancel, Edit
from explorer.session import Session, View

Patches = np.ndarray | Literal["active"] | None
"""None for all patches, "active" for those where a neuron fires, a (rows, cols) mask for those of them
where it fires."""


OTHERS_WEIGHT = 3.0
"""How much more a nat weighs in selective rankings when the other words lose it."""


class Drop(NamedTuple):
    """Neurons that are changed together, and what it does, in nats.

    measured: how far the target's score falls (a word's log-probability); others: how far the
    log-probabilities of the answer's other words do, summed over those that fall.
    """

    neurons: tuple[int, ...]
    measured: float
    others: float

    @property
    def selective(self) -> float:
        """The fall of the target, less OTHERS_WEIGHT times that of the others."""
        return self.measured - OTHERS_WEIGHT * self.others


def edits_of(view: View, neurons: Sequence[int], value: float, patches: Patches) -> tuple[Edit, ...]:
    """The edits that set neurons to a value; with a mask, each only where it fires."""
    if isinstance(patches, np.ndarray):
        return tuple(Edit(n, value, "set", patches & (view.map(n) != 0)) for n in neurons)
    return tuple(Edit(n, value, "set", patches) for n in neurons)


def checked_mask(view: View, patches: Patches) -> np.ndarray:
    """The patches that are asked about, (rows, cols) bool; all of them where no mask is given.

    Raises EditError for a mask of another kind or shape, or one that marks nothing.
    """
    shape = (view.grid.rows, view.grid.cols)
    if patches is None or (isinstance(patches, str) and patches == "active"):
        return np.ones(shape, dtype=bool)
    if isinstance(patches, str):
        raise EditError(f"unknown patches {patches!r}; use None, 'active' or a boolean mask")
    mask = np.asarray(patches)
    if mask.dtype != np.bool_ or mask.shape != shape or not mask.any():
        raise EditError(
            f"mark some patches in a {shape} boolean mask, not {int(np.count_nonzero(mask))} in one of "
            f"{mask.dtype} and shape {mask.shape}"
        )
    return mask


class Removals:
    """Sets of neurons put to a value and read along an answer, in batches that can be watched and stopped.

    stopped: whether it was cancelled. The untouched picture is read with the first batch.
    """

    def __init__(
        self,
        session: Session,
        view: View,
        prompt: str,
        target: Target,
        value: float = 0.0,
        patches: Patches = "active",
        batch: int = BATCH,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        total: int = 0,
    ) -> None:
        """value: what the neurons are set to; total: passes expected, for `progress`."""
        self._session, self._view, self._prompt, self._target = session, view, prompt, target
        self._value, self._patches, self._batch = value, patches, batch
        self._progress, self._cancel, self._total = progress, cancel, total
        self._done = 0
        self._base: np.ndarray | None = None
        self.stopped = False

    def drops(self, sets: Sequence[Sequence[int]]) -> list[Drop]:
        """What each set of neurons does, in order; fewer when stopped."""
        found: list[Drop] = []
        start = 0
        while start < len(sets):
            self.stopped = self.stopped or (self._cancel is not None and self._cancel.is_set())
            if self.stopped:
                break
            first = [()] if self._base is None else []
            part = sets[start : start + max(1, self._batch - len(first))]
            found += self._read(first, part)
            start += len(part)
            self._done += len(part)
            if self._progress is not None:
                self._progress(self._done, max(self._total, self._done))
        return found

    def _read(self, first: list[tuple[()]], part: Sequence[Sequence[int]]) -> list[Drop]:
        asked = [
            (self._view, edits_of(self._view, neurons, self._value, self._patches))
            for neurons in (*first, *part)
        ]
        score, others = self._target.read(self._session, asked, self._prompt, self._batch)
        chances = torch.cat([score[:, None], others], dim=1).double().cpu().numpy()
        if self._base is None:
            self._base, chances = chances[0], chances[1:]
        falls = self._base - chances
        return [
            Drop(tuple(neurons), float(fall[0]), float(fall[1:].clip(min=0).sum()))
            for neurons, fall in zip(part, falls, strict=True)
        ]


def gathered(
    removals: Removals,
    neurons: Sequence[int],
    most: int,
    key: Callable[[Drop], float],
) -> list[Drop]:
    """Sets of 1, 2, ... `most` neurons: each the one before and the neuron that then does most by `key`."""
    sets: list[Drop] = []
    kept: tuple[int, ...] = ()
    while len(kept) < min(most, len(neurons)) and not removals.stopped:
        found = removals.drops([(*kept, neuron) for neuron in neurons if neuron not in kept])
        if removals.stopped:
            break
        sets.append(max(found, key=key))
        kept = sets[-1].neurons
    return sets
