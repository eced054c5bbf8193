"""How large a store is: bytes of its files, rows and bytes of its tables. Knows SQLite."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from explorer.store.database import Database
from explorer.store.manifest import DATABASE_NAME


class TableSize(NamedTuple):
    """One table of index.sqlite: how many rows, and bytes with its indices."""

    table: str
    rows: int
    bytes: int


def table_sizes(folder: Path) -> list[TableSize]:
    """The tables of the store in `folder`, the largest first; a search index counts as one."""
    with closing(Database(folder / DATABASE_NAME)) as database:
        owners = dict(database.ask("SELECT name, tbl_name FROM sqlite_master"))
        found: dict[str, int] = {}
        for name, size in database.ask("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"):
            owner = owners.get(name, name)
            owner = "texts" if owner.startswith("texts_") else owner
            found[owner] = found.get(owner, 0) + size
        known = [name for name in found if not name.startswith("sqlite_")]
        rows = {name: database.ask(f"SELECT count(*) FROM {name}")[0][0] for name in known}
    sizes = (TableSize(name, rows[name], found[name]) for name in known)
    return sorted(sizes, key=lambda size: (-size.bytes, size.table))
