"""The bench: what a browser may send, and which edits come of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.cases import checks, rows
from explorer.errors import ExplorerError
from explorer.records import Box, Cell, Grid
from tests.ui.fake_session import NEURONS, FakeSession, make_view

VIEW = make_view()


def seen(concept: str) -> np.ndarray:
    return FakeSession().where(VIEW, concept)


def test_a_neuron_comes_untouched_and_is_no_edit() -> None:
    row = rows.new_row(3, "fork", VIEW)
    assert (row.value, row.rest, row.region) == (None, 2.0, "active")
    assert rows.new_row(9, "nine", VIEW).region == "all", "it fires nowhere, so it could never act"
    assert rows.edits([row], VIEW.grid, seen) == []


def test_rows_survive_the_way_to_the_browser_and_back() -> None:
    bench = [
        rows.Row(3, "fork", 2.0, -30.0, "set", "all", muted=True),
        rows.Row(5, "dog", 0.5, 1.5, "scale", "marked", (Cell(1, 2), Cell(3, 0)), "dog", absent=True),
    ]
    assert rows.parse(rows.dump(bench), VIEW) == bench


def test_edits_follow_mode_and_region() -> None:
    bench = [
        rows.Row(3, "", 2.0, -30.0, "set", "active"),
        rows.Row(4, "", 0.0, 5.0, "add", "all"),
        rows.Row(5, "", 0.5, 0.0, "scale", "marked", (Cell(1, 2), Cell(3, 0))),
        rows.Row(6, "", 0.5, 9.0, muted=True),
    ]
    first, second, third = rows.edits(bench, VIEW.grid, seen)
    assert (first.neuron, first.value, first.mode, first.patches) == (3, -30.0, "set", "active")
    assert (second.mode, second.patches) == ("add", None)
    assert third.patches.shape == (4, 4) and third.patches.sum() == 2
    assert third.patches[1, 2] and third.patches[3, 0]


def test_a_row_where_its_concept_is_seen() -> None:
    row = rows.new_row(3, "fork", VIEW, "fork_and_knife", seen=True)
    assert (row.region, row.concept) == ("seen", "fork_and_knife")
    assert rows.new_row(3, "fork", VIEW, "fork_and_knife").region == "active", "offered, not chosen"
    (edit,) = rows.edits([replace(row, value=-15.0)], VIEW.grid, seen)
    assert edit.patches.dtype == bool and edit.patches.sum() == 1 and edit.patches[1, 2]
    with pytest.raises(ExplorerError, match="cannot tell where 'unicorn'"):
        rows.edits([replace(row, value=-15.0, concept="unicorn")], VIEW.grid, seen)


def test_the_bench_takes_each_neuron_once_and_twenty_four_in_all() -> None:
    bench: list[rows.Row] = []
    for neuron in range(rows.MOST_ROWS):
        bench = rows.add(bench, rows.Row(neuron, "", 0.0))
    assert rows.add(bench, rows.Row(0, "again", 0.0)) == bench
    assert len(bench) == 24
    with pytest.raises(ExplorerError, match="full"):
        rows.add(bench, rows.Row(99, "", 0.0))


def test_every_patch_of_a_fine_grid_may_be_marked() -> None:
    fine = Grid(136, 180, 1800, 1360, Box(0, 0, 1800, 1360))
    view = replace(VIEW, prepared=replace(VIEW.prepared, grid=fine))
    every = tuple(Cell(row, col) for row in range(136) for col in range(180))
    row = rows.Row(3, "three", 1.0, 5.0, region="marked", patches=every[::-1])
    (back,) = rows.parse(rows.dump([row]), view)
    assert back.patches == every and isinstance(back.patches[0], Cell)
    (edit,) = rows.edits([back], fine, seen)
    assert edit.patches.all() and edit.patches.shape == (136, 180)


@pytest.mark.parametrize(
    "pairs", [[[0, 4]], [[-1, 0]], [[0, 0], [4, 0]], [[True, 1]], [[0.5, 1]], [["0", 1]]]
)
def test_cells_outside_the_grid_or_no_numbers_are_refused(pairs: list[list[object]]) -> None:
    with pytest.raises(ExplorerError, match="does not exist"):
        checks.cells(pairs, VIEW.grid)


def test_cells_come_once_and_row_by_row() -> None:
    assert checks.cells([[1, 2], [0, 3], [1, 2]], VIEW.grid) == (Cell(0, 3), Cell(1, 2))
    assert checks.cells([[1.0, 2]], VIEW.grid) == (Cell(1, 2),) and checks.cells([], VIEW.grid) == ()


def test_rows_follow_to_another_picture() -> None:
    one = VIEW.codes._replace(
        tokens=VIEW.codes.tokens[:1], neurons=VIEW.codes.neurons[:1], values=VIEW.codes.values[:1]
    )
    prepared = replace(VIEW.prepared, grid=Grid(2, 2, 80, 40, Box(0, 0, 80, 40)))
    small = replace(VIEW, prepared=prepared, codes=one)
    bench = [
        rows.Row(3, "fork", 2.0, -30.0),
        rows.Row(5, "dog", 0.5, 1.0, region="marked", patches=(Cell(3, 3),)),
        rows.Row(6, "bird", 0.5, 1.0, region="marked", patches=(Cell(1, 1), Cell(3, 3))),
    ]
    first, second, third = rows.settle(rows.dump(bench), small, seen)
    assert (first.value, first.rest) == (-30.0, 1.0)
    assert (second.region, second.patches) == ("all", ())
    assert (third.region, third.patches) == ("marked", (Cell(1, 1),))


def test_a_concept_that_the_picture_does_not_show_is_noted() -> None:
    bench = [
        rows.Row(3, "", 2.0, concept="fork_and_knife", absent=True),
        rows.Row(4, "", 2.0, concept="cake"),
        rows.Row(5, "", 2.0, concept="unicorn"),
        rows.Row(6, "", 2.0),
    ]
    settled = rows.settle(rows.dump(bench), VIEW, seen)
    assert [row.absent for row in settled] == [False, True, False, False], "nobody can tell of unicorns"


def test_rows_in_words() -> None:
    row = rows.Row(3, "fork", 2.0, -30.0)
    assert rows.in_words(row) == "fork #3 set to −30 where it fires"
    assert rows.in_words(replace(row, mode="add", value=2.5, region="all")) == "fork #3 +2.5 everywhere"
    scaled = replace(row, mode="scale", value=0.0, region="marked", patches=(Cell(1, 2),), muted=True)
    assert rows.in_words(scaled) == "fork #3 times 0 at 1 marked patch (muted)"
    seen_there = replace(row, region="seen", concept="fork_and_knife")
    assert rows.in_words(seen_there) == "fork #3 set to −30 where fork and knife is seen"
    assert rows.in_words(rows.Row(7, "neuron 7", 0.0)) == "neuron 7: untouched"


GOOD = {
    "neuron": 3,
    "name": "x",
    "rest": 1.0,
    "value": 2.0,
    "mode": "set",
    "region": "all",
    "patches": [],
    "concept": "",
    "muted": False,
    "absent": False,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"neuron": NEURONS}, "neuron 10 does not exist"),
        ({"neuron": -1}, "does not exist"),
        ({"neuron": True}, "does not exist"),
        ({"neuron": "3"}, "does not exist"),
        ({"neuron": 1e400}, "does not exist"),
        ({"value": float("nan")}, "not a number"),
        ({"value": "9"}, "not a number"),
        ({"value": 1e9}, "not a number"),
        ({"mode": "explode"}, "mode"),
        ({"region": []}, "region"),
        ({"region": "marked"}, "mark a patch"),
        ({"region": "marked", "patches": [[9, 0]]}, "patch row"),
        ({"patches": "aa"}, "pairs"),
        ({"patches": [[1]]}, "pairs"),
        ({"muted": 1}, "muted is either true or false"),
        ({"absent": "no"}, "absent is either true or false"),
        ({"region": "seen"}, "no known concept"),
        ({"concept": 7}, "not a text"),
        ({"concept": "x" * 200}, "at most"),
        ({"name": 7}, "not a text"),
    ],
)
def test_what_does_not_fit_is_refused_in_plain_words(change: dict, words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        rows.parse(json.dumps([{**GOOD, **change}]), VIEW)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '"x"', json.dumps([GOOD] * 25)])
def test_what_is_no_bench_is_refused(text: str) -> None:
    with pytest.raises(ExplorerError, match="bench"):
        rows.parse(text, VIEW)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "zzz"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_parses_or_is_refused(data: object) -> None:
    try:
        bench = rows.parse(json.dumps(data), VIEW)
    except ExplorerError:
        return
    assert rows.parse(rows.dump(bench), VIEW) == bench
    rows.edits(bench, VIEW.grid, lambda concept: np.zeros((4, 4), np.bool_))
    for row in bench:
        assert rows.in_words(row)


@given(st.lists(st.dictionaries(st.sampled_from([*GOOD, "zzz"]), JSON), max_size=4))
def test_any_list_of_rows_settles_or_is_refused(data: object) -> None:
    try:
        settled = rows.settle(json.dumps(data), VIEW, seen)
    except ExplorerError:
        return
    assert rows.parse(rows.dump(settled), VIEW) == settled
