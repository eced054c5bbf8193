"""Agreement of measures, cells where they part, and which neurons are worth showing."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.analyze.agreement import agreement, best, rank_correlation, widest


def naive_ranks(values: np.ndarray) -> np.ndarray:
    """The mean place that a value has among the sorted ones."""
    ordered = np.sort(values)
    return np.array([np.flatnonzero(ordered == value).mean() for value in values])


@pytest.mark.parametrize("seed", range(4))
def test_rank_correlation_is_pearsons_of_the_ranks(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.integers(0, 6, (2, 25)).astype(float)
    expected = np.corrcoef(naive_ranks(one), naive_ranks(other))[0, 1]
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert np.isnan(rank_correlation(one, np.ones(25)))


def test_attention_is_compared_with_sizes_and_the_others_with_signs() -> None:
    attention = np.array([1.0, 2, 3, 4])
    found = agreement(attention, np.array([0.1, -0.2, 0.3, -0.4]), np.array([-1.0, 2, -3, 4]))
    assert found.attention_gradient == found.attention_effect == pytest.approx(1)
    assert found.gradient_effect == pytest.approx(-1)


def test_gaps_are_in_nats_and_attention_is_scaled_to_its_word() -> None:
    attention = np.array([[8.0, 4, 0], [9, 9, 9]])
    gradient = np.array([[0.0, -2, 1], [0, 0, 0]])
    effect = np.array([[4.0, -2, -1], [0, 0, 0]])
    found = widest(np.stack([attention, gradient, effect]), 4)
    # Word 0: attention becomes 4, 2, 0. Word 1: nothing in the picture matters to it.
    assert [(gap.word, gap.neuron, gap.size) for gap in found] == [(0, 0, 4), (0, 2, 2), (0, 1, 0), (1, 0, 0)]
    assert found[0].between == ("attention", "gradient") and found[1].between == ("gradient", "effect")
    assert widest(np.zeros((3, 1, 2)), 5)[0].size == 0 and len(widest(np.zeros((3, 1, 2)), 5)) == 2


def test_the_best_of_each_row_come_first_then_the_second_best() -> None:
    values = np.zeros((2, 2, 8))
    values[0, 0, [3, 4]] = 10, 9
    values[0, 1, [5, 3]] = 4, 1
    values[1, 0, [6, 3]] = -0.5, 0.1
    values[1, 1, [7]] = 0.25
    assert best(values, 4).tolist() == [3, 5, 6, 7]
    assert best(values, 8).tolist() == [3, 4, 5, 6, 7]  # 0, 1 and 2 are no good for anything
    assert best(values, 3).tolist() == [3, 6, 7]  # shares 1, .4, 1 and .5 of what their measure reaches
    assert best(values, 1).tolist() == [3]
    assert best(np.zeros((2, 2, 8)), 3).tolist() == [0]


@pytest.mark.parametrize("seed", range(3))
def test_with_room_for_a_whole_round_every_row_has_its_best(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(3, 4, 30))
    chosen = best(values, 12)
    assert len(chosen) == 12 and set(np.abs(values).argmax(axis=2).ravel()) <= set(chosen.tolist())
