"""What a file of `torch.save` names and claims, told from its opcodes and its directory. Nothing is built.

Every global that its pickle names must be on a short list, and its archive may not be compressed, overlap
itself, or hold anything but one pickle and numbers. It does not know what the names stand for.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from explorer.errors import SAEError, UnsafeFileError

MAX_PICKLE = 32 << 20
"""Largest pickle inside a file: names, shapes and settings, in bytes. The numbers lie outside it."""
MAX_OPCODES = 1_000_000
MAX_TUPLES = 20_000
"""Most tuples that a pickle may build: hashing deeper nesting than this ends the process."""
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


def globals_of(path: Path, file: BinaryIO, size: int, offset: int, allowed: frozenset[str]) -> set[str]:
    """Every global that the file's pickles name, in Python 3's spelling.

    file: open, with `size` bytes from `offset` on; allowed: names that may stand there beside those of any
    checkpoint. Raises UnsafeFileError when others do, SAEError for a file of another kind, and one of BROKEN
    for a damaged one.
    """
    found = _globals(path, file, size, offset)
    _refuse(path, found, allowed)
    return found


def _globals(path: Path, file: BinaryIO, size: int, offset: int) -> set[str]:
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
        raise SAEError(f"{path} looks like {looks_like(head)}; expected a file that torch.save wrote")
    if SECRET.to_bytes(10, "little") not in head[:32]:
        _refuse(path, found, frozenset())
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


def _refuse(path: Path, found: set[str], allowed: frozenset[str]) -> None:
    strange = sorted(name for name in found - PLAIN - allowed if not TORCH_NAMES.fullmatch(name))
    if strange:
        asked = ", ".join(strange[:4]) + (f" and {len(strange) - 4} more" if len(strange) > 4 else "")
        raise UnsafeFileError(
            f"{path} asks to import {asked}; expected ordinary tensors and plain values only, so nothing of "
            "it was loaded. Save the weights alone: torch.save(sae.state_dict(), 'sae.pt')"
        )


def looks_like(head: bytes) -> str:
    """What a file's first bytes (some 40 of them) suggest, in words."""
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
