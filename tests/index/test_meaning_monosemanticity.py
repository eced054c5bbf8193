"""The monosemanticity score against the double loop over pairs of images, and figures done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from meaning_maker import sample_of

from index.meaning import monosemanticity as module
from index.meaning.by_neuron import by_neuron
from index.meaning.monosemanticity import Monosemanticity, monosemanticity

S, F, D = 6, 4, 3


def score_of(scores: np.ndarray, embeddings: np.ndarray) -> Monosemanticity:
    sample = sample_of(scores, embeddings)
    return monosemanticity(by_neuron(sample, scores.shape[1]), sample.embeddings)


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two) / lengths if lengths else 0.0


def naive(a: np.ndarray, embeddings: np.ndarray) -> float:
    """Of one neuron with activations a [s], pair by pair."""
    if a.max() == a.min():
        return math.nan
    a = (a - a.min()) / (a.max() - a.min())
    if (a > 0).sum() < 2:
        return math.nan
    above = below = 0.0
    for n in range(len(a)):
        for m in range(n + 1, len(a)):
            above += a[n] * a[m] * cosine(embeddings[n], embeddings[m])
            below += a[n] * a[m]
    return above / below


SCORES = hnp.arrays(
    np.float32, (S, F), elements=st.sampled_from([0.0, 0.0, 1e-20, 1e-6, 0.25, 1.0, 3.0, 1e10])
)
EMBEDDINGS = hnp.arrays(np.float32, (S, D), elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0]))


@settings(max_examples=150, deadline=None)
@given(SCORES, EMBEDDINGS)
def test_closed_form_equals_the_double_loop(scores: np.ndarray, embeddings: np.ndarray) -> None:
    found = score_of(scores, embeddings)
    expected = [naive(scores[:, n].astype(np.float64), embeddings.astype(np.float64)) for n in range(F)]
    np.testing.assert_allclose(found.score, expected, rtol=1e-7, atol=1e-9)
    above = [int((column > column.min()).sum()) for column in scores.T]
    assert found.images.tolist() == above


def test_by_hand() -> None:
    embeddings = np.array([[2.0, 0], [0, 1], [3, 3], [0, 0]])
    scores = np.array(
        [
            [1.0, 2.0, 5.0, 0, 1.0],
            [1.0, 4.0, 0.0, 0, 1.0],
            [0.5, 3.0, 0.0, 0, 1.0],
            [0.0, 2.0, 0.0, 0, 1.0],
        ]
    )
    found = score_of(scores, embeddings)
    root = math.sqrt(0.5)
    # Weights 1, 1, 1/2: the pair (x, y) has cos 0, (x, z) and (y, z) have sqrt(1/2) and half the weight.
    assert found.score[0] == pytest.approx(root / 2)
    # Stretched to 0, 1, 1/2, 0: one pair is left, (y, z).
    assert found.score[1] == pytest.approx(root)
    # Only one image; dead; the same everywhere.
    assert np.isnan(found.score[2:]).all() and found.images.tolist() == [3, 2, 1, 0, 0]
    assert found.baseline == pytest.approx(2 * root / 6)


def test_one_image_or_none() -> None:
    for count in (0, 1):
        found = score_of(np.ones((count, F)), np.ones((count, D)))
        assert np.isnan(found.score).all() and not found.images.any() and math.isnan(found.baseline)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(60, 80)) * (rng.random((60, 80)) < rng.random(80) ** 3)
    scores[:, :3] += 1
    embeddings = rng.normal(size=(60, D)) + 1
    whole = score_of(scores, embeddings)
    monkeypatch.setattr(module, "_CELLS", 50)
    parts = score_of(scores, embeddings)
    np.testing.assert_allclose(parts.score, whole.score, rtol=1e-12)
    assert parts.images.tolist() == whole.images.tolist() and parts.baseline == whole.baseline
    assert np.isfinite(whole.score).sum() > 50 and 0 < whole.baseline < 1
