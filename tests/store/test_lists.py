"""Lists of neurons: kept by several at once, carried over by builds, exported, refused in plain words."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from store_maker import N_NEURONS, make_store

from explorer.errors import StoreError
from explorer.records import FAVOURITES, NeuronList
from explorer.store import Store
from explorer.store.lists import MAX_LIST_NAME, MAX_LISTS, Lists
from explorer.store.notes_file import NotesFile

SAE, OTHER_SAE = "ab" * 32, "ef" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(make_store(tmp_path / "s"))


def format_1(folder: Path) -> None:
    """Make the notes of a store those of a program that knew no lists."""
    with closing(sqlite3.connect(folder / "notes.sqlite")) as db, db:
        db.execute("DROP TABLE lists")
        db.execute("PRAGMA user_version = 1")


def test_lists_keep_their_order_and_vanish_when_empty(store: Store) -> None:
    assert store.lists() == [] and store.lists_of(3) == ()
    store.remove_from_list("tables", 3)
    assert not (store.folder / "notes.sqlite").exists()  # neither asking nor removing makes anything
    for neuron in (3, 1, 5, 1):
        store.add_to_list("  red\n tables ", neuron)
    store.add_to_list(FAVOURITES, 1)
    store.add_to_list("Zoo", 2)
    assert store.lists() == [
        NeuronList(FAVOURITES, (1,)),
        NeuronList("red tables", (3, 1, 5)),
        NeuronList("Zoo", (2,)),
    ]
    assert store.lists_of(1) == (FAVOURITES, "red tables") and store.lists_of(4) == ()
    store.remove_from_list("red tables", 3)
    store.add_to_list("red tables", 3)
    store.remove_from_list("Zoo", 2)
    store.remove_from_list("Zoo", 2)
    store.remove_from_list("nobody's", 2)
    assert store.lists() == [NeuronList(FAVOURITES, (1,)), NeuronList("red tables", (1, 5, 3))]
    store.verify()


@pytest.mark.parametrize("name", ["'; DROP TABLE lists; --", '"', "🦓 καφές", "x" * MAX_LIST_NAME, "%_"])
def test_any_name_is_kept(store: Store, name: str) -> None:
    store.add_to_list(name, 0)
    assert store.lists() == [NeuronList(name, (0,))]


def test_what_does_not_fit_is_refused(store: Store) -> None:
    for name in ("", " \n ", "\0"):
        with pytest.raises(StoreError, match="the list has no name; give it one"):
            store.add_to_list(name, 0)
    with pytest.raises(StoreError, match=f"at most {MAX_LIST_NAME} characters; 'xxx"):
        store.add_to_list("x" * (MAX_LIST_NAME + 1), 0)
    for neuron in (-1, N_NEURONS):
        for ask in (store.add_to_list, store.remove_from_list):
            with pytest.raises(StoreError, match=f"no neuron {neuron}"):
                ask("tables", neuron)
    assert not (store.folder / "notes.sqlite").exists()


def test_there_are_not_too_many_lists(store: Store) -> None:
    for number in range(MAX_LISTS):
        store.add_to_list(f"list {number}", 0)
    with pytest.raises(StoreError, match=f"{MAX_LISTS} lists already, .* before 'one more' is made"):
        store.add_to_list("one more", 0)
    store.add_to_list("list 7", 1)
    store.remove_from_list("list 3", 0)
    store.add_to_list("one more", 0)
    assert len(store.lists()) == MAX_LISTS and store.lists_of(1) == ("list 7",)


def write_many(folder: Path, writer: int, times: int) -> None:
    lists = Lists(NotesFile(folder, SAE))
    for step in range(times):
        neuron = writer * times + step
        lists.add(f"list {writer}", neuron)
        lists.add("shared", neuron)
        assert neuron in lists.neurons("shared")
        if step % 2:
            lists.remove("shared", neuron)


def test_threads_and_processes_write_at_once(store: Store) -> None:
    times = 12
    failed: list[BaseException] = []

    def work(writer: int) -> None:
        try:
            write_many(store.folder, writer, times)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(3)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(store.folder, w, times)) for w in range(3, 5)]
    for worker in (*processes, *threads):
        worker.start()
    for worker in (*threads, *processes):
        worker.join()
    assert not failed and [process.exitcode for process in processes] == [0, 0]
    kept = dict(store.lists())
    for writer in range(5):
        assert kept[f"list {writer}"] == tuple(range(writer * times, (writer + 1) * times))
    assert sorted(kept["shared"]) == [n for n in range(5 * times) if n % times % 2 == 0]


def test_lists_survive_a_build_with_the_same_sae(tmp_path: Path, store: Store) -> None:
    store.add_to_list("tables", 3)
    store.add_to_list("tables", 1)
    make_store(store.folder, source="new")
    renewed = Store.open(store.folder)
    assert renewed.manifest.source == "new" and renewed.lists() == [NeuronList("tables", (3, 1))]
    make_store(store.folder, sae_id=OTHER_SAE)
    assert Store.open(store.folder).lists() == []
    with pytest.raises(StoreError, match="was replaced by one of another SAE"):
        store.add_to_list("tables", 2)
    beside = tmp_path / f"s.notes-{SAE[:12]}.sqlite"
    beside.rename(store.folder / "notes.sqlite")
    assert store.lists() == [NeuronList("tables", (3, 1))]
    with pytest.raises(StoreError, match="holds notes about another SAE"):
        Store.open(store.folder).lists()


@pytest.mark.parametrize("old", [False, True], ids=["lists", "format 1"])
def test_what_changes_while_a_build_is_published_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    store.set_note(2, "a note")
    if old:
        format_1(store.folder)
    else:
        store.add_to_list("tables", 1)
        store.add_to_list("tables", 2)
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path == store.folder:  # the notes have been copied, the folder is about to be put aside
            store.remove_from_list("tables", 1)
            store.add_to_list("tables", 4)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    make_store(store.folder, source="new")
    assert store.lists() == [NeuronList("tables", (4,) if old else (2, 4))]
    assert store.notes()[2].name == "a note"


def test_notes_without_lists_are_read_and_get_them_when_somebody_writes(store: Store) -> None:
    store.set_note(2, "zebra", "on a crossing")
    format_1(store.folder)
    before = (store.folder / "notes.sqlite").read_bytes()
    again = Store.open(store.folder)
    assert again.notes()[2].name == "zebra" and again.search("crossing")[0].neuron == 2
    assert again.lists() == [] and again.lists_of(2) == ()
    again.remove_from_list("tables", 2)
    assert (store.folder / "notes.sqlite").read_bytes() == before
    again.add_to_list("tables", 2)
    assert again.lists() == [NeuronList("tables", (2,))] and again.notes()[2].name == "zebra"
    format_1(store.folder)
    again.set_note(3, "lion")
    assert list(again.notes()) == [2, 3] and again.lists() == []


def test_export_holds_all_that_people_wrote(store: Store) -> None:
    facts = {"format": 1, "sae_id": SAE, "model": "fake@0123"}
    assert store.export_notes() == {**facts, "notes": [], "lists": []}
    store.set_note(4, "zebra", "seen\nat “noon”")
    store.set_note(1, "lion")
    store.set_note(1)
    store.add_to_list("tables", 3)
    store.add_to_list("tables", 1)
    (note,) = store.notes().values()
    written = json.loads(json.dumps(store.export_notes()))
    assert written == {
        **facts,
        "notes": [{"neuron": 4, "name": "zebra", "note": "seen\nat “noon”", "changed": note.changed}],
        "lists": [{"name": "tables", "neurons": [3, 1]}],
    }


@pytest.mark.parametrize(
    "ask", [lambda s: s.add_to_list("tables", 1), lambda s: s.remove_from_list("old", 2)]
)
def test_a_file_that_cannot_be_written(store: Store, ask: Callable[[Store], None]) -> None:
    store.add_to_list("old", 2)
    path = store.folder / "notes.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(
            "CREATE TRIGGER no_more BEFORE INSERT ON lists BEGIN SELECT raise(ABORT, 'disk full'); END"
        )
        db.execute(
            "CREATE TRIGGER no_less BEFORE UPDATE ON lists BEGIN SELECT raise(ABORT, 'disk full'); END"
        )
    with pytest.raises(StoreError, match=r"cannot keep notes in .*notes\.sqlite: disk full"):
        ask(store)
    assert store.lists() == [NeuronList("old", (2,))]
