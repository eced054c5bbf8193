"""The command `upgrade`: from format 2 to the very rows of a build, and what it says otherwise."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fake_site import FakeLVLM, ListSource, contents, noise_pictures, random_sae
from store_maker import make_store, to_format_2

from explorer.store import Store
from index.__main__ import main
from index.build import BuildConfig, build
from index.upgrade import upgrade
from index.work import locked, work_folder


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A store from a build, with notes and a list."""
    folder = tmp_path / "s"
    build(BuildConfig(folder, words="none"), ListSource(noise_pictures(60)), FakeLVLM(), random_sae())
    store = Store.open(folder)
    store.set_note(2, "zebra")
    store.add_to_list("tables", 4)
    store.close()
    return folder


def test_a_build_measures_entropy_and_draws_a_map(built: Path) -> None:
    store = Store.open(built)
    store.verify()
    summaries = store.summaries(range(24)).values()
    shown = [{label for one in store.exemplars(n) for label in one.labels} for n in range(24)]
    assert all(one.entropy == (0.0 if shown[one.neuron] else None) for one in summaries)  # one label, or none
    assert {0.0, None} == {one.entropy for one in summaries}
    assert (
        len({pair for pair in zip(store.overview().x.tolist(), store.overview().y.tolist(), strict=True)})
        == 24
    )


def test_the_upgraded_store_has_the_rows_of_the_build(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(built)
    to_format_2(built)
    assert main(["upgrade", str(built)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{built}: upgraded to format 3 in ")
    assert printed.err.splitlines()[1:3] == ["measuring label entropy", "drawing the map of directions"]
    assert contents(built) == before
    store = Store.open(built)
    store.verify()
    assert store.notes()[2].name == "zebra" and store.lists_of(4) == ("tables",)
    assert main(["upgrade", str(built), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{built}: is up to date\n" and printed.err == ""


def test_several_labels_and_their_shares(tmp_path: Path) -> None:
    folder = to_format_2(make_store(tmp_path / "s"))
    assert upgrade(folder).format == 3
    entropy = Store.open(folder).summary(4).entropy
    assert entropy == pytest.approx(0.5488740)  # 16/21 cake, 5/21 fork


def test_what_cannot_be_upgraded_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", str(tmp_path / "nowhere")]) == 1
    assert "there is no store at" in capsys.readouterr().err
    folder = to_format_2(make_store(tmp_path / "s"))
    with locked(work_folder(folder, None)):
        assert main(["upgrade", str(folder)]) == 1
    assert "another build (process" in capsys.readouterr().err
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    assert main(["upgrade", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "has format 1, this program reads format 3; build it again with: python -m index build" in said
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
