"""Cases kept on the server: one file each in a folder, found only by whoever has the link.

Whoever keeps a case gets a key. The case's id, which is in the link, is made from the key and does not give
it away: a link lets people open a case, only the key removes it. Several threads of one process may write;
two processes may pass the bounds by the cases that they write at the same moment.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from explorer.cases.case import ENDING, Case, read, write
from explorer.errors import CaseError

DEFAULT = Path(__file__).resolve().parents[2] / "stores" / "cases"
MOST_CASES, MOST_BYTES = 2000, 4 << 30
_ID = re.compile(r"[a-z2-7]{24}")
_KEY = re.compile(r"[A-Za-z0-9_-]{32}")


class Kept(NamedTuple):
    """A case in the folder: the id for its link, and the key that removes it."""

    id: str
    key: str


def id_of(key: str) -> str:
    """The id that belongs to a key."""
    return base64.b32encode(hashlib.sha256(key.encode()).digest()).decode().lower()[:24]


class Folder:
    """The cases in one folder, made when the first one comes. read_only: none may be kept or removed.

    most, most_bytes: how many there may be, and how much they may take together.
    """

    def __init__(
        self,
        path: Path = DEFAULT,
        read_only: bool = False,
        most: int = MOST_CASES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.path, self.read_only, self.most, self.most_bytes = path, read_only, most, most_bytes
        self._lock = threading.Lock()

    def keep(self, case: Case) -> Kept:
        """Write a case; a reader sees it whole or not at all. Raises CaseError when it may not or cannot."""
        self._writable()
        data, key = write(case), secrets.token_urlsafe(24)
        kept = Kept(id_of(key), key)
        with self._lock:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._room(len(data))
                self._put(self._place(kept.id), data)
            except OSError as error:
                raise CaseError(f"the case cannot be kept: {error.strerror or error}") from error
        return kept

    def open(self, id: object) -> Case:
        """The case with an id. Raises CaseError when there is none, or it is damaged."""
        place = self._place(id)
        try:
            data = place.read_bytes()
        except OSError as error:
            raise CaseError(f"there is no case {id!a} on this server any more") from error
        return read(data)

    def remove(self, key: object) -> None:
        """Remove the case that a key belongs to. Raises CaseError when there is none, or none may go."""
        self._writable()
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise CaseError("this is no key of a case")
        try:
            self._place(id_of(key)).unlink()
        except OSError as error:
            raise CaseError("this case is not on the server any more") from error

    def ids(self) -> list[str]:
        """The ids of all cases, the newest first: for whoever looks after the folder, not for visitors."""
        found = [path for path in self.path.glob(f"*{ENDING}") if _ID.fullmatch(self._id(path))]
        return [self._id(path) for path in sorted(found, key=_changed, reverse=True)]

    def _id(self, path: Path) -> str:
        return path.name.removesuffix(ENDING)

    def _place(self, id: object) -> Path:
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise CaseError(f"there is no case {ascii(id)[:40]} on this server")
        return self.path / f"{id}{ENDING}"

    def _writable(self) -> None:
        if self.read_only:
            raise CaseError("this page is read-only: download the case as a file")

    def _room(self, more: int) -> None:
        sizes = [path.stat().st_size for path in self.path.glob(f"*{ENDING}")]
        if len(sizes) >= self.most or sum(sizes) + more > self.most_bytes:
            raise CaseError("this server has no room for more cases: download this one as a file")

    def _put(self, place: Path, data: bytes) -> None:
        """Write beside, then give it its name."""
        handle, name = tempfile.mkstemp(dir=self.path, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, place)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def _changed(path: Path) -> float:
    return path.stat().st_mtime
