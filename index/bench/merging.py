"""The merge of many parts: seconds of its steps, memory, and what the store weighs.

The parts are made up (see `made_parts`) in processes of their own and are not counted. Knows the merge;
nothing of how it works.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from explorer.store.manifest import FILE_NAMES
from explorer.store.sizes import TableSize, table_sizes
from index.bench.made_parts import Size, made_sae, make_part
from index.bench.stage import memory
from index.merge import merge


class Step(NamedTuple):
    """A part of the merge, as it tells of itself, and its seconds."""

    what: str
    seconds: float


class Merging(NamedTuple):
    """What was measured.

    making: seconds to make the parts; part_bytes: of all of them; steps, seconds: of the merge; processor:
    seconds of all cores that it used; load: processes that wanted a core, this one included, over the last
    minute; memory: most GiB that it held, mapped files included; files: bytes by name; tables: of
    index.sqlite; images: of all parts; thumbnails: images that the store shows.
    """

    making: float
    part_bytes: int
    steps: list[Step]
    seconds: float
    processor: float
    load: float
    memory: float
    files: dict[str, int]
    tables: list[TableSize]
    images: int
    thumbnails: int


def run(
    size: Size, folder: Path | None = None, workers: int = 2, tell: Callable[[str], None] = lambda words: None
) -> Merging:
    """Make parts, merge them to `store`, measure, and remove the parts.

    folder: a new or empty one to work in, which is kept with the store in it; a temporary one by default, of
    which nothing is left. workers: processes that make parts, 0 for this one.
    """
    home = Path(mkdtemp(prefix="merge-bench-")) if folder is None else folder
    try:
        return _run(size, home, workers, tell)
    finally:
        shutil.rmtree(home / "parts" if folder else home, ignore_errors=True)


def _run(size: Size, home: Path, workers: int, tell: Callable[[str], None]) -> Merging:
    parts, out = home / "parts", home / "store"
    tell(f"making {size.parts} parts of {size.images:,} images")
    started = time.perf_counter()
    sae = made_sae(size.neurons, size.width)
    _make(size, parts, sae.id, workers)
    making = time.perf_counter() - started
    weight = sum(path.stat().st_size for path in parts.rglob("*") if path.is_file())
    begun = time.perf_counter()
    told = [("checking parts", begun)]

    def hear(words: str) -> None:
        tell(words)
        told.append((words, time.perf_counter()))

    processor = time.process_time()
    merge([parts], out, sae, tell=hear)
    ended, processor = time.perf_counter(), time.process_time() - processor
    ends = [moment for _, moment in told[1:]] + [ended]
    steps = [Step(words, end - begin) for (words, begin), end in zip(told, ends, strict=True)]
    tables = table_sizes(out)
    return Merging(
        making,
        weight,
        steps,
        ended - begun,
        processor,
        os.getloadavg()[0],
        memory(),
        {name: (out / name).stat().st_size for name in FILE_NAMES},
        tables,
        size.total,
        next((table.rows for table in tables if table.table == "images"), 0),
    )


def _make(size: Size, folder: Path, sae_id: str, workers: int) -> None:
    """Make all parts."""
    one = partial(make_part, size, folder=folder, sae_id=sae_id)
    numbers = range(1, size.parts + 1)
    if not workers:
        for index in numbers:
            one(index)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(one, numbers):
            pass
