"""Full memory in plain words: which errors say so, how much was wanted, what to do. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from explorer.errors import ModelError

ADVICE = (
    "open the model with --quantize 8bit or 4bit, in --dtype bfloat16, over several cards with --device-map "
    "auto, or on another --device; or take a smaller model"
)
SAYS = re.compile(r"out of memory|DefaultCPUAllocator|not enough memory|can't allocate memory", re.IGNORECASE)
"""How torch says that there is no memory, apart from its own kind of error."""
WANTED = (
    re.compile(r"[Tt]ried to allocate (?P<number>[\d.]+) ?(?P<unit>bytes|[KMGT]i?B)\b"),
    re.compile(r"you tried to allocate (?P<number>\d+) (?P<unit>bytes)"),
    re.compile(r"[Uu]nable to allocate (?P<number>[\d.]+) (?P<unit>bytes|[KMGT]i?B)\b"),
)
CARD = re.compile(
    r"GPU (?P<card>\d+) has a total capacity of (?P<total>[\d.]+ [KMGT]iB) of which (?P<free>[\d.]+ [KMGT]iB)"
)
UNITS = {"bytes": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def gib(size: float) -> str:
    """A number of bytes, for people: "13.1 GiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 20 else f"{size / 2**20:,.0f} MiB"


def is_full(error: BaseException) -> bool:
    """Whether the error says that a memory is full: of this machine, or of an accelerator."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"OutOfMemoryError", "MemoryError"}:
        return True
    return isinstance(error, RuntimeError) and bool(SAYS.search(str(error)))


def full_words(error: BaseException) -> str:
    """What an error that `is_full` means: where, how much more was asked for, how much is free."""
    text = str(error)
    card = CARD.search(text)
    where = (
        f"of cuda:{card['card']}" if card else "of the accelerator" if "CUDA" in text else "of this machine"
    )
    said = f"the memory {where} is full"
    for pattern in WANTED:
        if found := pattern.search(text):
            unit = found["unit"]
            size = float(found["number"]) * 2 ** UNITS[unit if unit == "bytes" else unit[0]]
            said += f": {gib(size)} more were needed"
            break
    return said + (f", {card['free']} of {card['total']} are free" if card else "")


@contextmanager
def full_told(
    doing: str = "", advice: str = ADVICE, relief: Callable[[], None] | None = None
) -> Iterator[None]:
    """In its `with`, an error of full memory becomes a ModelError with figures and advice.

    doing: what it happened at, such as "while 'NAME' was opened"; relief: called first, to drop what can be
    had again.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        if relief is not None:
            relief()
        raise ModelError(f"{full_words(error)}{f' {doing}' if doing else ''}; {advice}") from error
