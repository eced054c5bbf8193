"""Builds on a cluster of this machine: the rows of a plain build, whatever dies. Needs `ray[data]`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_fakes import BATCH, COUNT, PARTS, SLOW, TracedSource, on_cluster, open_fake, reads, whole
from fake_site import contents

from explorer.errors import ExplorerError, SourceError, StoreError
from index import checkpoints
from index.__main__ import main
from index.build import build
from index.cluster import ClusterConfig, build_on_cluster
from index.part import Progress
from index.parts import parts_folder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings

SOON = 120.0
"""Seconds after which what should have happened will not."""


HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def processes_find_the_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes import what is here, in tests/index and in the project."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(map(str, [HERE, HERE.parent / "index", HERE.parents[1]]))
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """The rows of a plain build."""
    folder = tmp_path_factory.mktemp("plain")
    build(whole(folder / "store"), TracedSource(folder / "traces"), *open_fake())
    return contents(folder / "store")


@contextmanager
def meanwhile(act: Callable[[], bool]) -> Iterator[list[bool]]:
    """In its `with`, try to act now and then until it succeeds once; gives a list that then holds True."""
    done: list[bool] = []
    end = threading.Event()

    def watch() -> None:
        while not end.is_set() and not done:
            if act():
                done.append(True)
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield done
    finally:
        end.set()
        thread.join()


def halfway(store: Path) -> int | None:
    """The process of a part that has saved a checkpoint but is not complete, as its lock says."""
    for lock in sorted(parts_folder(store).glob("part-*/lock")):
        try:
            found, words = checkpoints.progress(lock.parent), lock.read_text(encoding="utf-8").split()
        except FileNotFoundError:  # it has just been finished
            continue
        if found is not None and found[0] < found[1] and len(words) > 1:
            return int(words[1])
    return None


def test_rows_are_those_of_a_plain_build(tmp_path: Path, plain: dict[str, list]) -> None:
    seen: list[Progress] = []
    said: list[str] = []
    summary = on_cluster(
        tmp_path / "store", TracedSource(tmp_path / "traces"), seen=seen.append, tell=said.append
    )
    assert contents(tmp_path / "store") == plain
    assert (summary.n_images, len(summary.skipped), summary.fresh) == (COUNT - 2, 2, COUNT)
    assert summary.merged is not None and summary.merged.manifest.n_parts == PARTS
    assert seen[0] == (0, COUNT, 0) and seen[-1] == (COUNT, COUNT, 2) and len(seen) == PARTS + 1
    assert said[0].startswith(f"{PARTS} parts, 2 at a time")
    assert sorted(read.number for read in reads(tmp_path / "traces")) == list(range(COUNT))
    assert os.getpid() not in {read.process for read in reads(tmp_path / "traces")}
    assert [path.name for path in tmp_path.iterdir() if path.name != "traces"] == ["store"]


def test_a_killed_worker_changes_no_row(tmp_path: Path, plain: dict[str, list]) -> None:
    store, traces = tmp_path / "store", tmp_path / "traces"

    def kill() -> bool:
        process = halfway(store)
        if process is None:
            return False
        os.kill(process, signal.SIGKILL)
        return True

    said: list[str] = []
    with meanwhile(kill) as killed:
        on_cluster(store, TracedSource(traces, SLOW), tell=said.append)
    assert killed
    assert any("a process has died; another one did part" in words for words in said)
    assert contents(store) == plain
    found = list(reads(traces))
    again = len(found) - COUNT
    assert {read.number for read in found} == set(range(COUNT))
    assert again <= 2 * BATCH, "the part went on from its checkpoint"


def test_goes_on_after_the_driver_died(tmp_path: Path, plain: dict[str, list]) -> None:
    store, traces = tmp_path / "store", tmp_path / "traces"
    driver = subprocess.Popen([sys.executable, HERE / "cluster_fakes.py", store, traces])
    until = time.monotonic() + SOON
    while len(list(reads(traces))) < COUNT // 3 and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL and not store.exists()
    with pytest.raises(StoreError, match="unfinished build in 12 parts; leave --parts out"):
        on_cluster(store, TracedSource(traces), parts=PARTS + 1)
    summary = on_cluster(store, TracedSource(traces), parts=None)
    assert contents(store) == plain
    assert summary.fresh < COUNT
    assert len(list(reads(traces))) <= COUNT + 2 * 2 * BATCH


def test_interrupted_it_ends_cleanly(tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = f"cluster --scenes 20000 --batch 4 --checkpoint-every 1 --actors 2 --device cpu --out {store}"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    driver = subprocess.Popen(
        [sys.executable, "-m", "index", *words.split()],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=HERE.parents[1],
    )
    signal.signal(signal.SIGINT, before)
    until = time.monotonic() + SOON
    while (worker := halfway(store)) is None and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert worker is not None
    os.killpg(driver.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    _, said = driver.communicate(timeout=SOON)
    assert driver.returncode == 130
    assert "stopped; finished parts and checkpoints are saved" in said and "Traceback" not in said
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
    assert not store.exists() and parts_folder(store).is_dir()


def test_errors_for_people_are_not_traces(tmp_path: Path) -> None:
    source = TracedSource(tmp_path / "traces", gone=40)
    with pytest.raises(SourceError) as caught:
        on_cluster(tmp_path / "store", source)
    words = str(caught.value)
    assert "has vanished; mount the disk again (part " in words and "Traceback" not in words
    assert "\n" not in words
    assert not (tmp_path / "store").exists() and parts_folder(tmp_path / "store").is_dir()


def test_a_part_that_kills_its_process_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.cluster.TRIES_AGAIN", 1)
    with pytest.raises(ExplorerError, match="A part whose process dies is tried 1") as caught:
        on_cluster(tmp_path / "store", TracedSource(tmp_path / "traces", deadly=0), parts=1, actors=1)
    assert "\n" not in str(caught.value)
    assert sum(read.number == 0 for read in reads(tmp_path / "traces")) == 2


def test_the_command_builds_scenes_with_the_embedded_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = "--scenes 40 --batch 4 --sample 30 --words none --quiet --device cpu".split()
    assert main(["cluster", *same, "--actors", "2", "--out", str(tmp_path / "many")]) == 0
    said = capsys.readouterr()
    assert "40 pictures in" in said.out and "3,072 neurons" in said.out
    assert "ray" not in said.err.lower()
    assert main(["build", *same, "--workers", "0", "--out", str(tmp_path / "one")]) == 0
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExplorerError, match=r"pip install -r requirements-extras\.txt"):
        on_cluster(tmp_path / "store", TracedSource(tmp_path / "traces"))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for wrong in ({"actors": 0}, {"parts": 0}, {"gpus": -1.0}, {"gpus": 1.5}):
        with pytest.raises(ExplorerError, match="use "):
            ClusterConfig(**wrong)
    source = TracedSource(tmp_path / "traces")
    with pytest.raises(ExplorerError, match="no machine has the 512 GPUs that an actor needs"):
        build_on_cluster(whole(tmp_path / "store"), ClusterConfig(gpus=512.0), source, open_fake, open_fake)
    assert not parts_folder(tmp_path / "store").exists()
