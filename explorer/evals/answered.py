"""Answers that a measurement has already got, so that a killed run goes on where it was.

One JSON line per answer, after a first line with what all of them depend on. Knows keys and texts;
nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from explorer.errors import ExplorerError

Key = tuple[str | int, ...]


class Answers:
    """Answers by key, in memory and, when a path is given, in a file that outlives the process."""

    def __init__(self, path: Path | None, facts: Mapping[str, object]) -> None:
        """path: JSONL file, made when missing, None for memory alone; facts: what all answers depend on.

        Raises ExplorerError when the file holds something else, or answers under other facts.
        """
        self._known: dict[Key, str] = {}
        self._file: IO[str] | None = None
        if path is None:
            return
        first = json.dumps({"facts": dict(facts)}, sort_keys=True)
        kept = _whole_lines(path)
        if kept and kept[0] != first:
            raise ExplorerError(
                f"{path} holds other answers (of another model, SAE, block, store or length); "
                "remove it or give another --out"
            )
        for number, line in enumerate(kept[1:], start=2):
            try:
                row = json.loads(line)
                self._known[tuple(row["key"])] = row["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise ExplorerError(f"line {number} of {path} is no answer; remove the file") from error
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if not kept:
            self._file.write(first + "\n")

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: Key) -> str | None:
        """The answer to a key, None when it is not known yet."""
        return self._known.get(key)

    def keep(self, key: Key, answer: str) -> None:
        """Remember an answer."""
        if self._file is not None:
            self._file.write(json.dumps({"key": key, "answer": answer}) + "\n")
        self._known[key] = answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _whole_lines(path: Path) -> list[str]:
    """The complete lines of a file; a last one that was cut off is removed from it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    try:
        return data[:end].decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ExplorerError(f"{path} is no text; give another --out") from error
