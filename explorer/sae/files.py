"""The explorer's own SAE file: tensors in safetensors and one JSON header in its metadata.

    W_enc [d, F]   b_enc [F]   W_dec [F, d]   b_dec [d]        metadata: {"sae": "<JSON object>"}

Version 2 may hold threshold [F] too, whose values may be +inf. It is written for SAEs that version 1 cannot
describe: a threshold for each neuron, a scaling of the inputs, or a rule that version 1 does not know.

Reads and writes; refuses what is missing, damaged or misshapen in plain words. It does not know
what the header's entries mean: that is `explorer.sae.model`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from explorer.errors import SAEError

FORMAT_VERSIONS = (1, 2)
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
MATRICES = ("W_enc", "W_dec")
THRESHOLD = "threshold"
HEADER_KEY = "sae"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Stored(NamedTuple):
    """What a file holds: its tensors in float32, and the header without its format version."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def write(
    path: Path, tensors: dict[str, Tensor], header: dict[str, Any], half: bool = False, version: int = 1
) -> None:
    """Write the file in one step: a reader sees the old file or the whole new one.

    half: store the two matrices as float16 (the others stay float32); version: of the format.
    Raises SAEError for a value that is not finite, also after the cast to float16.
    """
    check(path, {name: tensor for name, tensor in tensors.items() if name != THRESHOLD})
    ready = {}
    for name in tensors:
        dtype = torch.float16 if half and name in MATRICES else torch.float32
        ready[name] = tensors[name].detach().cpu().to(dtype).contiguous().clone()
    check_finite(path, {name: ready[name] for name in NAMES})
    metadata = {HEADER_KEY: json.dumps({"format_version": version, **header})}
    with replacing(path) as part:
        save_file(ready, part, metadata=metadata)


def read(path: Path) -> Stored:
    """Read a file that `write` wrote. Raises SAEError for anything else."""
    if not path.is_file():
        raise SAEError(f"there is no SAE file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # it has no __iter__
    except (SafetensorError, OSError) as error:
        raise SAEError(f"{path} is not a whole safetensors file ({error}); fetch it again") from error
    return stored(path, tensors, metadata)


def stored(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Stored:
    """What a file's tensors and metadata say. Raises SAEError for what `write` never wrote."""
    version, header = _header(path, metadata)
    thresholds = {THRESHOLD: tensors[THRESHOLD]} if version > 1 and THRESHOLD in tensors else {}
    four = {name: tensor for name, tensor in tensors.items() if name not in thresholds}
    check(path, four)
    four = {name: four[name].to(torch.float32) for name in NAMES}
    check_finite(path, four)
    return Stored(four | thresholds, header)


def check(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise SAEError unless the tensors have the right names, kinds and shapes."""
    if set(tensors) != set(NAMES):
        found = ", ".join(sorted(tensors)) or "nothing"
        raise SAEError(f"{path}: found the tensors {found}; expected {', '.join(NAMES)}")
    for name in NAMES:
        if tensors[name].dtype not in FLOATS:
            raise SAEError(f"{path}: {name} holds {tensors[name].dtype}; expected floating point numbers")
    for name in ("b_enc", "b_dec"):
        if tensors[name].ndim != 1 or not tensors[name].numel():
            raise SAEError(f"{path}: {name} has the shape {list(tensors[name].shape)}; expected [n]")
    neurons, width = tensors["b_enc"].numel(), tensors["b_dec"].numel()
    for name, expected in (("W_enc", [width, neurons]), ("W_dec", [neurons, width])):
        shape = list(tensors[name].shape)
        if shape != expected:
            turned = " (is it transposed?)" if shape[::-1] == expected else ""
            raise SAEError(
                f"{path}: {name} has the shape {shape}; expected {expected}{turned} "
                f"(b_dec has width {width}, b_enc has {neurons} neurons)"
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity. A finite sum shows that in a fraction of the time."""
    return bool(tensor.sum().isfinite()) or bool(torch.isfinite(tensor).all())


def check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise SAEError when a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if is_finite(tensor):
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise SAEError(
                f"{path}: {name} has {bad} values that are not finite ({tensor.dtype}); expected numbers"
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there at the end, or remove it after an error.

    Raises SAEError when it cannot be written.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        part.chmod(0o644)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise SAEError(f"cannot write {path}: {why}; what was there before is unchanged") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _header(path: Path, metadata: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The format version and the rest of the header."""
    if HEADER_KEY not in metadata:
        raise SAEError(f"{path}: the metadata has no entry {HEADER_KEY!r}; it is of another format")
    try:
        header = json.loads(metadata[HEADER_KEY])
    except (json.JSONDecodeError, RecursionError) as error:
        raise SAEError(f"{path}: the header is not JSON ({error})") from error
    version = header.pop("format_version", None) if isinstance(header, dict) else None
    if version not in FORMAT_VERSIONS or isinstance(version, bool | float):
        known = " and ".join(map(str, FORMAT_VERSIONS))
        raise SAEError(f"{path}: the format version is {version!r}; this program reads {known}")
    return version, header
