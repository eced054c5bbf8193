"""The work folder of one part of a build: who writes it, what is being built, and how far it is.

Decides between starting, going on and refusing. Checkpoints are written by `checkpoints`; it knows no
models, pictures or statistics.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from explorer.errors import StoreError
from explorer.store import check_target
from explorer.store.manifest import MANIFEST_NAME
from index import checkpoints
from index.checkpoints import Saved, sync_folder

STATE_FORMAT = 1
PINS_NAME = "pins.json"
FACTS_NAME = "source.json"
LOCK_NAME = "lock"
PICTURES_NAME = "pictures.sqlite"
LONGEST_SHARE = 30
"""The next checkpoint is not made before this many times the duration of the last one: about 3 %."""


class Shard(NamedTuple):
    """One part of a build in several: number index (from 1) of `of`."""

    index: int = 1
    of: int = 1


@dataclass(frozen=True)
class Pins:
    """All that must be the same for progress to be continued, or for parts to be merged.

    format: of the state; n_images: how many pictures the source has, after --limit; vocabulary: sha256 of
    the source's vocabulary and concepts; shard, of: which part of how many. The others as in FORMAT.md.
    """

    model_id: str
    block: int
    sae_id: str
    n_neurons: int
    width: int
    dtype: str
    device: str
    preprocessing: str
    list_hash: str
    n_images: int
    vocabulary: str
    batch: int
    score: str
    include_cls: bool
    places: int
    sample: int
    shard: int = 1
    of: int = 1
    format: int = STATE_FORMAT

    def differences(self, wanted: Pins) -> list[str]:
        """What differs from the pins wanted, as "name: was -> is"."""
        return [
            f"{item.name}: {was} -> {now}"
            for item in fields(self)
            if (was := getattr(self, item.name)) != (now := getattr(wanted, item.name))
        ]


class SourceFacts(NamedTuple):
    """What a merge must know of the source: its description in words, its vocabulary and its concepts."""

    description: str
    vocabulary: tuple[tuple[str, str], ...]
    concepts: tuple[str, ...]


def work_folder(out: Path, shard: Shard | None) -> Path:
    """Where a part is built: hidden beside the store, or inside the folder of parts that `out` names."""
    if shard is None:
        return out.absolute().parent / f".{out.absolute().name}.building"
    return out.absolute() / f"part-{shard.index:04d}-of-{shard.of:04d}"


def check_out(out: Path, shard: Shard | None) -> None:
    """Refuse an --out that this build must not write to. Raises StoreError."""
    if shard is None:
        if out.is_dir() and any(out.glob("part-*-of-*")):
            raise StoreError(
                f"{out} holds parts; merge them (python -m index merge {out} --out STORE), or add --shard"
            )
        check_target(out)
    elif out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; name a folder for the parts")
    elif (out / MANIFEST_NAME).exists():
        raise StoreError(f"{out} is a finished store; name another folder for the parts")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made when missing, against other builders; an empty one is removed afterwards.

    Raises StoreError that names the process that holds it, or says that the folder cannot be written.
    """
    lock = _take_lock(folder)
    try:
        yield
    finally:
        if lock in _held:  # not so in a forked child, which has nothing to say here
            (folder / LOCK_NAME).unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            _close(lock)


_held: set[int] = set()
"""The descriptors of the lock files that this process has open."""


def _forget_locks() -> None:
    """In a forked child: close what it inherited, or its life would keep the locks when its parent is killed.

    A lock goes when the last of its descriptors is closed; closing the child's takes nothing from the parent.
    """
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_locks)


def _close(lock: int) -> None:
    """Close a lock file, which frees the lock if it was held."""
    _held.discard(lock)
    os.close(lock)


def _take_lock(folder: Path) -> int:
    """The descriptor of a folder's lock file, held."""
    path = folder / LOCK_NAME
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(
                f"cannot write in {folder.parent}: {error.strerror or error}; choose another --out"
            ) from error
        _held.add(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 1000, 0).decode(errors="replace").strip() or "process unknown"
            _close(lock)
            raise StoreError(
                f"another build ({holder}) is writing {folder}; wait for it, or choose another --out"
            ) from error
        except OSError as error:
            _close(lock)
            raise StoreError(
                f"cannot lock {path}: {error.strerror or error}; choose an --out on another disk"
            ) from error
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            break
        _close(lock)  # the one who held it has just removed it: ask again
    os.ftruncate(lock, 0)
    started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()} since {started}".encode())
    return lock


