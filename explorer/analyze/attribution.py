"""Which neurons make the model say a word: ranked by a guess, then by what happens without them.

The guess is gradient x activation at the site: with g_t the gradient of the word's log-probability by
patch t, neuron j contributes z_tj (g_t . W_dec[j]) there (times the patch's scale, for an SAE that scales
each vector), and the sum over patches is the first-order drop of the log-probability when the neuron is set
to zero. The best guesses are then set to zero (or another value) for real, one by one, and ranked by the drop
that this gives.

What it does not know: a neuron that does not fire has nothing to contribute and is never listed. Where a
word is said because something is missing (a fork, because nothing says "no fork"), the neurons listed are
those that the word rests on; whether they are to blame is for the person to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor

from explorer.analyze.columns import checked
from explorer.analyze.places import BATCH, Place, Progress
from explorer.analyze.removals import Drop, Patches, Removals, checked_mask, gathered
from explorer.analyze.targets import target_in
from explorer.errors import EditError
from explorer.records import Cancel
from explorer.session import Session, View

Rank = Literal["support", "size"]
By = Literal["measured", "selective", "estimate"]
KEYS = {"measured": lambda drop: drop.measured, "selective": lambda drop: drop.selective}
GATHERED_FROM = 8
"""How many of the best neurons a common removal is put together from."""


class Guess(NamedTuple):
    """A firing neuron: its mean activation over the patches asked about, and the estimated drop in nats."""

    neuron: int
    activation: float
    estimate: float


@dataclass(frozen=True, eq=False)
class NeuronEffect:
    """What a neuron does for a word.

    activation: mean over the patches asked about; estimate: first-order drop of the word's log-probability
    at zero, in nats, above 0 for a neuron that supports the word; measured: the drop at the value asked for;
    others: what the answer's other words lost by it, summed over those that lost; always_on: in the top-20 of
    every indexed image; map: [rows, cols] float32, the estimate by patch.
    """

    neuron: int
    activation: float
    estimate: float
    measured: float
    others: float
    always_on: bool
    map: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Attribution:
    """The neurons behind one word of an answer.

    place: the word, and the answer that was read along; instead: the answer that it was held against, if any;
    score: what is explained, untouched, in nats: the word's log-probability, or the log-odds where the two
    answers part; value: what neurons were set to when measured; ranked: the measured neurons, best first;
    guesses: all that fire at the patches asked about, in the order of the guess; joint: sets of 1, 2, ...
    neurons, each with the one added that does most; map: [rows, cols] float32, the estimates of all neurons
    by patch; complete: False when it was cancelled before everything was measured.
    """

    place: Place
    instead: str | None
    score: float
    value: float
    ranked: tuple[NeuronEffect, ...]
    guesses: tuple[Guess, ...]
    joint: tuple[Drop, ...]
    map: np.ndarray = field(repr=False)
    complete: bool = True


def attribute(
    session: Session,
    view: View,
    word: str,
    prompt: str | None = None,
    answer: str | None = None,
    measure: int = 20,
    value: float = 0.0,
    *,
    instead: str | None = None,
    patches: Patches = "active",
    rank: Rank = "support",
    by: By = "measured",
    joint: int = 0,
    leave_out: Sequence[int] = (),
    skip_always_on: bool = False,
    occurrence: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Attribution:
    """Rank the neurons behind a word, or a run of words, of an answer.

    answer: None for the model's own; any text will do. instead: what should be answered in its place: then it
    is explained why the two part where they do (see `Target`). measure: how
    many of the best guesses are set to `value` for real. patches: "active" changes a neuron where it fires,
    None everywhere; a (rows, cols) mask guesses and changes only there, where it fires. rank: guesses that
    "support" the word first, or by "size", so that those against it come too. by: what ranks the measured
    ones: the drop, the drop less what other words lose ("selective"), or the guess. joint: how many
    neurons are gathered for a common removal. leave_out, skip_always_on: neurons not measured. occurrence: 1
    for the second time that the answer says the word. One backward pass, 1 + measure passes, and up to 7 for
    each further neuron of `joint`. Raises EditError for a word that the answer does not have, unknown
    neurons, values that are not finite, a mask of another shape, or patches where nothing fires.
    """
    _check(measure, value, joint, rank, by)
    mask = checked_mask(view, patches)
    left_out = set(checked(leave_out, view.n_neurons).tolist()) if len(leave_out) else set()
    known = frozenset(() if session.store is None else session.always_on())
    asked = session.lvlm.default_prompt if prompt is None else prompt
    said = session.answer(view, asked) if answer is None else answer
    target = target_in(session, said, word, occurrence, instead)
    slope = target.slope(session, view, asked)
    fired = Contributions.of(session, view, slope.gradient, mask)
    guesses = fired.guesses(rank)
    left_out |= known if skip_always_on else set()
    chosen = [guess for guess in guesses if guess.neuron not in left_out][:measure]
    passes = len(chosen) + sum(GATHERED_FROM - more for more in range(joint))
    removals = Removals(session, view, asked, target, value, patches, batch, progress, cancel, passes)
    ranked = _ranked(removals, chosen, by, known, fired)
    best = [effect.neuron for effect in ranked[:GATHERED_FROM]]
    sets = gathered(removals, best, joint, KEYS.get(by, KEYS["measured"]))
    told = (ranked, tuple(guesses), tuple(sets), fired.map(), not removals.stopped)
    return Attribution(target.place, instead, slope.score, value, *told)


def _ranked(
    removals: Removals, chosen: Sequence[Guess], by: By, known: frozenset[int], fired: Contributions
) -> tuple[NeuronEffect, ...]:
    """The chosen neurons measured one by one, best first."""
    found = list(zip(chosen, removals.drops([(guess.neuron,) for guess in chosen]), strict=False))
    if by != "estimate":
        found.sort(key=lambda pair: KEYS[by](pair[1]), reverse=True)
    return tuple(
        NeuronEffect(*guess, drop.measured, drop.others, guess.neuron in known, fired.map(guess.neuron))
        for guess, drop in found
    )


@dataclass(frozen=True, eq=False)
class Contributions:
    """z (g . W_dec) of every activation at the patches asked about: four tensors of one length.

    tokens: the patch of the main grid, -1 beside it; activations: 0 at further scales.
    """

    tokens: Tensor
    neurons: Tensor
    activations: Tensor
    values: Tensor
    mask: np.ndarray

    @classmethod
    def of(cls, session: Session, view: View, gradient: Tensor, mask: np.ndarray) -> Self:
        """From the gradient [T, d] of a word's log-probability by the patches of `View.everywhere`.

        Patches of further scales count for the patch of the main grid under them; those beside it only when
        the whole picture is asked about. Raises EditError where nothing fires.
        """
        codes, patches, cells = view.everywhere
        asked = torch.from_numpy(np.append(mask.ravel(), bool(mask.all())))
        here = asked[cells[codes.tokens]]
        if not here.any():
            raise EditError(f"no neuron fires at the {int(mask.sum())} patches asked about; choose others")
        tokens, neurons, values = (column[here] for column in codes)
        slopes = torch.zeros_like(values)
        directions, scale = session.sae.W_dec.detach().cpu(), session.sae.scale(patches)
        gradient = gradient if scale is None else gradient * scale.factor.to(gradient)
        for start in range(0, len(tokens), _CHUNK):
            part = slice(start, start + _CHUNK)
            slopes[part] = (gradient[tokens[part]] * directions[neurons[part]]).sum(1)
        shown = values.where(tokens < mask.size, 0.0)
        return cls(cells[tokens], neurons, shown, values * slopes, mask)

    def guesses(self, rank: Rank) -> list[Guess]:
        """All neurons that fire there, best guess first; of equal ones the lower neuron first."""
        neurons, places = torch.unique(self.neurons, return_inverse=True)
        sums = torch.zeros(2, len(neurons), dtype=torch.float64)
        for row, values in enumerate((self.activations, self.values)):
            sums[row].index_add_(0, places, values.double())
        means, estimates = sums[0] / int(self.mask.sum()), sums[1]
        size = estimates.abs() if rank == "size" else estimates
        order = torch.sort(size, descending=True, stable=True).indices
        return [Guess(int(neurons[i]), float(means[i]), float(estimates[i])) for i in order]

    def map(self, neuron: int | None = None) -> np.ndarray:
        """What a neuron, or all of them, contributes at each patch: [rows, cols] float32."""
        here = self.tokens >= 0 if neuron is None else (self.tokens >= 0) & (self.neurons == neuron)
        found = torch.zeros(self.mask.size)
        found.index_add_(0, self.tokens[here], self.values[here])
        return found.numpy().reshape(self.mask.shape)


_CHUNK = 1 << 15


def _check(measure: int, value: float, joint: int, rank: str, by: str) -> None:
    if measure < 1 or joint < 0 or not math.isfinite(value):
        raise EditError(
            f"measure {measure}, joint {joint}, value {value!r}: give 1 or more, 0 or more, a finite number"
        )
    for chosen, known in ((rank, get_args(Rank)), (by, get_args(By))):
        if chosen not in known:
            raise EditError(f"unknown ranking {chosen!r}; use one of {', '.join(known)}")
