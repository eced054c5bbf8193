"""The streaming top images against a naive dense oracle; order, ties, and memory of who holds places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fake_site import codes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index.scores import Pooling, Scores, highest, pool
from index.top import TopImages

Row = list[tuple[float, str]]

# Few different values make ties common; eighths add up exactly in any order.
ACTIVATIONS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 24), st.just(4), st.just(5)),
    elements=st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.25, 0.5, 1.0, 3.5]),
    fill=st.just(0.0),
)


def oracle(dense: np.ndarray, ids: Sequence[str], places: int, how: Pooling) -> list[Row]:
    """Sort everything. dense [N, T, F]."""
    scores = dense.astype(np.float64).mean(axis=1) if how == "mean" else dense.max(axis=1)
    rows = []
    for neuron in range(dense.shape[2]):
        pairs = [(float(np.float32(s)), i) for s, i in zip(scores[:, neuron], ids, strict=True) if s > 0]
        rows.append(sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:places])
    return rows


def stream(dense: np.ndarray, ids: Sequence[str], places: int, how: Pooling) -> TopImages:
    """Take in the images one at a time."""
    top = TopImages(dense.shape[2], dense.shape[1], places)
    for image_id, activations in zip(ids, dense, strict=True):
        codes = codes_of(activations)
        top.take(image_id, codes, pool(codes, dense.shape[2], how))
    return top


def rows_of(top: TopImages) -> list[Row]:
    """Scores and ids per neuron."""
    return [
        [(float(s), top.holders[h]) for s, h in zip(scores, holder, strict=True) if s > 0]
        for scores, holder in zip(top.scores, top.holder, strict=True)
    ]


def maps_of(top: TopImages) -> np.ndarray:
    """Patch maps [F, P, T] by rank."""
    each = np.arange(len(top.slot))[:, None]
    maps = top.maps[each, top.slot] * top.scales[each, top.slot][..., None]
    return maps * (top.scores > 0)[..., None]


def names(count: int) -> list[str]:
    """Ids whose order as text is not their order as numbers."""
    return [f"i{n}" for n in range(count)]


@settings(max_examples=150, deadline=None)
@given(ACTIVATIONS, st.sampled_from(["mean", "max"]), st.integers(1, 6))
def test_equals_the_oracle(dense: np.ndarray, how: Pooling, places: int) -> None:
    ids = names(len(dense))
    assert rows_of(stream(dense, ids, places, how)) == oracle(dense, ids, places, how)


@settings(max_examples=80, deadline=None)
@given(ACTIVATIONS, st.randoms(use_true_random=False))
def test_order_of_the_images_does_not_matter(dense: np.ndarray, random: object) -> None:
    ids = names(len(dense))
    order = list(range(len(dense)))
    random.shuffle(order)
    one, other = stream(dense, ids, 3, "mean"), stream(dense[order], [ids[i] for i in order], 3, "mean")
    assert rows_of(one) == rows_of(other)
    np.testing.assert_array_equal(maps_of(one), maps_of(other))


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS)
def test_maps_are_those_of_their_image(dense: np.ndarray) -> None:
    ids = names(len(dense))
    top = stream(dense, ids, 4, "mean")
    maps = maps_of(top)
    for neuron, row in enumerate(rows_of(top)):
        for rank, (_, image_id) in enumerate(row):
            true = dense[ids.index(image_id), :, neuron]
            assert np.abs(maps[neuron, rank] - true).max() <= true.max() / 509


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS)
def test_released_images_are_exactly_those_without_a_place(dense: np.ndarray) -> None:
    ids = names(len(dense))
    top = TopImages(5, 4, 2)
    kept: set[str] = set()
    for image_id, activations in zip(ids, dense, strict=True):
        codes = codes_of(activations)
        taken = top.take(image_id, codes, pool(codes, 5, "mean"))
        kept |= {image_id} if taken.placed else set()
        kept -= set(taken.released)
        assert kept == {name for row in rows_of(top) for _, name in row}
        assert len(top.holders) == len(kept) <= 5 * 2


def test_many_images_at_realistic_scores() -> None:
    rng = np.random.default_rng(3)
    dense = rng.exponential(size=(300, 6, 40)).astype(np.float32) * (rng.random((300, 6, 40)) < 0.1)
    ids = names(300)
    assert rows_of(stream(dense, ids, 16, "max")) == oracle(dense, ids, 16, "max")
    assert all(len({name for _, name in row}) == len(row) for row in rows_of(stream(dense, ids, 16, "max")))


def test_equal_scores_go_to_the_lower_id_whatever_the_order() -> None:
    dense = np.ones((6, 2, 1), dtype=np.float32)
    ids = ["f", "b", "e", "a", "d", "c"]
    assert rows_of(stream(dense, ids, 3, "mean")) == [[(1.0, "a"), (1.0, "b"), (1.0, "c")]]


def test_dead_neurons_hold_nobody() -> None:
    dense = np.zeros((3, 2, 2), dtype=np.float32)
    dense[1, 0, 0] = 2.0
    assert rows_of(stream(dense, names(3), 2, "mean")) == [[(1.0, "i1")], []]


@pytest.mark.parametrize(("how", "expected"), [("mean", [0.75, 0.25]), ("max", [2.0, 1.0])])
def test_pooling_counts_silent_patches(how: Pooling, expected: list[float]) -> None:
    dense = np.array([[2.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    scores = pool(codes_of(dense), 3, how)
    assert scores.neurons.tolist() == [0, 2]
    assert scores.values.tolist() == expected
    assert scores.values.dtype == np.float32


def test_pooling_drops_scores_that_vanish_in_float32() -> None:
    dense = np.array([[1e-45, 1.0], [0.0, 0.0]], dtype=np.float32)
    assert pool(codes_of(dense), 2, "mean").neurons.tolist() == [1]


def test_highest_takes_lower_neurons_of_equal_scores() -> None:
    scores = Scores(np.array([1, 4, 5, 8, 9]), np.array([2, 1, 1, 3, 1], dtype=np.float32))
    assert sorted(highest(scores, 3)) == [1, 4, 8]
    assert sorted(highest(scores, 9)) == [1, 4, 5, 8, 9]
