"""The places that images hold against naive oracles: ranking, ties, maps, sketches, intervals, packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_maker import (
    ACTIVATIONS,
    COLS,
    ROWS,
    chunk_of,
    chunks_of,
    codes_of,
    ranking,
    same_arrays,
    scores_of,
    shape_of,
    state_of,
    vectors_of,
)

from index.stage import intervals
from index.stage.arena import Arena
from index.stage.codes import all_groups, beating, pool, runs_of, select, spans
from index.stage.intervals import INTERVALS, mix
from index.stage.places import Places
from index.stage.state import BuildState, merge_states

PATCHES = ROWS * COLS


def rows_of(table: Places) -> list[list[tuple[float, int]]]:
    """Scores and images per row."""
    return [
        [(float(s), int(n)) for s, n in zip(scores, numbers, strict=True) if s > 0]
        for scores, numbers in zip(table.score, table.number, strict=True)
    ]


@settings(max_examples=120, deadline=None)
@given(ACTIVATIONS, st.sampled_from(["mean", "max"]), st.integers(1, 6), st.integers(1, 9))
def test_places_equal_a_sort_of_everything(dense: np.ndarray, how: str, kept: int, batch: int) -> None:
    state = state_of(shape_of(dense, score=how, places=kept), chunks_of(dense, batch))
    assert rows_of(state.top) == ranking(scores_of(dense, how), kept)


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS, st.integers(1, 6))
def test_maps_are_those_of_their_image(dense: np.ndarray, batch: int) -> None:
    top = state_of(shape_of(dense, places=4), chunks_of(dense, batch)).top
    for neuron, row in enumerate(rows_of(top)):
        for place, (_, number) in enumerate(row):
            true = dense[number, :, neuron]
            found = top.map_steps(neuron, place) * top.scale[neuron, place]
            assert np.abs(found - true).max() <= true.max() / 509
            assert top.map_steps(neuron, place).max() == 255


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS)
def test_sketches_are_means_by_activation(dense: np.ndarray) -> None:
    top = state_of(shape_of(dense, places=3), chunks_of(dense, 5)).top
    for neuron, row in enumerate(rows_of(top)):
        for place, (_, number) in enumerate(row):
            mean = dense[number, :, neuron] @ vectors_of([number], PATCHES)[0]
            found = top.sketch(neuron, place).astype(float)
            assert np.abs(found).max() == 127
            np.testing.assert_allclose(found / 127, mean / np.abs(mean).max(), atol=0.005)


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS, st.integers(1, 7), st.integers(1, 64), st.randoms(use_true_random=False))
def test_shuffled_parts_merged_equal_one_pass(
    dense: np.ndarray, batch: int, n_parts: int, random: object
) -> None:
    shape = shape_of(dense, places=3)
    chunks = chunks_of(dense, batch)
    whole = state_of(shape, chunks)
    parts = []
    for part in range(n_parts):
        mine = [chunk for j, chunk in enumerate(chunks) if j % n_parts == part]
        random.shuffle(mine)
        parts.append(state_of(shape, mine).arrays())
    random.shuffle(parts)
    same_arrays(merge_states(shape, parts), whole)


@settings(max_examples=40, deadline=None)
@given(ACTIVATIONS, st.integers(0, 6))
def test_a_restored_state_goes_on_as_if_nothing_happened(dense: np.ndarray, stop: int) -> None:
    shape, chunks = shape_of(dense, places=3), chunks_of(dense, 4)
    before = state_of(shape, chunks[:stop])
    resumed = BuildState.restore(shape, {name: array.copy() for name, array in before.arrays().items()})
    for chunk in chunks[stop:]:
        resumed.take(chunk)
    same_arrays(resumed, state_of(shape, chunks))


def test_placed_and_holders_name_who_holds_a_place() -> None:
    dense = np.random.default_rng(1).exponential(size=(40, PATCHES, 3)).astype(np.float32)
    state = BuildState(shape_of(dense, places=2))
    kept: set[int] = set()
    for chunk in chunks_of(dense, 4):
        state.take(chunk)
        kept |= {chunk.items[i].number for i in state.placed}
        holders = set(state.holders().tolist())
        assert holders <= kept
        assert holders == set(state.top.number[state.top.taken].tolist()) | set(
            state.intervals.number[state.intervals.taken].tolist()
        )
        kept = holders


def test_equal_scores_go_to_the_lower_number_whatever_the_order() -> None:
    dense = np.ones((6, PATCHES, 1), dtype=np.float32)
    order = [5, 1, 4, 0, 3, 2]
    chunks = [chunk_of(dense[[n]], [n]) for n in order]
    assert rows_of(state_of(shape_of(dense, places=3), chunks).top) == [[(1.0, 0), (1.0, 1), (1.0, 2)]]


def test_dead_neurons_hold_nobody_and_silent_patches_count() -> None:
    dense = np.zeros((3, PATCHES, 2), dtype=np.float32)
    dense[1, 0, 0] = 3.0
    top = state_of(shape_of(dense), chunks_of(dense, 2)).top
    assert rows_of(top) == [[(0.5, 1)], []]
    assert top.number[1].tolist() == [-1] * 16


def test_the_cls_token_counts_for_the_score_and_not_for_the_map() -> None:
    dense = np.zeros((2, PATCHES + 1, 3), dtype=np.float32)
    dense[0, 2, 0], dense[0, PATCHES, 0] = 7.0, 14.0
    dense[1, PATCHES, 1] = 7.0
    for how, expected in (("mean", [3.0, 1.0]), ("max", [14.0, 7.0])):
        state = state_of(shape_of(dense, include_cls=True, score=how), [chunk_of(dense, [0, 1])])
        assert state.top.score[:2, 0].tolist() == expected
        assert state.top.map_steps(0, 0).tolist() == [0, 0, 255, 0, 0, 0]
        assert state.top.map_steps(1, 0).tolist() == [0] * PATCHES
        facts = state.statistics.facts()
        assert facts.patch_fires.tolist() == [1 / 12, 0, 0] and facts.fires.tolist() == [0.5, 0.5, 0]
        assert facts.active_peak.tolist() == [7, 0, 0] and facts.active_mean.tolist() == [7, 0, 0]
        assert facts.active_histogram.sum(1).tolist() == [1, 0, 0]
        assert not state.top.sketch(1, 0).any() and state.top.sketch(0, 0).any()


def interval_oracle(scores: np.ndarray) -> dict[tuple[int, int], int]:
    """(neuron, half-octaves below the peak) -> the image with the lowest hash there."""
    luck = mix(np.arange(len(scores)))
    found: dict[tuple[int, int], int] = {}
    for neuron, column in enumerate(scores.T):
        tags = column.view(np.int32) >> 22
        for number in np.flatnonzero(column > 0).tolist():
            below = int(tags[column > 0].max() - tags[number])
            best = found.get((neuron, below))
            if below < INTERVALS and (best is None or luck[number] < luck[best]):
                found[neuron, below] = number
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 9), st.randoms(use_true_random=False))
def test_intervals_hold_a_fair_draw_from_each(seed: int, n: int, batch: int, random: object) -> None:
    rng = np.random.default_rng(seed)
    dense = (np.exp(rng.normal(0, 3, size=(n, PATCHES, 4))) * (rng.random((n, PATCHES, 4)) < 0.3)).astype(
        np.float32
    )
    chunks = chunks_of(dense, batch)
    random.shuffle(chunks)
    state = state_of(shape_of(dense), chunks)
    below = intervals.below_peak(state.intervals, state.top.score[:, 0])
    numbers = state.intervals.number.reshape(-1, INTERVALS)
    found = {(int(f), int(below[f, s])): int(numbers[f, s]) for f, s in np.argwhere(below >= 0)}
    assert found == interval_oracle(scores_of(dense, "mean"))


def test_the_hash_is_one_to_one_and_fair() -> None:
    numbers = np.arange(200_000)
    hashes = mix(numbers)
    assert len(np.unique(hashes)) == len(numbers)
    counts = np.histogram(hashes, bins=20, range=(0, 2**32))[0]
    assert counts.min() > 9_500 and counts.max() < 10_500


def test_bytes_move_when_a_table_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.stage.arena._SLACK", 8)
    monkeypatch.setattr("index.stage.arena._MOVE", 16)
    packed: list[int] = []
    true_pack = Arena.pack
    monkeypatch.setattr(Arena, "pack", lambda self, *a: (packed.append(1), true_pack(self, *a))[1])
    rng = np.random.default_rng(5)
    dense = (rng.exponential(size=(120, PATCHES, 7)) * (rng.random((120, PATCHES, 7)) < 0.5)).astype(
        np.float32
    )
    state = state_of(shape_of(dense, places=3), chunks_of(dense, 4))
    assert len(packed) > 5
    for neuron, row in enumerate(rows_of(state.top)):
        for place, (_, number) in enumerate(row):
            assert (state.top.map_steps(neuron, place) > 0).tolist() == (
                dense[number, :, neuron] > 0
            ).tolist()
    assert state.top.arena.live == int(state.top.lengths.sum())


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=30))
def test_spans_are_concatenated_ranges(runs: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in runs], dtype=np.int64)
    lengths = np.array([length for _, length in runs], dtype=np.int64)
    expected = [i for start, length in runs for i in range(start, start + length)]
    assert spans(starts, lengths).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(ACTIVATIONS)
def test_groups_hold_each_neurons_entries_of_each_image(dense: np.ndarray) -> None:
    pools = pool(codes_of(dense), dense.shape[2], "mean")
    groups = all_groups(pools)
    pairs = sorted(zip(*np.nonzero(dense.any(axis=1).T), strict=True))
    assert list(zip(groups.neuron, groups.image, strict=True)) == pairs
    totals = [dense[i, :, f].sum(dtype=np.float64) for f, i in pairs]
    np.testing.assert_array_equal(pools.totals[groups.cell], totals)
    for which in (np.arange(len(pairs))[::2], np.arange(len(pairs))[1::3]):
        runs = runs_of(pools, select(groups, which))
        for i, (neuron, image) in enumerate(pairs[g] for g in which):
            mine, true = slice(runs.starts[i], runs.ends[i]), dense[image, :, neuron]
            assert runs.image[i] == image and runs.score[i] == groups.score[which[i]]
            assert runs.token[mine].tolist() == np.flatnonzero(true).tolist()
            assert runs.value[mine].tolist() == true[true > 0].tolist()


@settings(max_examples=60, deadline=None)
@given(ACTIVATIONS, st.sampled_from(["mean", "max"]))
def test_no_group_that_reaches_the_bar_is_passed_over(dense: np.ndarray, how: str) -> None:
    pools, scores = pool(codes_of(dense), dense.shape[2], how), scores_of(dense, how)
    for least in (np.zeros(5, np.float32), scores.max(axis=0), np.median(scores, axis=0)):
        found = beating(pools, least)
        reached = {(int(f), int(i)) for i, f in np.argwhere((scores >= least) & (scores > 0))}
        assert reached <= set(zip(found.neuron.tolist(), found.image.tolist(), strict=True))


def test_scores_that_vanish_in_float32_hold_no_place() -> None:
    dense = np.zeros((1, PATCHES, 2), dtype=np.float32)
    dense[0, 0] = 1e-45, 1.0
    top = state_of(shape_of(dense), chunks_of(dense, 1)).top
    assert top.taken.sum(axis=1).tolist() == [0, 1]
