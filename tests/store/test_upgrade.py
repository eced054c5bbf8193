"""A store of format 2 becomes the store that a build of format 3 would have made, or stays as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_maker import (
    make_store,
    make_store_of_format_2,
    some_directions,
    some_positions,
    some_summary,
)

from explorer.errors import StoreError
from explorer.records import NeuronList
from explorer.store import Store, is_outdated, is_upgradable
from explorer.store.manifest import read_manifest
from explorer.store.upgrade import upgrade
from explorer.store.vectors import unit_rows


def place(directions: np.ndarray) -> np.ndarray:
    """The places of `store_maker`, after a look at what is asked about."""
    np.testing.assert_array_equal(directions, unit_rows(some_directions()))
    return some_positions()


def rows_of(folder: Path) -> dict[str, list[tuple]]:
    """All rows of all tables, and the schema."""
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        known = sorted(name for name in names if not name.startswith(("sqlite_", "texts_")))
        schema = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return {"schema": schema, **{name: db.execute(f"SELECT * FROM {name}").fetchall() for name in known}}


def test_the_upgraded_store_is_the_one_that_a_build_makes(tmp_path: Path) -> None:
    old = make_store_of_format_2(tmp_path / "old", source="of old")
    new = make_store(tmp_path / "new", source="of old")
    said: list[str] = []
    manifest = upgrade(old, place, said.append)
    found, expected = rows_of(old), rows_of(new)
    entropies = [[row[-1] for row in rows.pop("neurons")] for rows in (found, expected)]
    assert found == expected and len(said) == 4
    assert entropies[0] == pytest.approx(entropies[1], abs=1e-12)
    for name in ("directions.faiss", "centroids.faiss"):
        assert (old / name).read_bytes() == (new / name).read_bytes()
    files = read_manifest(new).files
    assert replace(manifest, files=files) == read_manifest(new) and manifest == read_manifest(old)
    store = Store.open(old)
    store.verify()
    for one, other in zip(store.summaries(range(6)).values(), map(some_summary, range(6)), strict=True):
        assert replace(one, entropy=other.entropy) == other
    assert [match.neuron for match in store.search("stripe")] == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_notes_and_lists_stay(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "s")
    store = Store.open(folder)
    store.set_note(2, "zebra")
    store.add_to_list("tables", 3)
    store.close()
    kept = {path: path.read_bytes() for path in folder.glob("notes.sqlite*")}
    make_store_of_format_2(tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        path.rename(folder / path.name)
    assert {path: path.read_bytes() for path in folder.glob("notes.sqlite*")} == kept
    upgrade(folder, place)
    renewed = Store.open(folder)
    assert renewed.notes()[2].name == "zebra" and renewed.lists() == [NeuronList("tables", (3,))]


def test_a_store_of_format_2_is_outdated_and_says_what_to_run(tmp_path: Path) -> None:
    folder = make_store_of_format_2(tmp_path / "s")
    assert is_outdated(folder) and is_upgradable(folder)
    with pytest.raises(StoreError) as caught:
        Store.open(folder)
    assert str(caught.value) == (
        f"the store {folder} has format 2, this program reads format 3; "
        f"bring it up to date with: python -m index upgrade {folder}"
    )
    upgrade(folder, place)
    assert not is_outdated(folder) and not is_upgradable(folder)
    with pytest.raises(StoreError, match="has format 3, this program reads format 3"):
        upgrade(folder, place)


def test_a_failed_upgrade_leaves_the_store(tmp_path: Path) -> None:
    folder = make_store_of_format_2(tmp_path / "s")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def stop(directions: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upgrade(folder, stop)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    (folder / "centroids.faiss").unlink()
    with pytest.raises(StoreError, match=r"cannot write .*No such file"):
        upgrade(folder, place)


def test_readers_of_the_old_file_go_on(tmp_path: Path) -> None:
    folder = make_store_of_format_2(tmp_path / "s")
    with closing(
        sqlite3.connect(f"{(folder / 'index.sqlite').as_uri()}?mode=ro&immutable=1", uri=True)
    ) as db:
        ((count,),) = db.execute("SELECT count(*) FROM exemplars")
        upgrade(folder, place)
        assert db.execute("SELECT count(*) FROM exemplars").fetchone() == (count,)
