"""Co-firing partners against plain loops, and the bound on pairs."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meaning_maker import sample_of

from index.meaning import partners as module
from index.meaning.partners import _taken, partners
from index.naming import partner_rows
from index.stage.sample import PATCHES, Sample

F = 12
FIRES = st.sets(st.integers(0, F - 1), max_size=6).map(sorted)
IMAGES = st.lists(st.lists(FIRES, max_size=5), max_size=8)


def sample_from(patches: list[list[list[int]]]) -> Sample:
    return sample_of(np.zeros((len(patches), F)), patches=patches)


def naive(patches: list[list[int]], limit: int = 8) -> list[tuple]:
    """(neuron, rank, partner, together, fires, cosine), pair by pair."""
    fires, together = Counter(), Counter()
    for on in patches:
        fires.update(on)
        together.update(combinations(on, 2))
    rows = []
    for n in range(F):
        close = []
        for (a, b), count in together.items():
            if n in (a, b) and count >= 3:
                close.append((-count / math.sqrt(fires[a] * fires[b]), a + b - n, count))
        rows += [(n, r, p, count, fires[n], -c) for r, (c, p, count) in enumerate(sorted(close)[:limit])]
    return rows


@settings(max_examples=150, deadline=None)
@given(IMAGES, st.integers(1, 4))
def test_partners_equal_plain_loops(patches: list, times: int) -> None:
    patches = patches * times
    found = partners(sample_from(patches), F)
    rows = list(zip(*(column.tolist() for column in found), strict=True))
    assert rows == naive([on for image in patches for on in image])


def dense(images: int, share: float, seed: int = 0) -> list[list[list[int]]]:
    rng = np.random.default_rng(seed)
    table = rng.random((images, PATCHES, F)) < share
    return [[np.flatnonzero(on).tolist() for on in image] for image in table]


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = dense(40, 0.6)
    whole = partners(sample_from(patches), F)
    monkeypatch.setattr(module, "_BLOCK", 20)
    monkeypatch.setattr(module, "_NEURONS", 5)
    for one, two in zip(partners(sample_from(patches), F), whole, strict=True):
        assert one.tobytes() == two.tobytes()
    assert np.bincount(whole.neuron).tolist() == [8] * F


def test_too_many_pairs_mean_fewer_patches_of_each_image_first() -> None:
    patches = dense(30, 0.7)
    sample = sample_from(patches)
    each = np.diff(sample.patch_starts)
    pairs = each * (each - 1) // 2
    for most in (int(pairs.sum()), int(pairs.sum()) // 2, int(pairs.sum()) // 40, 1, 0):
        taken = _taken(sample, most)
        assert pairs[taken].sum() <= most and (np.diff(taken) > 0).all()
        counts = np.bincount(taken // PATCHES, minlength=30)
        if most >= pairs.sum() // 2:
            assert counts.max() - counts.min() <= 1
            assert {int(place % PATCHES) for place in taken} == set(range(counts.max()))
        found = partners(sample, F, most)
        some = [patches[place // PATCHES][place % PATCHES] for place in taken.tolist()]
        assert list(zip(*(column.tolist() for column in found), strict=True)) == naive(some)


def test_shares_are_of_the_patches_that_were_looked_at() -> None:
    sample = sample_from([[[0, 1, 2]] * PATCHES] * 8)
    for most in (3 * PATCHES * 8, 3 * 10):  # all patches, or ten of them
        rows = list(partner_rows(partners(sample, F, most)))
        assert [(row.neuron, row.partner) for row in rows] == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
        assert {(row.together, row.cosine) for row in rows} == {(1.0, 1.0)}


def test_a_neuron_that_always_fires_is_not_the_closest() -> None:
    pair, alone = [0, 3, 4], [[0], [0], [0], [0, 5]]
    found = partners(sample_from([[pair, *alone]] * 4), F)
    of_three = found.partner[found.neuron == 3].tolist()
    assert of_three == [4, 0]
    assert found.cosine[(found.neuron == 3) & (found.rank == 0)].tolist() == [1.0]


def test_nothing_to_count() -> None:
    for patches in ([], [[]], [[[], [3]]], [[[1, 2]], [[1, 2]]]):
        assert all(len(column) == 0 for column in partners(sample_from(patches), F))
