"""Makes a store of the finished parts of a build: finds them, checks that they belong together, joins them.

The store's rows are the same whatever the number of the parts and their order. Knows work folders and
states; what the tables hold is the business of `finish`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from explorer.errors import ModelError, SAEError, SourceError, StoreError
from explorer.sae import SAE
from explorer.session import site_block
from explorer.store import Manifest, StoreWriter, atomic, check_target
from explorer.store.classes import ClassCounts
from explorer.store.manifest import Route
from explorer.store.pending import Pending
from explorer.store.writer import SkippedRow
from explorer.vlm.base import LVLM
from index import checkpoints
from index.checkpoints import Mapped, Saved
from index.finish import write_store
from index.leftovers import clear_leftovers
from index.stage.intervals import INTERVALS
from index.stage.state import StateShape, merge_states
from index.work import PINS_NAME, Pins, Work, locked, open_finished, work_folder

Arrays = Mapping[str, np.ndarray]


class Merged(NamedTuple):
    """What a store holds: its manifest, all pictures that could not be read, and how many neurons have each
    class."""

    manifest: Manifest
    skipped: list[SkippedRow]
    classes: ClassCounts


def merge(
    paths: Sequence[Path],
    out: Path,
    sae: SAE,
    lvlm: LVLM | None = None,
    words: Route | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Merged:
    """Merge parts into a store at `out`.

    paths: folders of parts, or folders that hold them. lvlm: where the words of neurons come from; without
    it the store has none until `label` adds them. words: how they are found; None for the way that suits the
    model. Raises StoreError when a part is missing, twice there, unfinished or of another build; SAEError or
    ModelError when these are not the ones of the build, or words are asked for without a model.
    """
    check_target(out)
    works = [open_finished(folder) for folder in find_parts(paths)]
    check_parts(works)
    with locked(work_folder(out, None)):
        clear_leftovers(out)
        return merge_works(works, out, sae, lvlm, words, tell)


def find_parts(paths: Sequence[Path]) -> list[Path]:
    """The folders of parts that the paths name or hold. Raises StoreError for a path with none."""
    found: list[Path] = []
    for path in paths:
        if (path / PINS_NAME).is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise StoreError(f"there is no folder {path}; name the folder of parts that --shard builds made")
        inside = sorted(each.parent for each in path.glob(f"*/{PINS_NAME}"))
        if not inside:
            raise StoreError(
                f"{path} holds no parts; build some: python -m index build --shard 1/8 --out {path}"
            )
        found += inside
    return list(dict.fromkeys(folder.absolute() for folder in found))


def check_parts(works: Sequence[Work]) -> None:
    """Raise StoreError unless these are all the parts of one build, each once and complete."""
    common = _common([work.pins for work in works])
    odd = [
        f"{work.folder} ({'; '.join(changed)})"
        for work in works
        if (changed := _numbered_like(common, work.pins).differences(work.pins))
    ]
    if odd:
        raise StoreError(
            f"not all parts are of one build; differently built (most parts -> this one): {', '.join(odd)}. "
            "Build those again with the arguments of the others, or leave them out"
        )
    counts = Counter(work.pins.shard for work in works)
    if twice := [work.folder for work in works if counts[work.pins.shard] > 1]:
        raise StoreError(
            f"a part is there more than once: {', '.join(map(str, twice))}; name only one of them"
        )
    if missing := [i for i in range(1, common.of + 1) if i not in counts]:
        shown = ", ".join(f"{i}/{common.of}" for i in missing[:8]) + (" ..." if len(missing) > 8 else "")
        raise StoreError(
            f"{len(missing)} of {common.of} parts are missing: {shown}; build them with --shard {missing[0]}/"
            f"{common.of}, or name their folders too"
        )
    if unfinished := [words for work in works if (words := _unfinished(work))]:
        raise StoreError(
            f"{len(unfinished)} parts are not finished: {', '.join(unfinished[:8])}; "
            "run their builds again, they go on where they stopped"
        )


def merge_works(
    works: Sequence[Work],
    out: Path,
    sae: SAE,
    lvlm: LVLM | None,
    words: Route | None,
    tell: Callable[[str], None],
) -> Merged:
    """Merge the parts of these work folders, which belong together and are complete, into a store."""
    works = sorted(works, key=lambda work: work.pins.shard)
    pins, facts = works[0].pins, works[0].facts
    _check_site(pins, sae, lvlm, words)
    tell(f"reading {len(works)} part{'s' * (len(works) > 1)}")
    mapped = [_load(work) for work in works]
    saved = [part.saved for part in mapped]
    skipped = sorted(row for part in saved for row in part.skipped)
    filled = [part for part in mapped if part.saved.shape is not None]
    if not filled:
        first = skipped[0].reason if skipped else "there are none"
        raise SourceError(f"none of the {pins.n_images} pictures could be read; the first: {first}")
    shape = _one_shape(works, saved)
    state = merge_states(shape, [part.saved.arrays for part in filled], partial(_read_ahead, filled))
    del mapped, saved, filled
    with atomic(out) as folder, StoreWriter(folder) as writer, ExitStack() as stack:
        files = {work.pins.shard - 1: work.pictures for work in works if work.pictures.is_file()}
        pendings = {part: stack.enter_context(Pending(path, new=False)) for part, path in files.items()}
        manifest = _manifest(pins, facts.description, state.n_images, len(skipped), shape)
        manifest, classes = write_store(
            writer, manifest, state, facts, pendings, skipped, sae, lvlm, words, tell
        )
    return Merged(manifest, skipped, classes)


def _common(pins: Sequence[Pins]) -> Pins:
    """What most parts were built from, as if it were the first part."""
    return Counter(replace(each, shard=1) for each in pins).most_common(1)[0][0]


def _numbered_like(common: Pins, pins: Pins) -> Pins:
    """The common pins, with the number of one part."""
    return replace(common, shard=pins.shard)


def _unfinished(work: Work) -> str | None:
    """How far a part is, in words, unless it is complete."""
    found = checkpoints.progress(work.folder)
    if found is not None and found[0] == found[1]:
        return None
    return f"{work.folder} ({f'{found[0]} of {found[1]} chunks' if found else 'nothing saved yet'})"


def _check_site(pins: Pins, sae: SAE, lvlm: LVLM | None, words: Route | None) -> None:
    """Raise SAEError or ModelError when the parts were built with other ones."""
    if sae.id != pins.sae_id:
        raise SAEError(
            f"the parts were built with the SAE {pins.sae_id[:12]}, this one is {sae.short_id}; "
            "name the SAE of the build with --sae"
        )
    if lvlm is None:
        if words not in (None, "none"):
            raise ModelError(f"the words by {words} come from the model; name that of the build with --model")
        return
    if lvlm.model_id != pins.model_id:
        raise ModelError(
            f"the parts were built with the model {pins.model_id}, this one is {lvlm.model_id}; "
            "name the model of the build with --model"
        )
    site_block(lvlm, sae)


def _load(work: Work) -> Mapped:
    """The finished state of a part, on the disk, unchecked. Raises StoreError when it is not whole."""
    found = checkpoints.load_mapped(work.folder)
    if found is None or not found.saved.complete:
        damage = f" ({'; '.join(found.saved.damaged)})" if found and found.saved.damaged else ""
        raise StoreError(
            f"{work.folder} is not finished{damage}; run its build again, it goes on where it is"
        )
    return found


def _read_ahead(mapped: Sequence[Mapped], parts: Sequence[Arrays]) -> Iterator[Arrays]:
    """The arrays of each part, read and checked while the part before it is joined."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(mapped[0].read)
        for i in range(len(parts)):
            arrays = coming.result()
            if i + 1 < len(parts):
                coming = pool.submit(mapped[i + 1].read)
            yield arrays


