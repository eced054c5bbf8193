"""Label entropy, against values worked out by hand and a plain loop."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.store.entropy import label_entropies


def entropy_of(labels: list[list[str]], scores: list[float]) -> float:
    """Of one neuron whose exemplars are all the images, in order."""
    n = len(labels)
    found = label_entropies(np.zeros(n, np.int64), np.arange(n), np.array(scores), labels, 1)
    assert found.shape == (1,) and found.dtype == np.float64
    return float(found[0])


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([["cake"], ["cake"], ["cake"]], [3.0, 2.0, 1.0], 0.0),
        ([["cake"], ["dog"]], [2.0, 2.0], math.log(2)),
        ([["cake"], ["dog"]], [3.0, 1.0], -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))),
        ([["cake"], ["dog"], []], [3.0, 1.0, 50.0], -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))),
        ([["cake", "fork"], ["cake"]], [2.0, 1.0], -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))),
        ([["cake", "fork", "cake"]], [5.0], math.log(2)),
        ([["a", "b", "c", "d"]], [0.125], math.log(4)),
        ([["a"], ["b"], ["c"], ["d"], ["e"]], [1.0] * 5, math.log(5)),
    ],
)
def test_by_hand(labels: list[list[str]], scores: list[float], expected: float) -> None:
    found = entropy_of(labels, scores)
    assert found == pytest.approx(expected, abs=1e-12) and found >= 0 and math.copysign(1, found) == 1


def test_without_labels_it_is_unknown() -> None:
    assert math.isnan(entropy_of([[], []], [1.0, 2.0]))
    none = np.zeros(0, np.int64)
    assert np.isnan(label_entropies(none, none, none.astype(float), [], 3)).all()
    found = label_entropies(np.array([2]), np.array([0]), np.array([1.0]), [["cake"]], 4)
    assert np.isnan(found[[0, 1, 3]]).all() and found[2] == 0


LABELS = st.lists(st.sampled_from("abcdef"), max_size=4)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), images=st.lists(LABELS, min_size=1, max_size=8), n_neurons=st.integers(1, 5))
def test_as_a_plain_loop_tells(data: st.DataObject, images: list[list[str]], n_neurons: int) -> None:
    places = st.tuples(
        st.integers(0, n_neurons - 1), st.integers(0, len(images) - 1), st.floats(2**-6, 64, width=32)
    )
    rows = sorted(data.draw(st.lists(places, max_size=20)))
    neuron, image, score = (
        np.array([row[i] for row in rows], dtype=kind)
        for i, kind in enumerate((np.int64, np.int64, np.float32))
    )
    found = label_entropies(neuron, image, score, images, n_neurons)
    for n in range(n_neurons):
        mass: dict[str, float] = defaultdict(float)
        for owner, place, value in rows:
            for label in set(images[place]):
                mass[label] += (owner == n) * value / len(set(images[place]))
        total = sum(mass.values())
        if not total:
            assert math.isnan(found[n])
        else:
            shares = [part / total for part in mass.values() if part]
            assert found[n] == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-9)
    turned = [row[::-1] for row in images]
    assert np.array_equal(found, label_entropies(neuron, image, score, turned, n_neurons), equal_nan=True)
