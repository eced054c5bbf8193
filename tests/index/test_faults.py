"""What builds are interrupted by: kills, full disks, vanished sources, signals, readers, damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_site import FakeLVLM, ListSource, contents, noise_folder, noise_pictures, random_sae

from explorer.errors import SourceError, StoreError
from explorer.store import Store
from index import work
from index.build import BuildConfig, Summary, build
from index.leftovers import clear_leftovers
from index.part import Progress, Stopped
from index.sources import FolderSource, Source
from index.work import locked, work_folder

HERE = Path(__file__).parent
COUNT = 40


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every chunk, without waiting for the disk, which may be busy."""
    monkeypatch.setattr(work, "LONGEST_SHARE", 0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_folder(tmp_path_factory.mktemp("source") / "photos", COUNT)


@pytest.fixture(scope="module")
def calm(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What an undisturbed build gives."""
    out = tmp_path_factory.mktemp("calm") / "store"
    run(out, FolderSource(photos))
    return contents(out)


def run(out: Path, source: Source, lvlm: FakeLVLM | None = None, **rest: object) -> Summary:
    """Build in this process."""
    restart = bool(rest.pop("restart", False))
    config = BuildConfig(out, batch=4, places=4, words="none", checkpoint_every=0, restart=restart)
    return build(config, source, lvlm or FakeLVLM(), random_sae(), **rest)


@pytest.fixture(scope="module")
def crashes(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """What crashes.py did, in a folder for each way to crash."""
    folder = tmp_path_factory.mktemp("crashes")
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "crashes.py"), str(folder), str(photos)],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["moments", "steps"])
def test_a_killed_build_goes_on_to_the_same_rows(
    crashes: tuple[Path, dict[str, dict]], calm: dict[str, list], mode: str
) -> None:
    folder, found = crashes[0] / mode, crashes[1][mode]
    assert found["kills"] >= 3 and (found["status"], found["words"]) == (0, "")
    assert contents(folder / "store") == calm
    assert [path.name for path in folder.iterdir()] == ["store"]


def test_a_killed_build_does_not_keep_the_lock_in_its_workers(
    crashes: tuple[Path, dict[str, dict]], calm: dict[str, list]
) -> None:
    assert crashes[1]["workers"] == {"kills": 1, "status": 0, "words": ""}
    assert contents(crashes[0] / "workers" / "store") == calm


def test_a_build_killed_while_it_publishes_leaves_a_store(
    crashes: tuple[Path, dict[str, dict]], calm: dict[str, list]
) -> None:
    folder, found = crashes[0] / "publishing", crashes[1]["publishing"]
    assert found["kills"] >= 8 and (found["status"], found["words"]) == (0, "")
    assert found["missing"] <= 1  # between two renames; the next build puts it back
    assert contents(folder / "store") == calm
    assert [path.name for path in folder.iterdir()] == ["store"]


def test_leftovers_of_killed_builds_are_cleared(tmp_path: Path) -> None:
    run(tmp_path / "s", ListSource(noise_pictures(8)))
    before = contents(tmp_path / "s")
    (tmp_path / "s").rename(tmp_path / ".s.replaced-01234567")
    for name in (".s.building-89abcdef", ".sX.building-89abcdef", ".s.replaced-f"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.sqlite").touch()
    clear_leftovers(tmp_path / "s")
    assert contents(tmp_path / "s") == before
    assert {path.name for path in tmp_path.iterdir()} == {"s", ".sX.building-89abcdef"}


@pytest.mark.parametrize("mode", ["full at 2000", "full at 60000"])
def test_a_full_disk_keeps_the_last_checkpoint(
    crashes: tuple[Path, dict[str, dict]], calm: dict[str, list], mode: str
) -> None:
    folder, found = crashes[0] / mode, crashes[1][mode]
    assert "cannot" in found["words"], found
    assert len(found["states"]) == 1 and found["left"] == [".store.building"]
    assert (found["status"], found["after"]) == (0, "")
    assert contents(folder / "store") == calm


def test_a_source_that_vanishes_keeps_the_progress(
    tmp_path: Path, photos: Path, calm: dict[str, list]
) -> None:
    source = tmp_path / "mount" / "photos"
    shutil.copytree(photos, source)

    def unmount(progress: Progress) -> None:
        if progress.done == 20:
            (tmp_path / "mount").rename(tmp_path / "away")

    with pytest.raises(SourceError, match=r"photos is gone.*run the same command again"):
        run(tmp_path / "out" / "store", FolderSource(source), seen=unmount)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".store.building"]
    with pytest.raises(SourceError):
        FolderSource(source)
    (tmp_path / "away").rename(tmp_path / "mount")
    first: list[Progress] = []
    summary = run(tmp_path / "out" / "store", FolderSource(source), seen=first.append)
    assert first[0].done >= 20 and summary.fresh == COUNT - first[0].done
    rows = contents(tmp_path / "out" / "store")
    rows["images"] = [
        (*row[:2], row[2].replace(str(source), str(photos)), *row[3:]) for row in rows["images"]
    ]
    assert rows == calm


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    source, told = ListSource(noise_pictures(40)), []
    handler = signal.getsignal(number)

    def send(progress: Progress) -> None:
        if progress.done == 16:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as caught:
        run(tmp_path / "s", source, seen=send)
    assert caught.value.signal == number and signal.getsignal(number) == handler
    run(tmp_path / "s", source, tell=told.append)
    done = int(told[0].split()[4])
    assert told[0] == f"going on after image {done} of 40" and 16 <= done <= 24
    run(tmp_path / "calm", source)
    assert contents(tmp_path / "s") == contents(tmp_path / "calm")


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    def send(progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", ListSource(noise_pictures(40)), seen=send)
    assert not (tmp_path / "s").exists()


def test_an_interrupted_build_leaves_the_old_store(tmp_path: Path) -> None:
    run(tmp_path / "s", ListSource(noise_pictures(8)))
    before = contents(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", ListSource(noise_pictures(40)), FakeLVLM(fail_after=5))
    assert contents(tmp_path / "s") == before


def test_two_builders_of_one_store(tmp_path: Path) -> None:
    with (
        locked(work_folder(tmp_path / "s", None)),
        pytest.raises(StoreError, match=rf"another build \(process {os.getpid()} on "),
    ):
        run(tmp_path / "s", ListSource(noise_pictures(8)))
    run(tmp_path / "s", ListSource(noise_pictures(8)))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    for out in (Path("/proc/nowhere/store"), Path("/proc/store")):
        with pytest.raises(StoreError, match=r"cannot write in .*choose another --out"):
            run(out, ListSource(noise_pictures(8)))


def test_readers_go_on_during_and_after_a_rebuild(tmp_path: Path) -> None:
    run(tmp_path / "s", ListSource(noise_pictures(30)))
    reader = Store.open(tmp_path / "s")
    reader.set_note(3, "my neuron", "seen by me")

    def look() -> list:
        return [(e.image_id, e.score, e.thumbnail) for n in range(24) for e in reader.exemplars(n)]

    before = look()
    run(
        tmp_path / "s",
        ListSource(noise_pictures(30, seed=1)),
        seen=lambda progress: assert_same(before, look()),
    )
    assert look() == before and reader.similar(3) and reader.manifest.n_images == 30
    after = Store.open(tmp_path / "s")
    assert [e.score for n in range(24) for e in after.exemplars(n)] != [score for _, score, _ in before]
    note = after.note(3)
    assert note is not None and note.name == "my neuron"


def assert_same(one: list, other: list) -> None:
    """Both are alike."""
    assert one == other


def test_damaged_progress_is_refused_until_restart(
    tmp_path: Path, photos: Path, calm: dict[str, list]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", FolderSource(photos), FakeLVLM(fail_after=5))
    victim = next(work_folder(tmp_path / "s", None).glob("state-*/top.key.npy"))
    victim.write_bytes(victim.read_bytes()[:-8])
    with pytest.raises(StoreError, match=r"damaged .*top.key.npy changed or cut short.*--restart"):
        run(tmp_path / "s", FolderSource(photos))
    run(tmp_path / "s", FolderSource(photos), restart=True)
    assert contents(tmp_path / "s") == calm


def test_progress_of_another_build_is_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", FolderSource(photos), FakeLVLM(fail_after=5))
    config = BuildConfig(tmp_path / "s", batch=8, places=4, score="max", words="none")
    with pytest.raises(StoreError, match="batch: 4 -> 8; score: mean -> max"):
        build(config, FolderSource(photos), FakeLVLM(), random_sae())
    noise_folder(tmp_path / "other", 3)
    with pytest.raises(StoreError, match=r"list_hash: .* n_images: 40 -> 3"):
        run(tmp_path / "s", FolderSource(tmp_path / "other"))
