"""Saved progress: the arrays of a build's state in a folder, published by rename, checked when it is read.

`state-<chunks done>/` holds one .npy per array, skipped.jsonl and state.json, which is written last and
names the others with their hashes. Knows arrays and files; nothing of what the arrays mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.store.manifest import FileFacts, facts_of
from explorer.store.writer import SkippedRow

FACTS_NAME = "state.json"
SKIPPED_NAME = "skipped.jsonl"
_STATE = re.compile(r"state-(\d+)")
_SAVING = ".saving"
_AT_ONCE = 8
"""Files that are written at the same time."""
_READERS, _PIECE = 4, 1 << 23


class Saved(NamedTuple):
    """What a checkpoint holds.

    chunks: how many chunks of the part are done, of how many; shape: fields of the StateShape, None when
    no picture could be read so far; arrays: of the state; skipped: pictures that could not be read;
    damaged: what was wrong with newer checkpoints that had to be passed over.
    """

    chunks: int
    of: int
    shape: Mapping[str, object] | None
    arrays: Mapping[str, np.ndarray]
    skipped: Sequence[SkippedRow]
    damaged: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all chunks of the part are done."""
        return self.chunks == self.of


def save(folder: Path, saved: Saved) -> None:
    """Write a checkpoint into the part's folder. Once this returns it is on the disk and older ones are gone.

    Raises StoreError when it cannot be written; the checkpoint before it is then as it was.
    """
    part, target = folder / _SAVING, folder / f"state-{saved.chunks:08d}"
    if target.is_dir() and _problem(target) is None:
        return
    try:
        _remove(part)
        part.mkdir()
        paths = [part / f"{name}.npy" for name in saved.arrays]
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # waiting for the disk and hashing leave the others room
            written = pool.map(_write_array, paths, saved.arrays.values())
            files = {path.name: facts for path, facts in zip(paths, written, strict=True)}
        lines = "".join(json.dumps(list(row)) + "\n" for row in saved.skipped)
        files[SKIPPED_NAME] = _write(part / SKIPPED_NAME, lines)
        facts = {"chunks": saved.chunks, "of": saved.of, "shape": saved.shape, "files": files}
        _write(part / FACTS_NAME, json.dumps(facts, indent=1))
        sync_folder(part)
        _remove(target)
        part.rename(target)
        sync_folder(folder)
        for older in _states(folder):
            if older != target:
                shutil.rmtree(older)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StoreError(
            f"cannot save the progress in {folder}: {error.strerror or error}; what was saved before is "
            "safe. Make room (or mend the disk) and run the same command again to go on"
        ) from error


class Mapped(NamedTuple):
    """A checkpoint whose arrays are read-only memory maps, of which only the sizes were looked at.

    saved: what it holds; folder: where.
    """

    saved: Saved
    folder: Path

    def read(self) -> dict[str, np.ndarray]:
        """The arrays in memory, each read from the disk once and checked.

        Raises StoreError when one is not as it was written.
        """
        files = json.loads((self.folder / FACTS_NAME).read_text(encoding="utf-8"))["files"]
        names = sorted(self.saved.arrays, key=lambda name: -files[f"{name}.npy"][0])

        def one(name: str) -> np.ndarray | None:
            return _read_whole(self.folder / f"{name}.npy", FileFacts(*files[f"{name}.npy"]))

        with ThreadPoolExecutor(_READERS) as pool:  # reading and hashing set the other threads free
            found = dict(zip(names, pool.map(one, names), strict=True))
        if wrong := [f"{name}.npy" for name, data in found.items() if data is None]:
            problem = f"{self.folder.name}: {', '.join(wrong)} changed or cut short"
            raise _all_damaged(self.folder.parent, [problem])
        return {
            name: _like(self.saved.arrays[name], data) for name, data in found.items() if data is not None
        }


def load(folder: Path) -> Saved | None:
    """The newest whole checkpoint in a part's folder; None when there is none yet.

    A damaged checkpoint is passed over for the one before it; StoreError when only damaged ones are there.
    """
    found = _newest(folder, lambda name: True)
    if found is None:
        return None
    saved = _read(found.state, None)
    return saved._replace(damaged=found.damaged)


