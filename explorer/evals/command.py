"""A frozen dataclass as a command line: one option per field, and a report as JSON.

The help of an option is the docstring that stands under its field. Knows argparse, the named errors
and JSON; nothing of what is measured.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import math
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from explorer.errors import ExplorerError
from explorer.vlm.loading import Choice, add_choice, chosen_fields
from explorer.vlm.loading.full import full_told

WRONG, STOPPED = 2, 130
"""Exit status after a user's mistake, and after Ctrl-C."""


def run_command(
    kind: type,
    measure: Callable[[Any], object],
    prog: str,
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Read a config from the command line, measure, print the report; the exit status for the shell.

    kind: the frozen dataclass of the config; where it has a field `out`, the report is written to that
    file too. measure: config -> report, of anything that `plain` understands. prog: how the command is
    called. argv: None for the process's own. An ExplorerError becomes one line and the status 2, Ctrl-C one
    line and the status 130.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, kind)
    try:
        config = made(kind, parser.parse_args(argv))
        out = getattr(config, "out", None)
        if out is not None:
            _check_place(out)
        with full_told():
            text = json.dumps(plain(measure(config)), indent=1, allow_nan=False)
    except ExplorerError as error:
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(f"{prog}: stopped", file=sys.stderr)
        return STOPPED
    print(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    return 0


def add_options(parser: argparse.ArgumentParser, kind: type, helps: Mapping[str, str] | None = None) -> None:
    """Declare one option for each field of a dataclass; the field's default is the option's.

    Types: int, float, str, Path, bool (--name and --no-name), Literal (choices), tuple[X, ...] (one or
    more words), tuple[X, Y] (so many words), and X | None for an X that may be left out. helps: by field,
    in the place of the fields' docstrings. The fields of a `Choice` are declared as for every command.
    Raises TypeError for a field of another type.
    """
    choice = _choice_fields(kind)
    if choice:
        add_choice(parser.add_argument_group("the model, its SAE and their store"))
    hints, told = get_type_hints(kind), {**field_docstrings(kind), **(helps or {})}
    for field in dataclasses.fields(kind):
        if field.name in choice:
            continue
        needed = field.default is dataclasses.MISSING
        settings = _settings(hints[field.name], field.name)
        words = told.get(field.name, "")
        if not needed and field.default not in (None, ()):
            words = f"{words} (default: {_shown(field.default)})".strip()
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            **settings,
            **({"required": True} if needed else {"default": field.default}),
            help=words.replace("%", "%%"),
        )


def made(kind: type, args: argparse.Namespace) -> Any:
    """The config that parsed arguments make. Raises what the config raises."""
    given, choice = vars(args), _choice_fields(kind)
    own = {name: value for name, value in given.items() if name not in choice}
    return kind(**own, **(chosen_fields(given) if choice else {}))


def _choice_fields(kind: type) -> frozenset[str]:
    """The names of the fields that a config has from `Choice`, none when it is no choice."""
    return frozenset(Choice.__dataclass_fields__) if issubclass(kind, Choice) else frozenset()


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstrings that stand under the fields of a class, each as one line; those of its bases too."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if named and said and isinstance(after.value.value, str):
                found[field.target.id] = " ".join(after.value.value.split())
    return found


def plain(value: object) -> object:
    """Anything that a report holds as JSON: records as objects, numbers that are not finite as null.

    Dataclasses, NamedTuples, mappings, sequences, numpy's arrays and numbers, and paths. Raises
    TypeError for anything else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence):
        return [plain(part) for part in value]
    raise TypeError(f"a report cannot hold {type(value).__name__}")


def _settings(hint: Any, name: str) -> dict[str, Any]:
    """What argparse is told of an option of a type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        others = [part for part in parts if part is not types.NoneType]
        if len(others) == 1:
            return _settings(others[0], name)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if origin is tuple and parts:
        count = "+" if parts[-1] is Ellipsis else len(parts)
        if len({part for part in parts if part is not Ellipsis}) == 1:
            inner = _settings(parts[0], name)
            return {**inner, "nargs": count, "action": _AsTuple}
    if origin is Literal:
        return {"choices": parts, "type": type(parts[0])}
    if hint in (int, float, str, Path):
        return {"type": hint, "metavar": {int: "N", float: "X", str: "TEXT", Path: "FILE"}[hint]}
    raise TypeError(f"field {name!r}: no option can be made of the type {hint!r}")


class _AsTuple(argparse.Action):
    """Keeps several words as a tuple, so that a config stays hashable."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        setattr(namespace, self.dest, tuple(values))


def _shown(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _check_place(out: Path) -> None:
    """Whether a report can be written there, asked before anything is measured."""
    if out.is_dir():
        raise ExplorerError(f"--out {out} is a folder; give a file")
    if not out.parent.is_dir():
        raise ExplorerError(f"--out {out}: there is no folder {out.parent}; make it first")