class Work:
    """A held work folder with its pins. Make it with `open_work`."""

    def __init__(self, folder: Path, pins: Pins, facts: SourceFacts) -> None:
        self.folder, self.pins, self.facts = folder, pins, facts

    @property
    def pictures(self) -> Path:
        """The file of pending pictures."""
        return self.folder / PICTURES_NAME

    def load(self) -> Saved | None:
        """The newest checkpoint, None before the first."""
        return checkpoints.load(self.folder)

    def save(self, saved: Saved) -> None:
        """Write a checkpoint."""
        checkpoints.save(self.folder, saved)

    def remove(self) -> None:
        """Throw the folder's contents away, all but the lock."""
        _empty(self.folder)


@contextmanager
def open_work(folder: Path, pins: Pins, facts: SourceFacts, restart: bool = False) -> Iterator[Work]:
    """Hold a part's work folder: a new one, or the one of an unfinished build of the same thing.

    restart: throw away what is there. Raises StoreError when another builder holds it, when its pins differ
    (each difference is named), or when it cannot be written.
    """
    with locked(folder):
        if restart:
            _empty(folder)
        elif (folder / PINS_NAME).exists():
            earlier = read_pins(folder)
            if changed := earlier.differences(pins):
                raise StoreError(
                    f"{folder} holds the progress of another build ({'; '.join(changed)}); repeat that "
                    "build's arguments to go on, or throw its progress away with --restart"
                )
        elif strangers := [path.name for path in sorted(folder.iterdir()) if not _is_ours(path.name)]:
            raise StoreError(
                f"{folder} holds {strangers[0]} but no {PINS_NAME}: it is not the work of a build, or is "
                "damaged; choose another --out, or throw it away with --restart"
            )
        try:
            if not (folder / PINS_NAME).exists():
                _write_json(folder / FACTS_NAME, facts._asdict())
                _write_json(folder / PINS_NAME, asdict(pins))
        except OSError as error:
            raise StoreError(
                f"cannot write in {folder}: {error.strerror or error}; choose another --out"
            ) from error
        yield Work(folder, pins, facts)


def open_finished(folder: Path) -> Work:
    """A part's folder for reading, by `merge`. Raises StoreError when it is not the work of a build."""
    pins = read_pins(folder)
    try:
        raw = json.loads((folder / FACTS_NAME).read_text(encoding="utf-8"))
        vocabulary = tuple((str(kind), str(name)) for kind, name in raw["vocabulary"])
        facts = SourceFacts(str(raw["description"]), vocabulary, tuple(raw["concepts"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder / FACTS_NAME} is damaged ({error}); build this part again with --restart"
        ) from error
    return Work(folder, pins, facts)


def read_pins(folder: Path) -> Pins:
    """What a part's folder is being built from. Raises StoreError when the file is missing or damaged."""
    path = folder / PINS_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != STATE_FORMAT:
            raise StoreError(
                f"{folder} holds progress of format {raw['format']}, this program writes format "
                f"{STATE_FORMAT}; throw it away with --restart"
            )
        return Pins(**raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is missing or damaged ({error}); start again with --restart") from error


def _is_ours(name: str) -> bool:
    """Whether a build that was killed before it wrote its pins may have left this file."""
    return name in (LOCK_NAME, FACTS_NAME) or name.startswith(".")


def _empty(folder: Path) -> None:
    """Remove all of a folder's contents but the lock: first of all its checkpoints, at one stroke each, since
    they need the rest; last the pins, by which a folder that was only half emptied is known."""
    try:
        for half_gone in folder.glob(".gone-*"):
            shutil.rmtree(half_gone)
        for state in folder.glob("state-*"):
            state.rename(folder / f".gone-{state.name}")
        for path in sorted(folder.iterdir(), key=lambda path: path.name == PINS_NAME):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_NAME:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot remove {folder}: {error.strerror or error}") from error


def _write_json(path: Path, value: object) -> None:
    """Write a file of JSON, whole."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(path)
    sync_folder(path.parent)


class Cadence:
    """Says when the next checkpoint is due: not sooner than `every` seconds after the last, and never so
    often that more than about 3 % of the time goes into them."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._due = time.monotonic() + every

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._due

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint was made and how long it took."""
        self._due = time.monotonic() + max(self._every, LONGEST_SHARE * seconds)
