"""Lists what a tar file holds, and reads single members by their place. Knows tar; nothing of pictures."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from explorer.errors import SourceError

_BLOCK = 512
_OCTAL = re.compile(rb"[0-7]+").fullmatch
_PACKED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))


class Member(NamedTuple):
    """A file within a tar: its name, and where its bytes lie in the tar."""

    name: str
    offset: int
    size: int


class _Header(tarfile.TarInfo):
    """Takes from the usual headers only name, size and kind, which halves the time of listing."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        """Read one header; all but whole headers of the usual kinds are left to Python's reader."""
        kind, size, told = buf[156:157], buf[124:136].strip(b" \0"), buf[148:156].strip(b" \0")
        if len(buf) != _BLOCK or kind not in (b"0", b"x") or not (_OCTAL(size) and _OCTAL(told)):
            return super().frombuf(buf, encoding, errors)
        if int(told, 8) != sum(buf) - sum(buf[148:156]) + 8 * ord(" "):
            return super().frombuf(buf, encoding, errors)
        parts = [buf[345:500], buf[:100]] if buf[257:263] == b"ustar\0" else [buf[:100]]
        names = [part.partition(b"\0")[0].decode(encoding, errors) for part in parts]
        found = cls("/".join(name for name in names if name))
        found.type, found.size = kind, int(size, 8)
        return found


def members_of(path: Path) -> Iterator[Member]:
    """The files of a tar, in its order; only headers are read.

    Raises SourceError for a tar that is missing, packed, damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_BLOCK)
            for magic, packing in _PACKED:
                if start.startswith(magic):
                    raise SourceError(
                        f"the shard {path} is packed with {packing}, so its pictures cannot be reached one "
                        "by one; unpack it to a plain .tar"
                    )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
                while (found := tar.next()) is not None:
                    tar.members = []  # or all headers stay in memory
                    if found.isreg() and not found.issparse():
                        yield Member(found.name, found.offset_data, found.size)
                _check_end(path, tar.offset)
    except tarfile.TarError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise SourceError(f"cannot read the shard {path}: {error.strerror or error}") from error


def _check_end(path: Path, offset: int) -> None:
    """A whole tar ends with a block of zeros; Python's reader would take any other end for the end, too."""
    with path.open("rb") as file:
        file.seek(offset)
        end = file.read(_BLOCK)
    if not end:
        raise _damaged(path, "it has no end mark")
    if len(end) < _BLOCK or any(end):
        raise _damaged(path, f"byte {offset:,} begins no file")


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(f"the shard {path} is damaged or cut short ({reason}); fetch or write it again")


class TarReader:
    """Reads parts of files by place; keeps a few files open, each process its own."""

    _most_open = 16

    def __init__(self) -> None:
        self._process, self._open = os.getpid(), {}

    def __reduce__(self) -> tuple[type[TarReader], tuple[()]]:
        return TarReader, ()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Some bytes of a file. Raises SourceError when it is gone or shorter than it was."""
        try:
            data = os.pread(self._handle(path), size, offset)
        except OSError as error:
            raise SourceError(
                f"the shard {path} cannot be read any more: {error.strerror}; bring it back and run the same "
                "command again"
            ) from error
        if len(data) != size:
            raise SourceError(
                f"the shard {path} has become shorter since it was listed; run the command again"
            )
        return data

    def _handle(self, path: str) -> int:
        """The open file, the one used longest ago makes room for it."""
        if self._process != os.getpid():
            self._process, self._open = os.getpid(), {}
        handle = self._open.pop(path, None)
        if handle is None:
            if len(self._open) >= self._most_open:
                os.close(self._open.pop(next(iter(self._open))))
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open[path] = handle
        return handle

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        if self._process == os.getpid():
            for handle in self._open.values():
                os.close(handle)
        self._open = {}

    def __del__(self) -> None:
        self.close()
