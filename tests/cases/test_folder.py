"""Cases on the server: who has the link opens them, who has the key removes them, nobody else does either."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import explorer.cases.folder as module
from explorer.cases.case import ENDING, write
from explorer.cases.folder import Folder, id_of
from explorer.errors import CaseError
from tests.cases.case_maker import FULL


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "cases")


def test_a_kept_case_opens_by_its_id_and_goes_by_its_key(folder: Folder) -> None:
    assert folder.ids() == []
    kept = folder.keep(FULL)
    assert kept.id == id_of(kept.key) and kept.key not in kept.id
    assert folder.open(kept.id) == FULL and folder.ids() == [kept.id]
    with pytest.raises(CaseError, match="no key"):
        folder.remove(kept.id)
    folder.remove(kept.key)
    with pytest.raises(CaseError, match="no case"):
        folder.open(kept.id)
    with pytest.raises(CaseError, match="not on the server any more"):
        folder.remove(kept.key)


def test_ids_cannot_be_guessed_and_the_newest_comes_first(folder: Folder) -> None:
    kept = [folder.keep(FULL) for _ in range(5)]
    assert len({one.id for one in kept}) == len({one.key for one in kept}) == 5
    for age, one in enumerate(reversed(kept)):
        os.utime(folder.path / f"{one.id}{ENDING}", (1e9 - age, 1e9 - age))
    assert folder.ids() == [one.id for one in reversed(kept)]


@pytest.mark.parametrize(
    "wrong",
    [
        "../secret",
        "..",
        "",
        "a" * 23,
        "A" * 24,
        "/etc/passwd",
        "a" * 24 + "\n",
        "a/" * 12,
        "\0" * 24,
        None,
        7,
        [],
    ],
)
def test_no_id_leads_out_of_the_folder(folder: Folder, wrong: object) -> None:
    folder.keep(FULL)
    (folder.path.parent / f"secret{ENDING}").write_bytes(write(FULL))
    with pytest.raises(CaseError, match="no case"):
        folder.open(wrong)
    with pytest.raises(CaseError):
        folder.remove(wrong)


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_any_text_is_refused_or_names_a_file_in_the_folder(text: str) -> None:
    folder = Folder(Path("/nowhere/cases"))
    with pytest.raises(CaseError):
        folder.open(text)
    with pytest.raises(CaseError):
        folder.remove(text)


def test_a_read_only_page_opens_but_neither_keeps_nor_removes(folder: Folder) -> None:
    kept = folder.keep(FULL)
    closed = Folder(folder.path, read_only=True)
    assert closed.open(kept.id) == FULL
    for forbidden in (lambda: closed.keep(FULL), lambda: closed.remove(kept.key)):
        with pytest.raises(CaseError, match="read-only"):
            forbidden()
    assert folder.ids() == [kept.id]


def test_number_and_size_are_bounded(tmp_path: Path) -> None:
    few = Folder(tmp_path / "few", most=2)
    few.keep(FULL), few.keep(FULL)
    with pytest.raises(CaseError, match="no room"):
        few.keep(FULL)
    small = Folder(tmp_path / "small", most_bytes=len(write(FULL)) * 2 - 1)
    small.keep(FULL)
    with pytest.raises(CaseError, match="no room"):
        small.keep(FULL)
    assert len(few.ids()) == 2 and len(small.ids()) == 1


def test_many_at_once_neither_mix_nor_pass_the_bounds(tmp_path: Path) -> None:
    folder, start = Folder(tmp_path / "cases", most=12), threading.Barrier(20)

    def keep(i: int) -> tuple[str, str] | None:
        start.wait(timeout=30)
        try:
            return folder.keep(replace(FULL, title=f"case {i}")).id, f"case {i}"
        except CaseError:
            return None

    with ThreadPoolExecutor(20) as pool:
        kept = [one for one in pool.map(keep, range(20)) if one]
    assert len(kept) == len(folder.ids()) == 12
    assert all(folder.open(id).title == title for id, title in kept)
    assert not list(folder.path.glob("*.part"))


def test_a_reader_never_sees_half_a_case(folder: Folder) -> None:
    seen, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.extend(folder.open(id) for id in folder.ids())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(10):
        folder.keep(FULL)
    stop.set()
    watcher.join()
    assert all(case == FULL for case in seen)


def test_a_failed_write_leaves_nothing_and_says_why(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(CaseError, match="No space left"):
        folder.keep(FULL)
    assert list(folder.path.iterdir()) == []


def test_a_damaged_case_is_named_as_one(folder: Folder) -> None:
    kept = folder.keep(FULL)
    (folder.path / f"{kept.id}{ENDING}").write_bytes(b"{")
    with pytest.raises(CaseError, match="damaged"):
        folder.open(kept.id)
