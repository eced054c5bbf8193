"""A flat map of directions: neurons whose decoder directions are near lie near each other.

The 8 nearest directions of each neuron pull it, all others push it away, in the manner of LargeVis and UMAP,
from where the two strongest principal components put it; forces fall with the distance as t-SNE's kernel
1 / (1 + d^2) does. All neurons move together, step by step, so the same directions give the same map (on the
same kind of machine). Knows numpy and the search for neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explorer.store.neighbours import neighbours
from explorer.store.vectors import unit_rows

NEAREST = 8
"""Neighbours that pull."""
FEWEST = 12
"""Fewer directions lie where their two strongest components put them."""
_DIMENSIONS = 128
"""Neighbours are looked for among so many principal components."""
_STEPS = 500
_PUSHES = 30
"""Pairs per neuron, by chance, that push in one step; each acts on both."""
_ALL = 200
"""Among up to so many, all pairs push."""
_STRENGTH = 5.0
"""Of all pushes on a neuron, against all pulls."""
_HOME = 0.002
"""How much the middle pulls, so that groups that nothing holds do not drift off."""
_SHORTEST = 1e-3
_FARTHEST = 4.0
_MOMENTUM = 0.5
_SEED = 0


class _Edges(NamedTuple):
    """Pairs of rows that pull each other: one, other [e] int64, weight [e] float32."""

    one: np.ndarray
    other: np.ndarray
    weight: np.ndarray


def positions(units: np.ndarray) -> np.ndarray:
    """A place [F, 2] float64 for each direction [F, d], within -1..1; NaN for one of length 0.

    units: float32 of unit length, as `unit_rows` gives them and the store keeps them, or 0.
    """
    found = np.full((len(units), 2), np.nan)
    live = np.flatnonzero(units.any(axis=1))
    if len(live):
        found[live] = _fitted(_placed(units[live]))
    return found


def _placed(units: np.ndarray) -> np.ndarray:
    """Places [n, 2] of unit directions [n, d], in any scale."""
    short = _principal(units)
    if len(units) < FEWEST:
        return _two(short)
    order = np.random.default_rng(_SEED).permutation(len(units))
    short = short[order]
    near = neighbours(unit_rows(short), NEAREST)
    start = _two(short)
    start = start * (10 / max(float(start.std()), 1e-12))
    placed = np.empty((len(units), 2))
    placed[order] = _moved(start.astype(np.float32), _edges(near.rows, near.cosines))
    return placed


def _principal(units: np.ndarray) -> np.ndarray:
    """The at most 128 strongest principal components of centred rows, [n, c]. An axis points to where its
    largest part is positive."""
    centred = units - units.mean(0, dtype=np.float64).astype(np.float32)
    values, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = axes[:, np.argsort(-values, kind="stable")[:_DIMENSIONS]]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    return centred @ (axes * signs).astype(np.float32)


def _two(short: np.ndarray) -> np.ndarray:
    """The first two columns, float64, zeros where there are fewer."""
    two = np.zeros((len(short), 2))
    two[:, : short.shape[1]] = short[:, :2]
    return two


def _edges(rows: np.ndarray, cosines: np.ndarray) -> _Edges:
    """Each pair of neighbours once.

    Nearer ones pull more: exp(-excess / mean excess), the excess of the distance over that of the nearest.
    Where each is the other's neighbour, both pulls add up.
    """
    n, k = rows.shape
    far = np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), 0))
    excess = far - far[:, :1]
    weight = np.exp(-excess / np.maximum(excess.mean(1, keepdims=True), 1e-9))
    one, other = np.repeat(np.arange(n), k), rows.ravel()
    there = other >= 0
    low, high = np.minimum(one, other)[there], np.maximum(one, other)[there]
    pairs, which = np.unique(low * n + high, return_inverse=True)
    total = np.bincount(which, weight.ravel()[there], len(pairs))
    return _Edges(pairs // n, pairs % n, (total / 2).astype(np.float32))


def _moved(places: np.ndarray, edges: _Edges) -> np.ndarray:
    """Let the pairs pull and all others push, in steps that grow smaller."""
    n = len(places)
    dice = np.random.default_rng(_SEED + 1)
    pulled = np.bincount(edges.one, edges.weight, n) + np.bincount(edges.other, edges.weight, n)
    scale = (1 / np.maximum(pulled, 1e-6)).astype(np.float32)
    speed = np.zeros_like(places)
    for step in range(_STEPS):
        force = _pull(places, edges) * scale[:, None]
        force += _STRENGTH * (
            _push_of_all(places) if n <= _ALL else _push(places, dice.integers(1, n, _PUSHES))
        )
        force -= _HOME * places
        speed = _MOMENTUM * speed + np.clip(force, -_FARTHEST, _FARTHEST)
        places = places + (1 - step / _STEPS) * speed
    return places.astype(np.float64)


def _pull(places: np.ndarray, edges: _Edges) -> np.ndarray:
    """The force on each row [n, 2] from the rows that it is paired with."""
    apart = places[edges.one] - places[edges.other]
    strength = 2 * edges.weight / (1 + np.einsum("ij,ij->i", apart, apart))
    force = np.empty_like(places)
    for axis in (0, 1):
        part = strength * apart[:, axis]
        force[:, axis] = np.bincount(edges.other, part, len(places)) - np.bincount(
            edges.one, part, len(places)
        )
    return force


def _push_of_all(places: np.ndarray) -> np.ndarray:
    """The mean force on each row [n, 2] from all others."""
    apart = places[:, None] - places
    return _repelled(apart).sum(1) / (len(places) - 1)


def _repelled(apart: np.ndarray) -> np.ndarray:
    """The force that pushes rows away from others, [..., 2], by how far apart they are, [..., 2]."""
    squares = np.einsum("...i,...i->...", apart, apart)
    push = apart * (2 / ((_SHORTEST + squares) * (1 + squares)))[..., None]
    return np.clip(push, -_FARTHEST, _FARTHEST, out=push)


def _push(places: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """As `_push_of_all`, from rows so many places on and back only; rows are in a random order."""
    force = np.zeros_like(places)
    for shift in shifts.tolist():
        apart = places - np.roll(places, shift, axis=0)
        push = _repelled(apart)
        force += push - np.roll(push, -shift, axis=0)
    return force / (2 * len(shifts))


def _fitted(places: np.ndarray) -> np.ndarray:
    """Centre places and scale them so that the farthest coordinate is 1."""
    centred = places - (places.max(0) + places.min(0)) / 2
    return centred / max(float(np.abs(centred).max()), 1e-12)
