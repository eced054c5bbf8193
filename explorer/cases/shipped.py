"""The cases that ship: stories told with the examples' pictures, files in assets/cases.

An example's title and story are those of its case; the case adds what to look for, what to try, and a
bench that does it.
"""

from __future__ import annotations

from pathlib import Path

from explorer.cases.case import ENDING, Case, read
from explorer.cases.examples import EXAMPLES_FILE, example_keys
from explorer.errors import CaseError, ImageError

FOLDER = EXAMPLES_FILE.parents[1] / "cases"


def load_shipped(folder: Path = FOLDER) -> dict[str, Case]:
    """The shipped cases by key, in the order of the examples. Raises CaseError for a damaged one."""
    found, order = {}, example_keys()
    places = {path.name.removesuffix(ENDING): path for path in sorted(folder.glob(f"*{ENDING}"))}
    for key in sorted(places, key=lambda key: order.index(key) if key in order else len(order)):
        path = places[key]
        try:
            found[key] = read(path.read_bytes())
        except (OSError, CaseError, ImageError) as error:
            raise CaseError(f"cannot read the case {path.name}: {error}") from error
    return found
