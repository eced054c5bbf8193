"""How a model is opened, and which: the records that go from every command line down to the loading.

`Loading` is what opening a model needs, `Choice` adds which model, SAE and store; `add_choice` declares the
arguments of both, the same for all commands. Imports nothing heavy, so that --help is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from explorer.errors import ModelError, SAEError

Dtype = Literal["float32", "bfloat16", "float16"]
Quantized = Literal["8bit", "4bit"]
Tell = Callable[[str], None]
"""Hears a line about what is being done."""

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
DEVICES = "auto, cpu, cuda, cuda:1 or mps"


def silent(words: str) -> None:
    """Hears a line and keeps it."""


def say(words: str) -> None:
    """Says a line on the standard error stream."""
    print(words, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Loading:
    """How a model is opened. Raises ModelError for what cannot be.

    device: "cpu", "cuda", "cuda:1", "mps"; "auto" is cuda where there is one, else cpu.
    dtype: of the weights; None for float32 on the CPU and the checkpoint's own elsewhere.
    quantize: the language model's matrices in 8 or 4 bits, by bitsandbytes; the vision side stays as it is.
    device_map: "auto" spreads the language model over all cards; the vision side stays on the first.
    revision: branch, tag or commit of a hub name.
    trust_remote_code: whether Python code that comes with a model may be run.
    try_anyway: open it even when it does not seem to fit into the memory.
    max_pixels: of a picture, for models that read pictures in their own size; None for the model's own limit.
    """

    device: str = "cpu"
    dtype: Dtype | None = None
    quantize: Quantized | None = None
    device_map: Literal["auto"] | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    try_anyway: bool = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not DEVICE.fullmatch(self.device):
            raise ModelError(f"unknown device {self.device!r}; use {DEVICES}")
        for name, known in (("dtype", get_args(Dtype)), ("quantize", get_args(Quantized))):
            if getattr(self, name) not in (None, *known):
                raise ModelError(f"unknown {name} {getattr(self, name)!r}; use {', '.join(known)}")
        if self.device_map not in (None, "auto"):
            raise ModelError(f"unknown device_map {self.device_map!r}; use 'auto' or leave it out")
        if self.device_map and self.device not in ("auto", "cuda"):
            raise ModelError(
                f"device_map 'auto' is for all CUDA cards: the device is 'cuda', not {self.device!r}"
            )

    @property
    def loading(self) -> Loading:
        """This record's part about the model alone."""
        names = [one.name for one in dataclasses.fields(Loading)]
        return Loading(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Choice(Loading):
    """Which model, SAE and store a command works on, and how they are opened. None: the embedded ones.

    model: folder or hub name, also "owner/name@revision"; sae: file, folder or hub name; sae_hint: what its
    file does not say, "KEY=VALUE" each; sae_revision: as `revision`, of the SAE; block: of the vision tower,
    where the SAE does not say which one it reads, or says it wrongly; store: a folder.
    Raises ModelError or SAEError for what cannot be.
    """

    device: str = "auto"
    model: str | Path | None = None
    sae: str | Path | None = None
    sae_hint: tuple[str, ...] = ()
    sae_revision: str | None = None
    block: int | None = None
    store: str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hints  # noqa: B018

    @property
    def embedded(self) -> bool:
        """Whether the embedded model and SAE are meant."""
        return self.model is None and self.sae is None

    @property
    def hints(self) -> dict[str, object]:
        """The hints as `load_sae` takes them: a value is a number, true or false where it looks like one."""
        found: dict[str, object] = {}
        for hint in self.sae_hint:
            key, equals, value = hint.partition("=")
            if not (key.strip() and equals and value):
                raise SAEError(f"the hint {hint!r} is none; use KEY=VALUE, such as top_k=20")
            try:
                read = json.loads(value)
            except ValueError:
                read = value
            found[key.strip()] = read if isinstance(read, bool | int | float) else value
        return found

    def words(self) -> str:
        """The arguments that would choose the same, without the store; "" when nothing was chosen."""
        parts = []
        for one in _ARGUMENTS:
            value = getattr(self, one.name)
            if one.name == "store" or value == Choice.__dataclass_fields__[one.name].default:
                continue
            if one.name == "device" and value == Loading.device:
                continue
            values = value if isinstance(value, tuple) else [value]
            parts += [one.flag] if value is True else [f"{one.flag} {shlex.quote(str(v))}" for v in values]
        return " ".join(parts)


@dataclass(frozen=True)
class _Argument:
    """One argument of the commands. part: what it belongs to, as `add_choice` may leave that out."""

    name: str
    part: str
    help: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        """As it is written on a command line."""
        return f"--{self.name.replace('_', '-')}"


def device(text: str) -> str:
    """The argument --device."""
    if not DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; use {DEVICES}")
    return text


def hint(text: str) -> str:
    """The argument --sae-hint."""
    key, equals, value = text.partition("=")
    if not (key.strip() and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is no hint; use KEY=VALUE, such as top_k=20")
    return text


def natural(text: str) -> int:
    """An argument that is a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


_ARGUMENTS = (
    _Argument(
        "model",
        "model",
        "folder or hub name of an LVLM, also as NAME@REVISION (default: the embedded one)",
        {"metavar": "NAME"},
    ),
    _Argument("revision", "model", "branch, tag or commit of --model on the hub", {"metavar": "REVISION"}),
    _Argument(
        "device",
        "model",
        "auto, cpu, cuda, cuda:1 or mps (default: auto, which is cuda where there is one, else cpu)",
        {"type": device, "metavar": "DEVICE"},
    ),
    _Argument(
        "dtype",
        "model",
        "of the model's weights (default: float32 on the CPU, the checkpoint's own elsewhere)",
        {"choices": get_args(Dtype)},
    ),
    _Argument(
        "quantize",
        "model",
        "the language model in 8 or 4 bits, which takes a half or a quarter of the memory; the vision tower "
        "stays as it is; needs bitsandbytes",
        {"choices": get_args(Quantized)},
    ),
    _Argument(
        "device_map",
        "model",
        "auto: spread the language model over all CUDA cards, for a model larger than one",
        {"choices": ("auto",)},
    ),
    _Argument(
        "trust_remote_code",
        "model",
        "run Python code that comes with the model: it may do whatever you may, so read it first",
        {"action": "store_true"},
    ),
    _Argument(
        "try_anyway",
        "model",
        "open the model even when it does not seem to fit into the memory",
        {"action": "store_true"},
    ),
    _Argument(
        "max_pixels",
        "model",
        "scale larger pictures down to about so many pixels, for models that read pictures in their own size "
        "(Qwen; default: the model's own limit)",
        {"type": natural, "metavar": "N"},
    ),
    _Argument(
        "sae", "sae", "file, folder or hub name of an SAE (default: the embedded one)", {"metavar": "NAME"}
    ),
    _Argument(
        "sae_hint",
        "hint",
        "what the SAE's files do not say, such as top_k=20; repeatable",
        {"type": hint, "action": "append", "metavar": "KEY=VALUE"},
    ),
    _Argument("sae_revision", "sae", "branch, tag or commit of --sae on the hub", {"metavar": "REVISION"}),
    _Argument(
        "block",
        "sae",
        "block of the vision tower that the SAE reads, counted from 0 (default: the one that the SAE names, "
        "else the one that the language model reads)",
        {"type": natural, "metavar": "B"},
    ),
    _Argument("store", "store", "folder of a store (default: stores/embedded)", {"metavar": "STORE"}),
)


def add_choice(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    parts: tuple[str, ...] = ("model", "sae", "hint", "store"),
) -> None:
    """Declare the arguments that choose model, SAE and store, or only some of these parts.

    "hint" is what an SAE's file does not say.
    """
    for one in _ARGUMENTS:
        if one.part in parts:
            parser.add_argument(one.flag, help=one.help, default=_default(one.name), **one.settings)


def _default(name: str) -> object:
    """What argparse is told: lists may grow, so an empty tuple is None."""
    value = Choice.__dataclass_fields__[name].default
    return None if value == () else value


def choice_of(args: argparse.Namespace | Mapping[str, Any]) -> Choice:
    """The choice that parsed arguments make; what was not declared is left at its default."""
    given = args if isinstance(args, Mapping) else vars(args)
    return Choice(**chosen_fields(given))


def chosen_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Choice among parsed arguments, as the record takes them."""
    found = {name: given[name] for name in Choice.__dataclass_fields__ if given.get(name) is not None}
    return {name: tuple(value) if name == "sae_hint" else value for name, value in found.items()}
