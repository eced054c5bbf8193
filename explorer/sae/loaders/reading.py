"""Reads any weight file safely and tells its parts apart: tensors, metadata, header, record, and the rest.

What is in a file is told by its first bytes, not its name. Nothing that a file names is imported or called:
safetensors and JSON hold no code, and what `torch.save` wrote goes through `explorer.sae.loaders.unpickle`.
It does not know any project's format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, device, dtype

from explorer.errors import SAEError
from explorer.sae.loaders.opcodes import looks_like
from explorer.sae.loaders.unpickle import Record, read_pickle

MAX_HEADER = 1 << 20
"""Longest JSON line in front of the weights, in bytes."""
MAX_CONFIG = 16 << 20
"""Largest configuration file, in bytes."""
HEAD = 64
"""How many bytes at the beginning of a file tell what it looks like."""
SAFE_NAMES = (".safetensors", ".st")
MAX_ENTRIES, MAX_DEPTH = 100_000, 4
"""Most settings in a pickle, and how deep they are read."""
NESTED = ("state_dict", "ae", "sae", "model", "model_state_dict", "weights")
"""Where a file keeps its tensors when not at the top."""
RECORDS = ("cfg", "config")
"""Where a file keeps its configuration."""
WRAPPERS = ("module.", "_orig_mod.")
"""What torch puts before every name of a model that was wrapped while it trained."""


class Contents(NamedTuple):
    """The parts of a weight file; see `Found`. record_class: the dotted name of the record's class."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    header: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    record_class: str | None = None
    extra: dict[str, Any] | None = None


def read_weights(path: Path, inert: frozenset[str] = frozenset()) -> Contents:
    """What a weight file holds: safetensors, what `torch.save` wrote, or that behind one line of JSON.

    inert: dotted names of configuration classes that become plain dicts. Raises UnsafeFileError for a pickle
    that asks for anything else, SAEError for a file that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise SAEError(f"there is no file at {path}; expected the weights of an SAE")
    try:
        with path.open("rb") as file:
            head = file.read(9)
            size = path.stat().st_size
            if path.suffix in SAFE_NAMES or _is_safetensors(head, size):
                return _safetensors(path)
            file.seek(0)
            line = file.readline(MAX_HEADER + 1) if head.startswith(b"{") else b""
    except OSError as error:
        raise SAEError(f"{path} cannot be read: {error.strerror or error}; expected a file") from error
    header = _header(path, line) if line else None
    return _parts(path, read_pickle(path, inert, offset=len(line)), header)


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises SAEError when it is none."""
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise SAEError(
                f"{path} has {path.stat().st_size:,} bytes; a configuration has at most {MAX_CONFIG:,}"
            )
        return _json(path, path.read_bytes(), "it")
    except OSError as error:
        raise SAEError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether the first nine bytes are the length of a header and its opening brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _safetensors(path: Path) -> Contents:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # it has no __iter__
        with path.open("rb") as file:
            _json(path, file.read(int.from_bytes(file.read(8), "little")), "its header")
    except OSError as error:
        raise SAEError(f"{path} cannot be read: {error.strerror or error}; expected a file") from error
    except SafetensorError as error:
        seen = "" if head[8:9] == b"{" else f": it looks like {looks_like(head)}"
        raise SAEError(
            f"{path} is not a whole safetensors file ({error}){seen}; expected a complete one: fetch it again"
        ) from error
    return Contents(_unwrapped(tensors), metadata)


def _header(path: Path, line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise SAEError(
            f"{path} begins like a line of JSON that does not end within {len(line):,} bytes; expected one "
            "line of JSON and then the weights"
        )
    return _json(path, line, "its first line")


def _json(path: Path, data: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SAEError(f"{path}: {what} is not JSON ({error}); expected a JSON object") from error
    if not isinstance(parsed, dict):
        raise SAEError(f"{path}: {what} holds a JSON {type(parsed).__name__}; expected an object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different, so that it says one thing. Raises ValueError for others."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.80} is there twice")
    return found


def _parts(path: Path, loaded: Any, header: dict[str, Any] | None) -> Contents:
    """Tell the parts of an unpickled object apart. Raises SAEError when it is no dictionary with tensors."""
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        kind = type(loaded).__name__ if not isinstance(loaded, dict) else "dict with other keys than texts"
        raise SAEError(f"{path} holds a {kind}; expected a dictionary of named tensors (a state_dict)")
    rest = dict(loaded)
    inner = [key for key in NESTED if _holds_tensors(rest.get(key))]
    inner += [key for key, value in rest.items() if _holds_tensors(value) and key not in (*inner, *RECORDS)]
    at_top = any(isinstance(value, Tensor) and value.ndim > 1 for value in rest.values())
    tensors = _take_tensors(rest if at_top or not inner else rest.pop(inner[0]))
    if not tensors:
        raise SAEError(
            f"{path} holds {', '.join(map(repr, list(loaded)[:12])) or 'nothing'}; expected tensors"
        )
    record = next((rest.pop(key) for key in RECORDS if isinstance(rest.get(key), dict | Record)), None)
    named = record.name if isinstance(record, Record) else None
    known = None if record is None else _plain(path, record.state if isinstance(record, Record) else record)
    return Contents(_unwrapped(tensors), {}, header, known, named, _plain(path, rest))


def _plain(path: Path, entries: dict[Any, Any]) -> dict[str, Any]:
    """Entries of a pickle as JSON has them: a tensor of one number is that number, what JSON lacks is text.

    Raises SAEError for more than MAX_ENTRIES, as an object that holds itself has.
    """
    left = MAX_ENTRIES

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise SAEError(f"{path} has more than {MAX_ENTRIES:,} settings; expected some dozens")
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            return value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, dict) and depth:
            return {str(plain(key, 0)): plain(inner, depth - 1) for key, inner in value.items()}
        if isinstance(value, list | tuple) and depth:
            return [plain(inner, depth - 1) for inner in value]
        return str(value) if isinstance(value, dtype | device) else f"<{type(value).__name__}>"

    return {str(plain(key, 0)): plain(value, MAX_DEPTH) for key, value in entries.items()}


def _holds_tensors(value: object) -> bool:
    """Whether it is a dictionary with tensors in it."""
    return isinstance(value, dict) and any(isinstance(inner, Tensor) for inner in value.values())


def _take_tensors(entries: dict[Any, Any]) -> dict[str, Tensor]:
    """Take the tensors out of a dictionary."""
    names = [key for key, value in entries.items() if isinstance(key, str) and isinstance(value, Tensor)]
    return {name: entries.pop(name).detach() for name in names}


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes that all names have from wrappers, in any order."""
    while tensors:
        wrapper = next((one for one in WRAPPERS if all(name.startswith(one) for name in tensors)), None)
        if wrapper is None:
            break
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
