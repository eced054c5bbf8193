"""Reads what `torch.save` wrote without letting the file run anything.

Two gates stand in a row. The pickle's opcodes are read first (nothing is built), and every global that they
name must be on the short list below or be a class that the caller wants as an inert record. Then torch's own
weights-only loader builds the values, with stand-ins for the few names that it does not know. The archive may
not be compressed, overlap itself, or hold tensors larger than what it stores. It knows no format of SAEs.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch
from torch import Tensor
from torch.serialization import add_safe_globals, get_safe_globals, safe_globals

from explorer.errors import SAEError, UnsafeFileError

MAX_FILE = 32 << 30
"""Largest file that is read, in bytes."""
MAX_PICKLE = 32 << 20
"""Largest pickle inside a file: names, shapes and settings, in bytes. The numbers lie outside it."""
MAX_OPCODES = 1_000_000
MAX_TUPLES = 20_000
"""Most tuples that a pickle may build: hashing deeper nesting than this ends the process."""
SHARED = 8
"""How many times over the tensors may use the stored bytes (a transposed view uses them twice)."""

PLAIN = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.nn.parameter.Parameter",
        "torch.Size",
        "torch.device",
        "builtins.set",
        "_codecs.encode",
    }
)
"""What any checkpoint may name, beside dtypes and storages. All of it is on torch's own list."""
TORCH_NAMES = re.compile(
    r"torch\.(?:(?:Float|Double|Half|BFloat16|Byte|Char|Short|Int|Long|Bool)Storage"
    r"|float(?:16|32|64)|bfloat16|u?int8|int(?:16|32|64)|bool|half|float|double|long|int|short)"
)
SECRET = 0x1950A86A20F9469CFC6C
"""The number that opens a file in torch's format before version 1.6."""
BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,  # also RecursionError and NotImplementedError
    ValueError,  # also UnicodeDecodeError
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    EOFError,
    OSError,
)
"""What the readers of torch, zipfile and pickletools are known to raise for a damaged file."""

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
            found = _globals(path, file, size, offset)
            _refuse_globals(path, found, inert)
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


def _globals(path: Path, file: BinaryIO, size: int, offset: int) -> set[str]:
    """Every global that the file's pickles name, in Python 3's spelling. Builds nothing."""
    file.seek(offset)
    head = file.read(1024)
    if head.startswith(b"PK\x03\x04"):
        return _named_in(io.BytesIO(_pickle_of_archive(path, file, size)))
    file.seek(offset)
    start = io.BytesIO(file.read(MAX_PICKLE))
    try:
        found = _named_in(start)
    except BROKEN:
        if head.startswith(b"\x80"):
            raise
        found = set()
    if not found and not head.startswith(b"\x80"):
        raise SAEError(f"{path} looks like {_looks_like(head)}; expected a file that torch.save wrote")
    if SECRET.to_bytes(10, "little") not in head[:32]:
        _refuse_globals(path, found, frozenset())
        raise SAEError(f"{path} is a plain Python pickle; expected a file that torch.save wrote")
    for _ in range(4):  # protocol, machine, the object, the keys of its storages
        found |= _named_in(start)
    return found


def _pickle_of_archive(path: Path, file: BinaryIO, size: int) -> bytes:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        claimed = sum(entry.file_size for entry in entries)
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or claimed > size:
            raise SAEError(
                f"{path} has {size:,} bytes and claims to unpack to {claimed:,}"
                f"{f' ({packed[0]} is compressed)' if packed else ''}; expected bytes that are stored once"
            )
        if any(name.endswith("constants.pkl") for name in names):
            raise UnsafeFileError(
                f"{path} is a TorchScript program; expected tensors: save its state_dict with torch.save"
            )
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise SAEError(
                f"{path} holds {', '.join(sorted(names)[:8]) or 'nothing'}; expected one data.pkl and tensors"
            )
        if pickles[0].file_size > MAX_PICKLE:
            raise SAEError(
                f"{path}: its pickle has {pickles[0].file_size:,} bytes; expected {MAX_PICKLE:,} at most"
            )
        return archive.read(pickles[0])


def _named_in(stream: BinaryIO) -> set[str]:
    """The globals that the next pickle of the stream names."""
    found: set[str] = set()
    words: list[str] = []
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        tuples += opcode.name.startswith("TUPLE")
        if count > MAX_OPCODES or tuples > MAX_TUPLES:
            raise ValueError(f"its pickle has more than {MAX_OPCODES:,} steps or {MAX_TUPLES:,} tuples")
        if opcode.name in ("GLOBAL", "INST"):
            found.add(_modern(*argument.split(" ", 1)))
        elif opcode.name == "STACK_GLOBAL":
            found.add(_modern(*words[-2:]) if len(words) > 1 else "an unnamed global")
        elif opcode.name.startswith("EXT"):
            found.add(f"copyreg extension {argument}")
        if isinstance(argument, str):
            words.append(argument)
    return found


def _modern(module: str, name: str) -> str:
    """The dotted name of a global, renamed as Python 3 does for files that Python 2 could read."""
    compat = pickle._compat_pickle  # type: ignore[attr-defined]
    if (module, name) in compat.NAME_MAPPING:
        module, name = compat.NAME_MAPPING[module, name]
    return f"{compat.IMPORT_MAPPING.get(module, module)}.{name}"


def _refuse_globals(path: Path, found: set[str], inert: frozenset[str]) -> None:
    allowed = PLAIN | STAND_INS.keys() | inert
    strange = sorted(name for name in found - allowed if not TORCH_NAMES.fullmatch(name))
    if strange:
        asked = ", ".join(strange[:4]) + (f" and {len(strange) - 4} more" if len(strange) > 4 else "")
        raise UnsafeFileError(
            f"{path} asks to import {asked}; expected ordinary tensors and plain values only, so nothing of "
            "it was loaded. Save the weights alone: torch.save(sae.state_dict(), 'sae.pt')"
        )


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


def _looks_like(head: bytes) -> str:
    """What a file's first bytes suggest, in words."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (the file itself was not fetched)"
    if head[8:9] == b"{":
        return "a safetensors file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive"
    if head.isascii() and b"\0" not in head:
        return f"text that begins {head[:40].decode()!r}"
    return f"something that begins with the bytes {head[:8].hex(' ')}"
