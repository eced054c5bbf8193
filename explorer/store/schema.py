"""Applies schema.sql to a database, migration by migration. Knows SQLite, nothing of images or neurons."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import NamedTuple

SCHEMA_FILE = Path(__file__).with_name("schema.sql")
_HEADING = re.compile(r"^-- migration (\d+): (.+)$", re.MULTILINE)


class Migration(NamedTuple):
    """One numbered step of the schema."""

    number: int
    title: str
    sql: str


def migrations() -> list[Migration]:
    """All steps of schema.sql, in order."""
    return steps_of(SCHEMA_FILE.read_text(encoding="utf-8"))


def steps_of(text: str) -> list[Migration]:
    """The steps of a file of SQL with such headings, in order."""
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return [
        Migration(int(heading[1]), heading[2], text[heading.end() : end])
        for heading, end in zip(headings, ends, strict=True)
    ]


LATEST = migrations()[-1].number


def version(connection: sqlite3.Connection) -> int:
    """The number of the last migration that the database has seen, 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the latest schema."""
    for step in migrations():
        if step.number > version(connection):
            connection.executescript(f"BEGIN;{step.sql}\nPRAGMA user_version = {step.number};COMMIT;")
