"""What sniffing saw of a checkpoint, and how loaders ask it for tensors and numbers.

Every refusal says what was found and what was expected. It does not know any format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae.files import FLOATS, is_finite

LISTED = 12
"""How many keys a message lists at most."""
MOST = 1 << 53
"""The largest whole number of a configuration."""
LARGEST = torch.finfo(torch.float32).max
"""The largest number that a factor or threshold may be."""


@dataclass(frozen=True, eq=False)
class Found:
    """One checkpoint, read safely.

    path: as given; folder: that holds the weight file; weights: the weight file; tensors: its tensors, as
    stored (any type, strides honoured), on the CPU; config: what the JSON file beside it holds, {} if there
    is none; config_path: that file; record: the configuration inside the weight file, a plain dict, if it has
    one; record_class: the dotted name of its class, if it is no dict there; header: the JSON line in front of
    the weights, if there is one; metadata: of a safetensors file; extra: other entries beside the tensors in
    a pickle, as plain numbers, texts, lists and dicts.
    """

    path: Path
    folder: Path
    weights: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    config_path: Path | None = None
    record: dict[str, Any] | None = None
    record_class: str | None = None
    header: dict[str, Any] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Whether all these tensors are there."""
        return all(name in self.tensors for name in names)

    def listing(self) -> str:
        """The keys and shapes found, for messages."""
        shown = [f"{name} {list(tensor.shape)}" for name, tensor in list(self.tensors.items())[:LISTED]]
        more = len(self.tensors) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "") or "no tensors"


class Fitted(NamedTuple):
    """tensors: those asked for, float32; dims: what each letter of their shapes turned out to be."""

    tensors: dict[str, Tensor]
    dims: dict[str, int]


def need(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, str],
    dims: Mapping[str, int] | None = None,
    *,
    optional: Iterable[str] = (),
    ignored: Iterable[str] = (),
    infinite: Iterable[str] = (),
) -> Fitted:
    """The tensors that a format has, as finite float32 of the right shapes.

    shapes: the letters of each name's shape, as in {"W_enc": "d F", "b_enc": "F", "threshold": ""}; equal
    letters are equal sizes, "1" stands for itself; dims: sizes known beforehand; optional: names that may be
    missing; ignored: names that may be there and are not read; infinite: names whose values may be infinite.
    Raises SAEError for missing or further names, other kinds of numbers, shapes that do not fit together, and
    values that are not finite.
    """
    missing = [name for name in shapes if name not in tensors and name not in set(optional)]
    strange = [name for name in tensors if name not in shapes and name not in set(ignored)]
    if missing or strange:
        told = f"misses {', '.join(missing)}" if missing else f"has {', '.join(map(repr, strange[:LISTED]))}"
        found = ", ".join(list(tensors)[: 2 * LISTED]) or "nothing"
        raise SAEError(f"it {told}; found the tensors {found}; expected {', '.join(shapes)}")
    here = {name: tensors[name] for name in shapes if name in tensors}
    for name, tensor in here.items():
        if tensor.dtype not in FLOATS:
            raise SAEError(f"{name} holds {tensor.dtype}; expected floating point numbers")
        if not tensor.numel():
            raise SAEError(f"{name} has the shape {list(tensor.shape)}; expected values in it")
    sizes = dict(dims or {})
    for name in sorted(here, key=lambda name: len(shapes[name].split())):
        _bind(name, here[name], shapes[name].split(), sizes)
    ready = {name: tensor.to(torch.float32) for name, tensor in here.items()}
    check_finite(ready, infinite)
    return Fitted(ready, sizes)


def _bind(name: str, tensor: Tensor, letters: list[str], sizes: dict[str, int]) -> None:
    """Learn the sizes of a tensor's letters. Raises SAEError when they do not fit those known."""
    expected = [1 if letter == "1" else sizes.get(letter) for letter in letters]
    shape = list(tensor.shape)
    if not _fits(shape, expected):
        wanted = ", ".join(
            letter if size is None or letter == "1" else f"{letter} = {size}"
            for letter, size in zip(letters, expected, strict=True)
        )
        turned = " (is it transposed?)" if _fits(shape[::-1], expected) else ""
        raise SAEError(f"{name} has the shape {shape}; expected [{wanted}]{turned}")
    sizes.update({letter: size for letter, size in zip(letters, shape, strict=True) if letter != "1"})


def _fits(shape: list[int], expected: list[int | None]) -> bool:
    """Whether a shape has the sizes expected, of which some may not be known."""
    return len(shape) == len(expected) and all(
        size is None or size == given for size, given in zip(expected, shape, strict=True)
    )


def check_finite(tensors: Mapping[str, Tensor], infinite: Iterable[str] = ()) -> None:
    """Raise SAEError when a tensor holds NaN, or infinity where its name is not in `infinite`."""
    for name, tensor in tensors.items():
        if is_finite(tensor):
            continue
        wrong = tensor.isnan() if name in set(infinite) else ~torch.isfinite(tensor)
        bad = int(wrong.sum())
        if bad:
            what = "NaN" if name in set(infinite) else "not finite"
            raise SAEError(f"{name} has {bad} values that are {what}; expected finite numbers")


def whole(entries: Mapping[str, Any], key: str, least: int = 1, most: int | None = None) -> int:
    """A whole number of a configuration, least .. most. Raises SAEError for none, or another thing."""
    value = entries.get(key)
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 and not value.is_floating_point() else value
    limits = f"a whole number from {least}" + ("" if most is None else f" to {most}")
    most = MOST if most is None else most
    if key not in entries:
        raise SAEError(f"{key} is missing; expected {limits}")
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SAEError(f"{key} is {value!r:.80}; expected {limits}")
    return value


def told(entries: Mapping[str, Any], key: str, hints: Mapping[str, Any], hint: str, most: int) -> int:
    """A whole number of a configuration, 1 .. most, or of the hint that says it where the files do not.

    Raises SAEError when neither says it, when they differ, or when it is another thing.
    """
    written = entries.get(key)
    if written is None and hint not in hints:
        raise SAEError(f"the files do not say {key}; pass it as the hint {hint}")
    if isinstance(written, float) and written.is_integer():
        written = int(written)
    value = whole({key: hints[hint] if written is None else written}, key, most=most)
    if hints.get(hint, value) != value:
        raise SAEError(
            f"the files say {key} = {value}, the hint {hint} says {hints[hint]!r:.80}; expected one"
        )
    return value


def number(entries: Mapping[str, Any], key: str, *, positive: bool = False) -> float:
    """A finite number of a configuration, also of one in a tensor, as a float.

    positive: it must be above 0, else 0 or more. Raises SAEError for none, or another thing.
    """
    value = entries.get(key)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST
    if not fits or (positive and value == 0):
        found = f"is {value!r:.80}" if key in entries else "is missing"
        raise SAEError(f"{key} {found}; expected a number {'above 0' if positive else 'of 0 or more'}")
    return float(value)


def flag(entries: Mapping[str, Any], key: str, default: bool) -> bool:
    """A yes or no of a configuration. Raises SAEError for another thing."""
    value = entries.get(key, default)
    if not isinstance(value, bool):
        raise SAEError(f"{key} is {value!r:.80}; expected true or false")
    return value


def text(entries: Mapping[str, Any], key: str) -> str | None:
    """A text of a configuration, None if it is missing, empty or null. Raises SAEError for another thing."""
    value = entries.get(key)
    if value is not None and not isinstance(value, str):
        raise SAEError(f"{key} is {value!r:.80}; expected text")
    return value or None