def load_mapped(folder: Path) -> Mapped | None:
    """The newest checkpoint in a part's folder, left on the disk; None when there is none yet.

    One with files missing or cut short is passed over as in `load`; the rest is for `read` to find.
    """
    found = _newest(folder, lambda name: name == SKIPPED_NAME)
    if found is None:
        return None
    try:
        saved = _read(found.state, "r")
    except (OSError, ValueError, EOFError) as error:
        raise _all_damaged(folder, [f"{found.state.name}: {error}"]) from error
    return Mapped(saved._replace(damaged=found.damaged), found.state)


class _Found(NamedTuple):
    """A whole checkpoint, and what was wrong with newer ones."""

    state: Path
    damaged: tuple[str, ...]


def _newest(folder: Path, hashed: Callable[[str], bool]) -> _Found | None:
    """The newest checkpoint without a problem; the files are hashed whose names are."""
    damaged: list[str] = []
    for state in reversed(_states(folder)):
        problem = _problem(state, hashed)
        if problem is None:
            return _Found(state, tuple(damaged))
        damaged.append(f"{state.name}: {problem}")
    if damaged:
        raise _all_damaged(folder, damaged)
    return None


def _all_damaged(folder: Path, damaged: Sequence[str]) -> StoreError:
    return StoreError(
        f"the saved progress in {folder} is damaged ({'; '.join(damaged)}); "
        "start this build again with --restart"
    )


def progress(folder: Path) -> tuple[int, int] | None:
    """Chunks done and chunks in all, as the newest checkpoint says, unchecked; None when there is none."""
    for state in reversed(_states(folder)):
        try:
            facts = json.loads((state / FACTS_NAME).read_text(encoding="utf-8"))
            return int(facts["chunks"]), int(facts["of"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _states(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if _STATE.fullmatch(path.name) and path.is_dir())


def _write_array(path: Path, array: np.ndarray) -> FileFacts:
    """Write one array; returns the size and hash of its file."""
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    return facts_of(path)


def _write(path: Path, text: str) -> FileFacts:
    """Write a text; returns the size and hash of its file."""
    with path.open("w", encoding="ascii") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return facts_of(path)


def _remove(folder: Path) -> None:
    """Remove a folder, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _problem(state: Path, hashed: Callable[[str], bool] = lambda name: True) -> str | None:
    """What is wrong with a checkpoint, or None. The sizes of all files are looked at; some are hashed."""
    try:
        facts = json.loads((state / FACTS_NAME).read_text(encoding="utf-8"))
        files = {name: FileFacts(*known) for name, known in facts["files"].items()}
        int(facts["chunks"]), int(facts["of"]), facts["shape"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{FACTS_NAME} cannot be read ({error})"

    def changed(name: str) -> bool:
        try:
            size = (state / name).stat().st_size
            return size != files[name].bytes or (hashed(name) and facts_of(state / name) != files[name])
        except OSError:
            return True

    names = sorted(files, key=lambda name: -files[name].bytes)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing sets the other threads free
        wrong = [name for name, bad in zip(names, pool.map(changed, names), strict=True) if bad]
    return f"{', '.join(wrong)} changed or cut short" if wrong else None


def _read_whole(path: Path, facts: FileFacts) -> np.ndarray | None:
    """The bytes of a file that is not needed in the system's cache any more; None when they are not those."""
    digest, data = hashlib.sha256(), np.empty(facts.bytes, dtype=np.uint8)
    done = 0
    try:
        with path.open("rb", buffering=0) as stream:
            while done < len(data) and (count := stream.readinto(data[done : done + _PIECE])):
                digest.update(data[done : done + count])
                done += count
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return None
    return data if done == len(data) and digest.hexdigest() == facts.sha256 else None


def _like(array: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The bytes of a .npy file as an array like the one that it is known to hold."""
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    return data[len(data) - array.nbytes :].view(array.dtype).reshape(array.shape, order=order)


def _read(state: Path, mode: Literal["r"] | None) -> Saved:
    """Read a checkpoint whose files are known to be whole; its arrays stay on the disk in mode "r"."""
    facts = json.loads((state / FACTS_NAME).read_text(encoding="utf-8"))
    names = [name.removesuffix(".npy") for name in facts["files"] if name.endswith(".npy")]
    arrays = {name: np.load(state / f"{name}.npy", mmap_mode=mode, allow_pickle=False) for name in names}
    lines = (state / SKIPPED_NAME).read_text(encoding="ascii").splitlines()
    skipped = [SkippedRow(*json.loads(line)) for line in lines]
    return Saved(facts["chunks"], facts["of"], facts["shape"], arrays, skipped)
