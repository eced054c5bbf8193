"""People's names and notes: kept by several at once, carried over by builds, refused in plain words."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_maker import N_NEURONS, fill, make_store, some_manifest

from explorer.errors import StoreError
from explorer.store import Store, StoreWriter, atomic
from explorer.store.notes import MAX_NAME, MAX_NOTE, Notes
from explorer.store.notes_file import NotesFile

SAE, OTHER_SAE = "ab" * 32, "ef" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(make_store(tmp_path / "s"))


def mode_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA journal_mode").fetchone()[0]


def test_notes_come_back_and_can_be_removed(store: Store) -> None:
    assert store.note(3) is None and store.notes() == {} and store.notes([1, 2]) == {}
    assert not (store.folder / "notes.sqlite").exists()  # reading makes nothing
    store.set_note(3, "  the   red\nfork ", " Seen on tables.\nTry alpha -30. ")
    store.set_note(1, note="only a note")
    found = store.note(3)
    assert found is not None and found[:3] == (3, "the red fork", "Seen on tables.\nTry alpha -30.")
    assert found.changed.endswith("+00:00")
    assert list(store.notes()) == [1, 3] and store.notes([3, 4, 3]) == {3: found}
    store.set_note(3, "spoon")
    again = store.note(3)
    assert again is not None and again[:3] == (3, "spoon", "") and again.changed > found.changed
    store.set_note(3)
    assert store.note(3) is None and list(store.notes()) == [1]
    assert store.search("spoon") == [] and store.search("fork") == []
    assert mode_of(store.folder / "notes.sqlite") == "wal"
    store.verify()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("'; DROP TABLE notes; --", None),
        ('"', None),
        ("🦓 καφές", None),
        ("x" * MAX_NAME, None),
        ("a\0b", "ab"),
        ("half a \ud83e pair", "half a pair"),
    ],
)
def test_any_text_is_kept(store: Store, text: str, name: str | None) -> None:
    store.set_note(0, text, text)
    kept = store.note(0)
    assert kept is not None and kept.name == (name or text) and kept.note.split() == kept.name.split()


def test_what_does_not_fit_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=f"at most {MAX_NAME} characters and a note {MAX_NOTE}"):
        store.set_note(0, "x" * (MAX_NAME + 1))
    with pytest.raises(StoreError, match="neuron 0: a name"):
        store.set_note(0, "", "x" * (MAX_NOTE + 1))
    for neuron in (-1, N_NEURONS):
        with pytest.raises(StoreError, match="no neuron"):
            store.set_note(neuron, "x")
    assert not (store.folder / "notes.sqlite").exists()


def write_many(folder: Path, writer: int, times: int) -> None:
    notes = Notes(NotesFile(folder, SAE))
    for step in range(times):
        neuron = writer * times + step
        notes.write(neuron, f"name {writer}", f"note {step}")
        assert notes.read([neuron])[neuron].note == f"note {step}"
        notes.write(10**6, "shared", f"{writer} {step}")


def test_threads_and_processes_write_at_once(store: Store) -> None:
    times = 15
    failed: list[BaseException] = []

    def work(writer: int) -> None:
        try:
            write_many(store.folder, writer, times)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=write_many, args=(store.folder, writer, times)) for writer in range(4, 6)
    ]
    for worker in (*processes, *threads):
        worker.start()
    for worker in (*threads, *processes):
        worker.join()
    assert not failed and [process.exitcode for process in processes] == [0, 0]
    kept = store.notes()
    assert list(kept) == [*range(6 * times), 10**6]
    assert all(note.name == f"name {neuron // times}" for neuron, note in kept.items() if neuron < 10**6)
    assert len(store.search("shared")) == 1


def test_notes_survive_a_build_with_the_same_sae(tmp_path: Path, store: Store) -> None:
    store.set_note(2, "zebra crossing")
    with closing(sqlite3.connect(store.folder / "notes.sqlite")) as busy:
        busy.execute("SELECT * FROM notes").fetchall()  # keeps the write-ahead log from being emptied
        store.set_note(4, "still in the log")
        make_store(store.folder, source="new")
    renewed = Store.open(store.folder)
    assert renewed.manifest.source == "new"
    assert {n: note.name for n, note in renewed.notes().items()} == {
        2: "zebra crossing",
        4: "still in the log",
    }
    assert [match.neuron for match in renewed.search("crossing")] == [2]
    store.set_note(5, "by somebody who has the old store open")
    renewed.set_note(2, "zebra")
    assert list(renewed.notes()) == [2, 4, 5] and store.note(2) == renewed.note(2)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_note_written_while_a_build_is_published_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set_note(2, "early")
    store.set_note(3, "same")
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path == store.folder:  # the notes have been copied, the folder is about to be put aside
            store.set_note(2, "late")
            store.set_note(4, "new")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    make_store(store.folder, source="new")
    assert {n: note.name for n, note in store.notes().items()} == {2: "late", 3: "same", 4: "new"}


def test_a_first_note_written_while_a_build_is_published_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path == store.folder:
            store.set_note(2, "first")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    make_store(store.folder, source="new")
    assert store.notes()[2].name == "first" and mode_of(store.folder / "notes.sqlite") == "wal"


def test_notes_about_another_sae_are_kept_beside(tmp_path: Path, store: Store) -> None:
    store.set_note(2, "zebra crossing")
    make_store(store.folder, sae_id=OTHER_SAE)
    renewed = Store.open(store.folder)
    assert renewed.notes() == {}
    beside = tmp_path / f"s.notes-{SAE[:12]}.sqlite"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", beside.name]
    with pytest.raises(StoreError, match="was replaced by one of another SAE"):
        store.set_note(2, "to nobody")
    renewed.set_note(2, "about the other")
    with pytest.raises(StoreError, match="holds notes about another SAE"):
        store.note(2)
    shutil.copy(beside, store.folder / "notes.sqlite")
    assert store.notes()[2].name == "zebra crossing"


def test_unreadable_notes_stop_no_build(tmp_path: Path, store: Store) -> None:
    path = store.folder / "notes.sqlite"
    store.set_note(2, "zebra")
    path.write_bytes(b"junk" * 3000)
    with pytest.raises(StoreError, match=r"cannot read .*notes\.sqlite: .*; move it away"):
        store.note(2)
    with pytest.raises(StoreError, match=r"cannot keep notes in .*notes\.sqlite"):
        store.set_note(2, "x")
    make_store(store.folder)
    assert Store.open(store.folder).notes() == {}
    assert (tmp_path / "s.notes-unreadable.sqlite").read_bytes() == b"junk" * 3000


def test_notes_of_a_later_format_are_refused(store: Store) -> None:
    store.set_note(2, "zebra")
    with closing(sqlite3.connect(store.folder / "notes.sqlite")) as db:
        db.execute("PRAGMA user_version = 7")
    for ask in (lambda: store.note(2), lambda: store.search("zebra"), lambda: store.set_note(2, "x")):
        with pytest.raises(StoreError, match="has format 7, this program reads format 2 and earlier"):
            ask()


def test_a_failed_build_leaves_the_notes(store: Store) -> None:
    store.set_note(2, "zebra")
    with pytest.raises(KeyboardInterrupt), atomic(store.folder) as work, StoreWriter(work) as writer:
        fill(writer)
        writer.finish(some_manifest())
        raise KeyboardInterrupt
    assert store.notes()[2].name == "zebra"


@pytest.fixture
def read_only() -> Iterator[Store]:
    """A store in a folder that this process may not write, with one note; nothing is forbidden to root."""
    folder = Path(tempfile.mkdtemp())
    store = Store.open(make_store(folder / "s"))
    store.set_note(2, "zebra", "on a crossing")
    for path in (folder, store.folder):
        path.chmod(0o755)
    user = os.geteuid()
    for path in (*store.folder.iterdir(), store.folder):
        path.chmod(path.stat().st_mode & ~0o222)
    if user == 0:
        os.seteuid(65534)
    yield store
    if user == 0:
        os.seteuid(0)
    store.folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written(read_only: Store) -> None:
    assert read_only.notes()[2].note == "on a crossing"
    assert read_only.search("cross")[0].neuron == 2
    with pytest.raises(StoreError, match=r"cannot keep notes in .*notes\.sqlite: .*readonly"):
        read_only.set_note(3, "x")
    with pytest.raises(StoreError, match=r"cannot keep notes in .*notes\.sqlite: .*readonly"):
        read_only.add_to_list("tables", 3)
    assert read_only.lists() == [] and read_only.export_notes()["notes"][0]["name"] == "zebra"


def test_a_first_note_in_a_folder_that_cannot_be_written(read_only: Store) -> None:
    if os.getuid() == 0:
        os.seteuid(0)
    read_only.folder.chmod(0o755)
    (read_only.folder / "notes.sqlite").unlink()
    read_only.folder.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(65534)
    assert read_only.notes() == {} and read_only.note(2) is None
    with pytest.raises(StoreError, match=r"cannot keep notes in .*notes\.sqlite: unable to open"):
        read_only.set_note(3, "x")
