"""What a training leaves beside its checkpoint: what it was begun with, its figures, the pictures it skipped.

    state.pt   state.json   state.metrics.jsonl   state.skipped.jsonl

Knows files; nothing of SAEs or pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.errors import SAEError
from explorer.sae.files import replacing
from index.training.pictures import SkippedFile


class Record:
    """The files of one run. main: whether this process writes those that it alone may write."""

    def __init__(self, checkpoint: Path, main: bool = True) -> None:
        self.checkpoint, self._main = checkpoint, main
        self._note = checkpoint.with_suffix(".json")
        self.metrics = checkpoint.with_suffix(".metrics.jsonl")
        self.skipped = SkippedFile(checkpoint.with_suffix(".skipped.jsonl"))

    def begin(self, facts: dict[str, Any]) -> None:
        """Begin anew: note what the run is made of; what an earlier run left here goes.

        Raises SAEError when nothing can be written here.
        """
        if not self._main:
            return
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.checkpoint, self.metrics, *self._leftovers()):
                path.unlink(missing_ok=True)
            self.skipped.clear()
            self._write(self._note, json.dumps(facts))
        except (OSError, SAEError) as error:
            why = getattr(error, "strerror", None) or error
            raise SAEError(f"cannot write {self._note}: {why}; choose another --checkpoint") from error

    def resume(self, facts: dict[str, Any]) -> bool:
        """Whether there is a checkpoint to go on from; a run that died before its first has none.

        Raises SAEError when there was no run here, or one of other facts.
        """
        if not self._note.is_file():
            raise SAEError(f"there is no run to resume: {self._note} is missing")
        try:
            before = json.loads(self._note.read_text())
            changed = {name: before.get(name) for name in facts if before.get(name) != facts[name]}
        except (OSError, ValueError, AttributeError) as error:
            raise SAEError(
                f"cannot resume: {self._note} is damaged ({error}); start again without --resume"
            ) from error
        for name, value in changed.items():
            raise SAEError(f"the run at {self.checkpoint} had {name} = {value}, not {facts[name]}")
        if self._main:
            for path in self._leftovers():
                path.unlink(missing_ok=True)
        return self.checkpoint.is_file()

    def finished(self) -> bool:
        """Whether the run came to its end."""
        if not self.metrics.is_file():
            return False
        return any('"final": true' in line for line in self.metrics.read_text().splitlines())

    def keep_until(self, steps: int) -> None:
        """Drop the figures of steps beyond those that are done: they will be measured again."""
        if not self._main or not self.metrics.is_file():
            return
        kept = [line for line in self.metrics.read_text().splitlines() if _step_of(line) <= steps]
        self._write(self.metrics, "".join(f"{line}\n" for line in kept))

    def has(self, steps: int) -> bool:
        """Whether figures were measured after so many steps."""
        if not self.metrics.is_file():
            return False
        return any(_step_of(line) == steps for line in self.metrics.read_text().splitlines())

    def log(self, figures: dict[str, Any]) -> None:
        """Add a line of figures, with their "step". Raises SAEError when it cannot be written."""
        if not self._main:
            return
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as error:
            raise SAEError(f"cannot write {self.metrics}: {error.strerror or error}") from error

    def _leftovers(self) -> list[Path]:
        """What a killed process was writing."""
        mine = (self.checkpoint, self._note, self.metrics)
        return [left for path in mine for left in path.parent.glob(f".{path.name}.*")]

    def _write(self, path: Path, text: str) -> None:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a line of figures; infinity for one that was not finished."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
