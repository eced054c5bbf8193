"""What killed builds leave beside a store: half-written copies, and an earlier store that was moved aside.

Knows the names that publishing uses; whoever calls it holds the lock of the store's work folder.
"""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from explorer.errors import StoreError


def clear_leftovers(out: Path) -> None:
    """Remove them; an earlier store whose place is empty is put back. Raises StoreError if that fails."""
    out = out.absolute()
    beside = f"{glob.escape(str(out.parent))}/.{glob.escape(out.name)}"
    try:
        for aside in sorted(Path(path) for path in glob.glob(f"{beside}.replaced-*")):
            if out.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(out)
        for half in glob.glob(f"{beside}.building-*"):
            shutil.rmtree(half)
    except OSError as error:
        raise StoreError(
            f"cannot clear what an earlier build left beside {out}: {error.strerror or error}"
        ) from error
