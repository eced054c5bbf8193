"""Publishing a folder all at once. Knows the file system and the completion mark, not what a store holds."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from explorer.errors import StoreError
from explorer.store.keepsakes import carry_notes, catch_up
from explorer.store.manifest import MANIFEST_NAME, read_manifest


def check_target(target: Path) -> None:
    """Refuse a target that a build must not replace: a file, or a folder of something else than a store."""
    if not target.exists():
        return
    if not target.is_dir():
        raise StoreError(f"{target} is a file; name a new folder for the store")
    if any(target.iterdir()) and not (target / MANIFEST_NAME).is_file():
        raise StoreError(f"{target} holds other files and is not a store; name a new or an empty folder")


@contextmanager
def atomic(target: str | Path) -> Iterator[Path]:
    """A folder to build in, which takes the place of `target` when the block ends well.

    The block must leave a manifest.json there, written last. After any failure, an interrupt included,
    the folder is removed and an earlier store at `target` is as it was. Readers that have the earlier
    store open go on reading it. What people wrote about the same SAE's neurons goes into the new store.
    """
    target = Path(target).absolute()
    check_target(target)
    token = uuid.uuid4().hex[:8]
    work = target.parent / f".{target.name}.building-{token}"
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"cannot make a folder in {target.parent}: {error.strerror or error}") from error
    try:
        yield work
        if not (work / MANIFEST_NAME).is_file():
            raise StoreError(f"the build of {target} ended without a {MANIFEST_NAME}")
        _swap(work, target, target.parent / f".{target.name}.replaced-{token}")
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _swap(work: Path, target: Path, aside: Path) -> None:
    """Put `work` in the place of `target`; on failure the earlier folder is put back."""
    check_target(target)
    try:
        if not target.exists():
            work.rename(target)
            return
        sae_id = read_manifest(work).sae_id
        carry_notes(target, work, sae_id)
        target.rename(aside)
        try:
            work.rename(target)
        except OSError:
            aside.rename(target)
            raise
    except OSError as error:
        raise StoreError(f"cannot put the new store at {target}: {error.strerror or error}") from error
    catch_up(aside, target, sae_id)
    shutil.rmtree(aside, ignore_errors=True)