def _one_shape(works: Sequence[Work], saved: Sequence[Saved]) -> StateShape:
    """The shape that all parts with pictures share. Raises StoreError that names the odd one."""
    shapes = [(work, StateShape(**part.shape)) for work, part in zip(works, saved, strict=True) if part.shape]
    shape = shapes[0][1]
    for work, other in shapes:
        changed = [
            f"{item.name}: {getattr(shape, item.name)} -> {getattr(other, item.name)}"
            for item in fields(shape)
            if getattr(shape, item.name) != getattr(other, item.name)
        ]
        if changed:
            raise StoreError(
                f"{work.folder} has another grid than {shapes[0][0].folder} ({'; '.join(changed)}); "
                "a store needs one grid for all"
            )
    return shape


def _manifest(pins: Pins, source: str, n_images: int, n_skipped: int, shape: StateShape) -> Manifest:
    """The manifest, but for what only the finished tables tell."""
    return Manifest(
        model_id=pins.model_id,
        block=pins.block,
        sae_id=pins.sae_id,
        n_neurons=pins.n_neurons,
        n_images=n_images,
        n_skipped=n_skipped,
        rows=shape.rows,
        cols=shape.cols,
        score=shape.score,
        places=shape.places,
        source=source,
        image_list_hash=pins.list_hash,
        preprocessing=pins.preprocessing,
        fvu={},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        batch=pins.batch,
        include_cls=pins.include_cls,
        sample=pins.sample,
        n_parts=pins.of,
        interval_places=INTERVALS,
        monosemanticity_baseline=None,
        dtype=pins.dtype,
        words="none",
    )
