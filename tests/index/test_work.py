"""The work folder of a part: its lock, its pins, and checkpoints that survive whatever happens to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from explorer.errors import StoreError
from explorer.store.pending import Pending, PendingImage
from explorer.store.writer import SkippedRow
from index import checkpoints, work
from index.checkpoints import Saved
from index.work import Cadence, Pins, Shard, SourceFacts, check_out, open_finished, open_work, work_folder

FACTS = SourceFacts("a list", (("word", "fish"), ("class", "cat")), ("cat",))


def some_pins(**changes: object) -> Pins:
    """Pins of a small build."""
    texts = {"str": "x", "int": 7, "bool": False}
    known = {item.name: texts[str(item.type)] for item in fields(Pins)}
    return replace(Pins(**{**known, "shard": 1, "of": 1, "format": work.STATE_FORMAT}), **changes)


def some_saved(chunks: int, of: int = 9) -> Saved:
    """A checkpoint whose arrays tell how many chunks it has."""
    arrays = {"top.key": np.full((3, 2), chunks, np.uint64), "empty": np.zeros((0, 4), np.float32)}
    arrays["count"] = np.int64(chunks)
    return Saved(chunks, of, {"rows": 4}, arrays, [SkippedRow("a\u2028\udc80.png", "x/ä", "it is\ncut")])


def same(found: Saved | None, wanted: Saved) -> bool:
    """Whether two checkpoints hold the same."""
    return (
        found is not None
        and found[:3] == wanted[:3]
        and list(found.skipped) == list(wanted.skipped)
        and found.arrays.keys() == wanted.arrays.keys()
        and all(np.array_equal(found.arrays[name], wanted.arrays[name]) for name in wanted.arrays)
    )


def test_a_checkpoint_reads_back_and_replaces_the_one_before(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path) is None and checkpoints.progress(tmp_path) is None
    for chunks in (2, 10):
        checkpoints.save(tmp_path, some_saved(chunks))
        assert [path.name for path in tmp_path.iterdir()] == [f"state-{chunks:08d}"]
        assert checkpoints.progress(tmp_path) == (chunks, 9)
        assert same(checkpoints.load(tmp_path), some_saved(chunks))
        mapped = checkpoints.load_mapped(tmp_path)
        assert mapped is not None and same(mapped.saved, some_saved(chunks))
        assert same(mapped.saved._replace(arrays=mapped.read()), some_saved(chunks))
    before = (tmp_path / "state-00000010" / "state.json").stat().st_mtime_ns
    checkpoints.save(tmp_path, some_saved(10))
    assert (tmp_path / "state-00000010" / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["top.key.npy", "skipped.jsonl", "state.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, how: str) -> None:
    (tmp_path / "old").mkdir()
    checkpoints.save(tmp_path / "old", some_saved(3))
    (tmp_path / "new").mkdir()
    checkpoints.save(tmp_path / "new", some_saved(5))
    victim = tmp_path / "new" / "state-00000005" / name
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1 if name != "state.json" else 0x80
    {"flip": lambda: victim.write_bytes(data), "cut": lambda: os.truncate(victim, len(data) // 2)}.get(
        how, victim.unlink
    )()
    with pytest.raises(StoreError, match=r"is damaged \(state-00000005: .*--restart"):
        checkpoints.load(tmp_path / "new")
    (tmp_path / "old" / "state-00000003").rename(tmp_path / "new" / "state-00000003")
    found = checkpoints.load(tmp_path / "new")
    assert same(found, some_saved(3)) and found is not None and len(found.damaged) == 1
    checkpoints.save(tmp_path / "new", some_saved(5))
    assert same(checkpoints.load(tmp_path / "new"), some_saved(5))


def test_what_a_crash_leaves_of_a_checkpoint_is_ignored(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, some_saved(3))
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "top.key.npy").write_bytes(b"half")
    assert same(checkpoints.load(tmp_path), some_saved(3))
    checkpoints.save(tmp_path, some_saved(4))
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000004"]


def test_a_failed_save_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, some_saved(3))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "save", full)
    with pytest.raises(StoreError, match="No space left on device; what was saved before is safe"):
        checkpoints.save(tmp_path, some_saved(4))
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000003"]
    assert same(checkpoints.load(tmp_path), some_saved(3))


def test_each_difference_of_the_pins_is_named(tmp_path: Path) -> None:
    folder = work_folder(tmp_path / "store", None)
    assert folder.name == ".store.building"
    with open_work(folder, some_pins(), FACTS) as held:
        held.save(some_saved(3))
    with open_work(folder, some_pins(), FACTS) as held:
        assert same(held.load(), some_saved(3))
    for item in fields(Pins):
        if item.name == "format":
            continue
        value = {"str": "other", "int": 8, "bool": True}[str(item.type)]
        words = f"{item.name}: {getattr(some_pins(), item.name)} -> {value}"
        with (
            pytest.raises(StoreError, match=words + r"\); repeat .* --restart"),
            open_work(folder, replace(some_pins(), **{item.name: value}), FACTS),
        ):
            pass
    changed = some_pins(batch=8, places=3)
    with pytest.raises(StoreError, match="batch: 7 -> 8; places: 7 -> 3"), open_work(folder, changed, FACTS):
        pass
    with open_work(folder, changed, FACTS, restart=True) as held:
        assert held.load() is None
    assert open_finished(folder).pins == changed and open_finished(folder).facts == FACTS
    (folder / "pins.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="format 99, this program writes"), open_work(folder, changed, FACTS):
        pass
    (folder / "pins.json").write_text("{")
    with pytest.raises(StoreError, match="missing or damaged"), open_work(folder, changed, FACTS):
        pass


def test_a_second_builder_is_told_of_the_first(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from index.work import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "w")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert other.stdin and other.stdout and other.stdout.readline() == b"held\n"
    words = rf"another build \(process {other.pid} on .* since .*\) is writing .*choose another --out"
    with pytest.raises(StoreError, match=words), open_work(tmp_path / "w", some_pins(), FACTS):
        pass
    other.kill()
    other.wait()
    with open_work(tmp_path / "w", some_pins(), FACTS) as held:
        held.remove()
    assert not (tmp_path / "w").exists()


def test_strange_or_read_only_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "dear.txt").touch()
    with (
        pytest.raises(StoreError, match=r"holds dear.txt but no pins"),
        open_work(tmp_path / "w", some_pins(), FACTS),
    ):
        pass
    assert (tmp_path / "w" / "dear.txt").exists()
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match="cannot write in"),
        open_work(tmp_path / "file" / "w", some_pins(), FACTS),
    ):
        pass
    with pytest.raises(StoreError, match="is a file"):
        check_out(tmp_path / "file", Shard(1, 2))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").touch()
    with pytest.raises(StoreError, match="is a finished store"):
        check_out(tmp_path / "store", Shard(1, 2))
    part = work_folder(tmp_path / "parts", Shard(3, 64))
    assert part == tmp_path / "parts" / "part-0003-of-0064"
    part.mkdir(parents=True)
    check_out(tmp_path / "parts", Shard(1, 64))
    with pytest.raises(StoreError, match="index merge"):
        check_out(tmp_path / "parts", None)


def test_checkpoints_take_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    cadence = Cadence(10.0)
    for moment, due in ((9.9, False), (10.0, True)):
        now[0] = moment
        assert cadence.due() is due
    cadence.saved(seconds=2.0)
    for moment, due in ((69.0, False), (70.0, True)):
        now[0] = moment
        assert cadence.due() is due
    cadence.saved(seconds=0.01)
    now[0] = 80.0
    assert cadence.due()


def picture(number: int) -> PendingImage:
    """A picture that holds a place."""
    return PendingImage(number, f"i{number}", f"from/{number}", 4, 4, bytes([number]), (1, number))


def test_pending_pictures_survive_from_commit_to_commit(tmp_path: Path) -> None:
    path = tmp_path / "pictures.sqlite"
    with Pending(path) as pending:
        pending.put(picture(n) for n in (5, 1, 9))
        pending.commit()
        pending.put([picture(7)])  # lost: no commit follows
    with Pending(path) as pending:
        assert pending.numbers().tolist() == [1, 5, 9]
        pending.put([picture(5), picture(2)])
        pending.keep(np.array([2, 5, 100]))
    with Pending(path, new=False) as pending:
        assert list(pending.read(np.array([5, 2]))) == [picture(2), picture(5)]
        assert list(pending.read(np.array([5]))) == [picture(5)]
        with pytest.raises(StoreError, match="lacks picture 3"):
            list(pending.read(np.array([2, 3])))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="cannot write"), Pending(path):
        pass
