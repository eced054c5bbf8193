"""Reads what `torch.save` wrote without letting the file run anything.

Two gates stand in a row. `explorer.sae.loaders.opcodes` reads what the pickle names and claims (nothing is
built): only a short list, and classes that the caller wants as inert records, pass. Then torch's own
weights-only loader builds the values, with stand-ins for the few names that it does not know. It knows no
format of SAEs.
"""

from __future__ import annotations

import io
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch
from torch import Tensor
from torch.serialization import add_safe_globals, get_safe_globals, safe_globals

from explorer.errors import SAEError
from explorer.sae.loaders.opcodes import BROKEN, globals_of

MAX_FILE = 32 << 30
"""Largest file that is read, in bytes."""
SHARED = 8
"""How many times over the tensors may use the stored bytes (a transposed view uses them twice)."""

_one_at_a_time = threading.Lock()


class Record:
    """What stands in for an object of a class that is never imported.

    name: the dotted name of the class; args: what it would have been called with (an enum's value);
    state: its attributes.
    """

    name = ""

    def __new__(cls, *args: object) -> Record:
        record = super().__new__(cls)
        record.args, record.state = args, {}
        return record

    def __init__(self, *args: object) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        for part in parts:
            if part is not None:
                self.state.update({str(key): value for key, value in dict(part).items()})

    def __repr__(self) -> str:
        return f"<inert {self.name} {self.state or self.args}>"


class _NumpyType:
    """Stands in for numpy.dtype: the code of a number's type and its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not re.fullmatch(r"[fiu][1248]|b1", str(code)):
            raise ValueError(f"numpy.dtype {code!r} is not a plain number's type")
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"numpy.dtype has the byte order {state[1]!r}")
        self.order = str(state[1])


def _numpy_scalar(kind: _NumpyType, data: bytes) -> float | int | bool:
    """The Python number that a pickled numpy scalar holds."""
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        raise ValueError("a numpy scalar is not made of a type and bytes")
    (value,) = numpy.frombuffer(data, numpy.dtype(kind.order + kind.code))
    return value.item()


def _path(*parts: str) -> str:
    """The path that a pickled pathlib object holds, as text."""
    return str(Path(*parts))


STAND_INS: dict[str, Callable[..., Any]] = {
    **{f"{module}.scalar": _numpy_scalar for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    "numpy.dtype": _NumpyType,
    **{
        f"{module}.{kind}": _path
        for module in ("pathlib", "pathlib._local")
        for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    },
}
"""What is built in place of the classes that settings commonly hold."""


def read_pickle(path: Path | str, inert: frozenset[str] = frozenset(), offset: int = 0) -> Any:
    """The object in a file that `torch.save` wrote (zip archive, or the format before torch 1.6).

    inert: dotted names of classes whose objects become a `Record`; offset: where in the file it starts, for
    projects that put a header of their own before it. Tensors come on the CPU. Raises UnsafeFileError when
    the file names anything but tensors, plain values and these classes; SAEError when it cannot be read, is
    damaged or too large, or holds tensors that claim more than it stores.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise SAEError(f"{path} cannot be read: {error.strerror or error}; expected a file") from error
    with file:
        try:
            size = file.seek(0, io.SEEK_END) - offset
            if size > MAX_FILE:
                raise SAEError(f"{path} has {size:,} bytes; expected {MAX_FILE:,} at most")
            found = globals_of(path, file, size, offset, inert | STAND_INS.keys())
            file.seek(offset)
            return _checked(path, _load(file, found, inert), size)
        except BROKEN as error:
            raise SAEError(
                f"{path} is not a whole file of torch.save ({_reason(error)}); expected a complete one: "
                f"fetch it again"
            ) from error


def _load(file: BinaryIO, found: set[str], inert: frozenset[str]) -> Any:
    named = {name: _stand_in(name) for name in inert & found} | {
        name: STAND_INS[name] for name in STAND_INS.keys() & found
    }
    with _one_at_a_time, _known(named):
        return torch.load(file, map_location="cpu", weights_only=True)


def _reason(error: BaseException) -> str:
    """The first line of what a reader said, without torch's advice to trust the file."""
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
    text = re.split(r"In PyTorch 2|Please (?:use|file)", str(inner or error))[0].strip()
    return text.splitlines()[0][:200] if text else type(inner or error).__name__


def _stand_in(name: str) -> type[Record]:
    return type("Record", (Record,), {"name": name})


@contextmanager
def _known(named: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Let torch's loader know the stand-ins, and forget real classes of the same name meanwhile."""
    real = [entry for entry in get_safe_globals() if _dotted(entry) in named]
    with safe_globals(real):
        pass  # leaving it takes them off the list
    try:
        with safe_globals([(stand_in, name) for name, stand_in in named.items()]):
            yield
    finally:
        add_safe_globals(real)


def _dotted(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def _checked(path: Path, loaded: Any, size: int) -> Any:
    """The loaded object, once each tensor in it is known to be stored in full."""
    waiting, seen, claimed = [loaded], set(), 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            stored, needed = value.untyped_storage().nbytes(), value.numel() * value.element_size()
            claimed += needed
            if needed > stored or claimed > SHARED * size:
                raise SAEError(
                    f"{path}: a tensor of the shape {list(value.shape)} claims {needed:,} bytes, {stored:,} "
                    f"are stored; expected the whole tensor (so far {claimed:,} of a file of {size:,})"
                )
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, Record):
            waiting += [value.args, value.state]
    return loaded
