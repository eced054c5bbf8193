"""Encoded chunks from dense activations, and naive oracles over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explorer.records import Box, Grid
from index.loading import Item
from index.sources.base import PatchTruth
from index.stage.codes import Codes, EncodedChunk
from index.stage.state import BuildState, StateShape

WIDTH = 6
ROWS, COLS = 2, 3

# Few different values make ties common; eighths add up exactly in any order.
ACTIVATIONS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 30), st.just(ROWS * COLS), st.just(5)),
    elements=st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.25, 0.5, 1.0, 3.5]),
    fill=st.just(0.0),
)


def shape_of(dense: np.ndarray, **changes: object) -> StateShape:
    """The shape of a state for activations [N, T, F]."""
    facts: dict = {"n_neurons": dense.shape[2], "n_patches": ROWS * COLS, "rows": ROWS, "cols": COLS}
    return StateShape(**{**facts, "width": WIDTH, **changes})


def codes_of(dense: np.ndarray, n_patches: int | None = None) -> Codes:
    """Activations [b, T, F] in sparse form; tokens from n_patches on are the CLS token."""
    image, token, neuron = (column.astype(np.int32) for column in np.nonzero(dense))
    patches = dense.shape[1] if n_patches is None else n_patches
    return Codes(image, token, neuron, dense[np.nonzero(dense)].astype(np.float32), len(dense), patches)


def vectors_of(numbers: Sequence[int], n_patches: int) -> np.ndarray:
    """Patch vectors [b, T, d] that depend on the image's number alone."""
    return np.stack([np.random.default_rng(n).normal(size=(n_patches, WIDTH)) for n in numbers])


def chunk_of(
    dense: np.ndarray,
    numbers: Sequence[int],
    labels: Sequence[tuple[int, ...]] | None = None,
    truths: Sequence[PatchTruth | None] | None = None,
) -> EncodedChunk:
    """A chunk with activations [b, T (+ 1), F] of the images with these numbers."""
    patches = ROWS * COLS
    grid = Grid(ROWS, COLS, 30, 20, Box(0, 0, 30, 20))
    vectors = vectors_of(numbers, patches).astype(np.float32)
    truths = truths or [None] * len(numbers)
    items = [
        Item(n, f"i{n}", f"from/i{n}", labels[i] if labels else (), grid, b"jpeg", truths[i])
        for i, n in enumerate(numbers)
    ]
    known = {i: vectors[i] for i, truth in enumerate(truths) if truth is not None}
    fvu = np.array([0.1 + 0.01 * (n % 7) for n in numbers], dtype=np.float32)
    codes = codes_of(dense, patches)
    return EncodedChunk(items, [], codes, fvu, vectors.mean(1), vectors, known)


def chunks_of(dense: np.ndarray, batch: int, **more: object) -> list[EncodedChunk]:
    """All images [N, T, F] in chunks; numbers count from 0."""
    found = []
    for start in range(0, len(dense), batch):
        numbers = range(start, min(start + batch, len(dense)))
        part = {name: values[start : start + batch] for name, values in more.items()}
        found.append(chunk_of(dense[start : start + batch], numbers, **part))
    return found


def state_of(shape: StateShape, chunks: Sequence[EncodedChunk]) -> BuildState:
    """A state that took in these chunks."""
    state = BuildState(shape)
    for chunk in chunks:
        state.take(chunk)
    return state


def scores_of(dense: np.ndarray, how: str) -> np.ndarray:
    """Image scores [N, F] float32."""
    exact = dense.astype(np.float64)
    return (exact.mean(axis=1) if how == "mean" else exact.max(axis=1)).astype(np.float32)


def ranking(scores: np.ndarray, places: int) -> list[list[tuple[float, int]]]:
    """For each neuron the best (score, image), by sorting everything. scores [N, F]."""
    rows = []
    for column in scores.T:
        pairs = [(float(s), n) for n, s in enumerate(column) if s > 0]
        rows.append(sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:places])
    return rows


def same_arrays(one: BuildState, other: BuildState) -> None:
    """Assert that two states hold the same."""
    mine, theirs = one.arrays(), other.arrays()
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
