"""The benchmarks: made-up parts merge to a sound store, and the command prints its figures."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from explorer.errors import ExplorerError
from explorer.store import Store
from index.__main__ import main
from index.bench.gallery import wishes
from index.bench.made_parts import Size, made_sae, make_part
from index.bench.merging import run
from index.merge import merge
from index.stage.state import StateShape, merge_states
from index.work import open_finished

SMALL = Size(parts=3, neurons=150, side=4, width=12, images=64, labels=5, sample=90, firing=30, thumbnail=80)


def test_made_parts_merge_to_a_sound_store(tmp_path: Path) -> None:
    found = run(SMALL, tmp_path / "home", workers=0)
    store = Store.open(tmp_path / "home" / "store")
    store.verify()
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["store"]
    assert store.manifest.n_images == found.images == SMALL.total and store.manifest.n_parts == 3
    db = sqlite3.connect(tmp_path / "home" / "store" / "index.sqlite")
    shown = {
        n for (n,) in db.execute("SELECT image FROM exemplars UNION SELECT image FROM interval_exemplars")
    }
    assert found.thumbnails == len(shown) == db.execute("SELECT count(*) FROM images").fetchone()[0]
    for table in ("exemplars", "interval_exemplars", "neuron_labels", "label_images", "partners"):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0], table
    db.close()
    assert sum(step.seconds for step in found.steps) == pytest.approx(found.seconds)
    assert found.files["index.sqlite"] >= sum(table.bytes for table in found.tables) > 0
    assert found.part_bytes > SMALL.parts * SMALL.neurons * 16 * 8


def test_a_made_part_is_what_a_state_would_save(tmp_path: Path) -> None:
    part = make_part(SMALL, 2, tmp_path, made_sae(SMALL.neurons, SMALL.width).id)
    saved = open_finished(part).load()
    assert saved is not None and saved.complete and saved.shape is not None
    state = merge_states(StateShape(**saved.shape), [saved.arrays])
    again = state.arrays()
    assert again.keys() == saved.arrays.keys()
    for name, array in saved.arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    numbers = state.top.number
    assert set(np.unique(numbers[numbers >= 0] // 32 % 3)) == {1}
    scores = np.where(state.top.taken, state.top.score, np.inf)
    assert (scores > 0).all() and (np.diff(state.top.score, axis=1) <= 0).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in numbers)


def test_parts_of_other_numbers_do_not_merge(tmp_path: Path) -> None:
    sae = made_sae(SMALL.neurons, SMALL.width)
    make_part(SMALL, 1, tmp_path / "parts", sae.id)
    with pytest.raises(ExplorerError, match="2 of 3 parts are missing"):
        merge([tmp_path / "parts"], tmp_path / "store", sae)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ExplorerError, match="images = 5: use 32 or more"):
        Size(images=5)


def test_the_command_prints_the_merge(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--parts", "2", "--images", "40", "--neurons", "90", "--side", "4", "--width", "8"]
    assert main(["bench", "merge", *few, "--sample", "50", "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"2 parts of [\d.]+ .iB together, made in .* \(not counted\)", told)
    assert re.search(r"s  the merge; [\d.]+ s of processor time", told)
    assert re.search(r"store: [\d.,]+ .iB, \d+ thumbnails of 80 images", told)
    assert re.search(r"    exemplars: [\d,]+ rows", told)


def test_the_command_prints_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--images", "16", "--neurons", "64", "--side", "3", "--active", "2", "--batch", "8"]
    assert main(["bench", "stage", *few, "--windows", "2"]) == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"images +\d+ to +\d+: +[\d,]+ images/s", told)) == 2
    assert re.search(r"peers' running top-k \(.*\): [\d,]+ images/s", told)


def test_the_command_prints_the_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "build", "--scenes", "8", "--batch", "4", "--turns", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count("4 images: bare loop") == 2
    assert re.search(r"the build reaches [\d.]+ of the bare loop", told)


def test_pages_of_a_gallery_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "gallery", "--neurons", "300", "--images", "64", "--pages", "40", "--folder"]
    assert main([*words, str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("300 made-up neurons, ") and len(re.findall(r"[\d.]+ ms in the median", said)) == 2
    store = Store.open(tmp_path / "s")
    store.verify()
    totals = [store.browse(wish).total for wish in wishes(300, 200)]
    assert 0 in totals and 300 in totals and len(set(totals)) > 20
    assert main([*words, str(tmp_path / "s")]) == 1
    assert "is there already; name a new folder" in capsys.readouterr().err
