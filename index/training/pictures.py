"""The pictures of a training, by number, and those that are kept out of it to measure on.

Knows sources; nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from explorer.errors import SAEError, SourceError
from explorer.store.writer import SkippedRow
from explorer.world import draw
from index.sources.base import Source

HELD_OUT_SEED = 900_000
"""Scenes to measure on begin here: below the first seed that anything is trained on."""


class Pictures(Protocol):
    """Pictures by number, from 0 to len - 1. Small when forked."""

    description: str

    def __len__(self) -> int: ...

    def name(self, number: int) -> tuple[str, str]:
        """The id of a picture, and where it comes from."""

    def list_hash(self) -> str:
        """The sha256 of the source that these are chosen from, in hex; "" where the words say it all."""

    def image(self, number: int) -> Image.Image:
        """The picture, upright RGB. Raises ImageError when it cannot be read."""


class Material(NamedTuple):
    """Pictures to train on, and others to measure on."""

    train: Pictures
    held_out: Pictures


class ChosenPictures:
    """Some pictures of a source. numbers [n] int64: which ones, in the source's own count."""

    def __init__(self, source: Source, numbers: np.ndarray, words: str) -> None:
        self._source, self._numbers = source, numbers
        self.description = f"{len(numbers)} {words}: {source.description}"

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, number: int) -> tuple[str, str]:
        """As the source says."""
        place = int(self._numbers[number])
        return self._source.image_id(place), self._source.origin(place)

    def list_hash(self) -> str:
        """That of the whole source."""
        return self._source.list_hash()

    def image(self, number: int) -> Image.Image:
        """Read it."""
        return self._source.read(int(self._numbers[number])).image


class ScenePictures:
    """Drawn scenes of consecutive seeds; a share of them, evenly spread, is counterfactual."""

    def __init__(self, scenes: int, first_seed: int, counterfactual: float = 0.0) -> None:
        if scenes < 1 or first_seed < 0 or not 0 <= counterfactual <= 1:
            raise SourceError(
                f"cannot draw {scenes} scenes from seed {first_seed} with a share of {counterfactual} "
                "counterfactual ones"
            )
        self._scenes, self._first, self._share = scenes, first_seed, counterfactual
        last = first_seed + scenes - 1
        self.description = f"drawn scenes, seeds {first_seed} to {last}, {counterfactual:.0%} counterfactual"

    def __len__(self) -> int:
        return self._scenes

    def name(self, number: int) -> tuple[str, str]:
        """scene:<family>:<seed>, twice."""
        name = f"scene:{self._family(number)}:{self._first + number}"
        return name, name

    def list_hash(self) -> str:
        """Nothing: the description says which they are."""
        return ""

    def image(self, number: int) -> Image.Image:
        """Draw the scene."""
        return draw(self._first + number, self._family(number)).image

    def _family(self, number: int) -> str:
        odd = int((number + 1) * self._share) > int(number * self._share)
        return "counterfactual" if odd else "ordinary"


def split(source: Source, held_out: int) -> Material:
    """A source in two: `held_out` pictures, evenly spread over it, to measure on, the others to train on.

    Raises SAEError when none would be left to train on, or none is wanted to measure on.
    """
    if held_out < 1:
        raise SAEError(f"--held-out {held_out}: some pictures are needed to measure on")
    if held_out >= len(source):
        raise SAEError(
            f"{len(source)} pictures are too few to keep {held_out} for measuring; use a smaller --held-out "
            f"({source.description})"
        )
    apart = (2 * np.arange(held_out, dtype=np.int64) + 1) * len(source) // (2 * held_out)
    rest = np.setdiff1d(np.arange(len(source), dtype=np.int64), apart, assume_unique=True)
    return Material(
        ChosenPictures(source, rest, "pictures"), ChosenPictures(source, apart, "pictures kept apart")
    )


def split_scenes(scenes: int, first_seed: int, counterfactual: float, held_out: int) -> Material:
    """Scenes to train on, and others far from them to measure on. Raises SAEError where they would meet."""
    if held_out < 1:
        raise SAEError(f"--held-out {held_out}: some pictures are needed to measure on")
    if first_seed + scenes > HELD_OUT_SEED and first_seed < HELD_OUT_SEED + held_out:
        raise SAEError(
            f"the scenes from seed {first_seed} to {first_seed + scenes - 1} include those kept for "
            f"measuring ({HELD_OUT_SEED} to {HELD_OUT_SEED + held_out - 1}); choose another --seed"
        )
    return Material(
        ScenePictures(scenes, first_seed, counterfactual),
        ScenePictures(held_out, HELD_OUT_SEED, counterfactual),
    )


class Order:
    """An endless order of `count` pictures, each once in every round, shuffled anew for each.

    Of several processes, `rank` of `size` takes every size-th place.
    """

    def __init__(self, count: int, seed: int, rank: int = 0, size: int = 1) -> None:
        self._count, self._seed, self._rank, self._size = count, seed, rank, size
        self._round = lru_cache(maxsize=2)(self._shuffled)

    def numbers(self, places: range) -> list[int]:
        """The pictures at some places of this process's part of the order."""
        everywhere = (self._rank + self._size * place for place in places)
        return [int(self._round(at // self._count)[at % self._count]) for at in everywhere]

    def _shuffled(self, turn: int) -> np.ndarray:
        return np.random.default_rng((self._seed, turn)).permutation(self._count)


class SkippedFile:
    """Pictures that could not be used, a line of JSON each, so that a resumed run still knows of them.

    Processes that share the file append to it; a picture that is met again is told once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[str] = set()

    def clear(self) -> None:
        """Forget those of an earlier run."""
        self._path.unlink(missing_ok=True)

    def add(self, rows: Sequence[SkippedRow]) -> None:
        """Note some more. Raises SAEError when the file cannot be written."""
        new = [row for row in rows if row.image_id not in self._known]
        if not new:
            return
        self._known.update(row.image_id for row in new)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row._asdict()) + "\n" for row in new)
        except OSError as error:
            raise SAEError(f"cannot write {self._path}: {error.strerror or error}") from error

    def rows(self) -> list[SkippedRow]:
        """All of them, each once, in the order of their ids."""
        found = {row.image_id: row for row in self._read()}
        return [found[image_id] for image_id in sorted(found)]

    def _read(self) -> Iterator[SkippedRow]:
        if not self._path.is_file():
            return
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                yield SkippedRow(**json.loads(line))
            except (ValueError, TypeError):
                continue  # a line that a killed process did not finish
