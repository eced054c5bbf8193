"""What noise does to a picture's neurons, step by step: Figures 3 and 15 of Contrastive Neuron Steering.

A picture is drawn under noise at several steps (see `explorer.steer.noise`) and several times at each. Kept
are the activations of some neurons, how many of the strongest were replaced (the change ratio, eq 3 of
arXiv 2602.00621) in four classes, and on request what the model says of the noisy picture, and of the
picture contrasted with it. Knows a session; nothing of drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as with_changed
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explorer.analyze.changes import Changes, K, changes
from explorer.analyze.columns import checked, columns
from explorer.errors import EditError
from explorer.records import Grid
from explorer.sae import SparseCodes
from explorer.session import Noisy, Session, View
from explorer.steer import Contrast, signal_and_noise
from explorer.vlm.share import shares

STEPS = (0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
_DEVIATIONS = 1.96  # of a mean, to each side, for 95 %


class Averaged(NamedTuple):
    """The mean over draws of noise, and their standard deviation (0 for a single one)."""

    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class Sweep:
    """One picture under noise at S steps, R times at each.

    neurons: [n] watched; clean: [n] their means over the picture without noise; clean_maps: [n, rows,
    cols]; activations: [S, R, n]; maps: [S, n, rows, cols], means over the draws; changes: [S, R, 4];
    captions, contrasted: S texts with the first seed, or none when not asked for.
    """

    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    neurons: tuple[int, ...]
    always_on: tuple[int, ...]
    clean: np.ndarray = field(repr=False)
    clean_maps: np.ndarray = field(repr=False)
    activations: np.ndarray = field(repr=False)
    maps: np.ndarray = field(repr=False)
    changes: Changes = field(repr=False)
    captions: tuple[str, ...] = ()
    contrasted: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Curve:
    """Many pictures under noise: means over `pictures`, with the bounds of their 95 % intervals.

    mean, low, high: [S, 4]; an interval is the mean and 1.96 standard errors over the pictures to each
    side, within 0 to 1 for change ratios. Draws of one picture are averaged first.
    """

    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    pictures: int
    mean: Changes
    low: Changes
    high: Changes


def noise_sweep(
    session: Session,
    view: View,
    steps: Sequence[int] = STEPS,
    seeds: Sequence[int] = (0,),
    neurons: Sequence[int] | None = None,
    *,
    k: int = K,
    always_on: Sequence[int] | None = None,
    captions: bool = False,
    contrast: Contrast | None = None,
    prompt: str | None = None,
    max_new_tokens: int = 64,
) -> Sweep:
    """Follow one picture's neurons through the noise.

    steps: of the noise, 0 .. 999; seeds: one draw each; neurons: None for the k strongest of the picture;
    always_on: None for the store's, none without a store; captions: answer `prompt` (None: the model's
    default) about the noisy pictures; contrast: answer it also with this contrastive steering, its step and
    seed replaced by each step and the first seed. Raises EditError for steps or neurons that do not exist,
    or none of them.
    """
    _check(steps, seeds, k)
    strongest = [found.neuron for found in view.top(k)] if neurons is None else neurons
    watched, always = checked(strongest, view.n_neurons), _always_on(session, always_on)
    grid = view.grid
    draws = _draws(session, view, steps, seeds)
    maps = np.stack([[_maps(noisy.codes, watched, grid) for noisy in row] for row in draws])
    clean_maps = _maps(view.codes, watched, grid)
    asked = session.lvlm.default_prompt if prompt is None else prompt
    hidden = [row[0].hidden for row in draws] if captions else []
    against = [] if contrast is None else [with_changed(contrast, step=step, seed=seeds[0]) for step in steps]
    steered = [session.steered(view, contrast=one).hidden for one in against]
    return Sweep(
        steps=tuple(steps),
        seeds=tuple(seeds),
        neurons=tuple(watched.tolist()),
        always_on=always,
        clean=clean_maps.mean(axis=(1, 2)),
        clean_maps=clean_maps,
        activations=maps.mean(axis=(3, 4)),
        maps=maps.mean(axis=1),
        changes=_changed(view, draws, always, k),
        captions=_said(session, view, hidden, asked, max_new_tokens),
        contrasted=_said(session, view, steered, asked, max_new_tokens),
    )


def noise_curve(
    session: Session,
    views: Iterable[View],
    steps: Sequence[int] = STEPS,
    seeds: Sequence[int] = (0,),
    *,
    k: int = K,
    always_on: Sequence[int] | None = None,
) -> Curve:
    """The change ratios of many pictures. views: taken one by one, so that a generator keeps memory small.

    Raises EditError as `noise_sweep` does, and for no pictures.
    """
    _check(steps, seeds, k)
    always = _always_on(session, always_on)
    found = []
    for view in views:
        draws = _changed(view, _draws(session, view, steps, seeds), always, k)
        found.append(_mean(np.stack([draws.image, draws.patch, draws.kept]), axis=2))
    if not found:
        raise EditError("there are no pictures to put under noise")
    values = np.stack(found)
    mean, error = _mean(values), _standard_error(values)
    bounds = [mean - _DEVIATIONS * error, mean + _DEVIATIONS * error]
    for bound in bounds:
        np.clip(bound[:2], 0.0, 1.0, out=bound[:2])
    return Curve(tuple(steps), tuple(seeds), len(found), *(Changes(*part) for part in (mean, *bounds)))


def averaged(values: np.ndarray, axis: int = 1) -> Averaged:
    """Mean and standard deviation over an axis, by default the draws of a `Sweep`; NaN counts as absent."""
    mean = _mean(values, axis)
    apart = np.square(values - np.expand_dims(mean, axis))
    return Averaged(mean, np.sqrt(_mean(apart, axis)))


def _draws(session: Session, view: View, steps: Sequence[int], seeds: Sequence[int]) -> list[list[Noisy]]:
    """The picture under noise, by step and seed."""
    found = iter(session.noisy_many(view, [(step, seed) for step in steps for seed in seeds]))
    return [[next(found) for _ in seeds] for _ in steps]


def _changed(view: View, draws: Sequence[Sequence[Noisy]], always_on: Sequence[int], k: int) -> Changes:
    """What each draw did, [S, R, 4]."""
    patches = view.grid.rows * view.grid.cols
    found = [[changes(view.codes, noisy.codes, patches, always_on, k) for noisy in row] for row in draws]
    names = ("image", "patch", "kept")
    return Changes(*(np.array([[getattr(one, name) for one in row] for row in found]) for name in names))


def _maps(codes: SparseCodes, neurons: np.ndarray, grid: Grid) -> np.ndarray:
    """Where neurons fire: [n, rows, cols] float32."""
    return columns(codes, neurons, grid.rows * grid.cols).numpy().T.reshape(-1, grid.rows, grid.cols)


def _said(
    session: Session, view: View, hidden: Sequence[Tensor], prompt: str, max_new_tokens: int
) -> tuple[str, ...]:
    """The answers to some outputs of the block for one picture."""
    like, texts = view.prepared, []
    for share in shares(hidden, like):
        with session.turn():
            features = session.lvlm.features(torch.stack(list(share)), session.block, like)
            texts += session.lvlm.generate_many(features, prompt, max_new_tokens, like)
    return tuple(texts)


def _always_on(session: Session, always_on: Sequence[int] | None) -> tuple[int, ...]:
    if always_on is not None:
        return tuple(always_on)
    return () if session.store is None else tuple(session.always_on())


def _check(steps: Sequence[int], seeds: Sequence[int], k: int) -> None:
    """Raises EditError for no steps, no seeds, a step outside the schedule, or k below 1."""
    if not len(steps) or not len(seeds):
        raise EditError(f"{len(steps)} steps and {len(seeds)} seeds of noise: name at least one of each")
    if k < 1:
        raise EditError(f"k = {k} is too few of the strongest neurons; use 1 or more")
    for step in steps:
        signal_and_noise(step)


def _mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis, NaN left out; NaN for fewer than two values."""
    count = (~np.isnan(values)).sum(axis=0)
    squares = _mean(np.square(values - _mean(values)))
    return np.sqrt(np.divide(squares, count - 1, out=np.full(squares.shape, np.nan), where=count > 1))
