"""The folder in which a build over many processes keeps its parts until they are merged.

Knows where it is, how many parts an earlier run made, and how to throw them away; nothing of who builds them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from explorer.errors import StoreError
from index.work import locked

_PARTS = "part-*-of-*"


def parts_folder(out: Path) -> Path:
    """Where the parts of a store are built: hidden beside it."""
    return out.absolute().parent / f".{out.absolute().name}.parts"


def earlier_parts(folder: Path, wanted: int | None) -> int | None:
    """How many parts an earlier run divided the build into, None when there was none.

    wanted: how many there are to be, None for any number. Raises StoreError when there are others.
    """
    found = {int(path.name.rpartition("-")[2]) for path in folder.glob(_PARTS)}
    if not found:
        return None
    if len(found) > 1 or wanted not in (None, *found):
        made = " and ".join(str(number) for number in sorted(found))
        raise StoreError(
            f"{folder} holds an unfinished build in {made} parts; leave --parts out to go on with it, or "
            "throw it away with --restart"
        )
    return found.pop()


def remove_parts(folder: Path) -> None:
    """Throw all parts away. Raises StoreError when one is being built, or cannot be removed."""
    for part in sorted(folder.glob(_PARTS)):
        with locked(part):
            try:
                shutil.rmtree(part)
            except OSError as error:
                raise StoreError(f"cannot remove {part}: {error.strerror or error}") from error
