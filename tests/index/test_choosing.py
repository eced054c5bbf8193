"""The sample of objects does not depend on order; the choice of neurons covers a concept together."""

from __future__ import annotations

import numpy as np
from fake_site import codes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from index.choosing import REMAINS, ObjectSample, Seen, complementary
from index.sources import PatchTruth


def one_object(key: int, fires: list[list[int]]) -> Seen:
    """An object whose patch p makes the neurons fires[p] fire."""
    pairs = [(patch, neuron) for patch, neurons in enumerate(fires) for neuron in neurons]
    tokens, neurons = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    return Seen(key.to_bytes(8, "big"), tokens, neurons, len(fires))


def test_the_second_neuron_covers_what_the_first_misses() -> None:
    """Neuron 0 and 1 fire on the same three patches, neuron 2 on the fourth; alone it is the weakest."""
    objects = [one_object(1, [[0, 1], [0, 1], [0, 1], [2]])]
    chosen = complementary(objects, np.array([1.0, 0.9, 0.9]), 3)
    assert [c.neuron for c in chosen] == [0, 1, 2] or [c.neuron for c in chosen] == [0, 2, 1]
    gains = {c.neuron: c.gain for c in chosen}
    assert gains[0] == 0.75 and np.isclose(gains[1], 0.9 * 0.75 * REMAINS) and np.isclose(gains[2], 0.9 / 4)
    two_styles = [one_object(1, [[0], [0]]), one_object(2, [[0, 1], [0, 1]]), one_object(3, [[2], [2]])]
    assert [c.neuron for c in complementary(two_styles, np.ones(3), 2)] == [0, 2]


def test_selective_neurons_go_first_and_silent_ones_never() -> None:
    objects = [one_object(1, [[0, 1], [0, 1]])]
    chosen = complementary(objects, np.array([0.2, 0.9, 1.0]), 5)
    assert [c.neuron for c in chosen] == [1, 0]
    assert complementary([], np.ones(3), 5) == []


def test_patches_where_nothing_fires_count_as_missed() -> None:
    chosen = complementary([one_object(1, [[0], [], [], []])], np.array([1.0]), 1)
    assert chosen[0].gain == 0.25


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 6))
def test_the_sample_does_not_depend_on_order(order: list[int], most: int) -> None:
    rng = np.random.default_rng(0)
    dense = [(rng.random((6, 4)) < 0.5).astype(np.float32) for _ in range(12)]
    objects = [rng.integers(-1, 2, 6) for _ in range(12)]
    samples = []
    for sequence in (range(12), order):
        sample = ObjectSample(2, most)
        for i in sequence:
            truth = PatchTruth(np.where(objects[i] >= 0, objects[i], -1), objects[i])
            sample.take(f"image {i}", codes_of(dense[i]), truth)
        samples.append(
            [[(s.key, s.tokens.tolist(), s.neurons.tolist()) for s in kept] for kept in sample.kept]
        )
    assert samples[0] == samples[1]
    assert all(len(kept) <= most for kept in samples[0])
