"""FORMAT.md is normative: its tables, columns, types and manifest fields are those of the code."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import fields
from pathlib import Path

import pytest

import explorer.store
from explorer.store.manifest import FORMAT, FVU_QUANTILES, Manifest
from explorer.store.schema import LATEST, migrate, migrations, version

TEXT = Path(explorer.store.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    migrate(connection)
    return connection


def test_tables_are_those_of_the_schema(database: sqlite3.Connection) -> None:
    found = database.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    assert {row[0] for row in found} == set(SECTIONS) - {"manifest.json"}


@pytest.mark.parametrize("table", ["images", "exemplars", "neurons", "concepts", "probes", "skipped"])
def test_columns_and_types_are_those_of_the_schema(database: sqlite3.Connection, table: str) -> None:
    described = re.findall(r"^\| `(\w+)` \| (\w+) \|", SECTIONS[table], re.MULTILINE)
    actual = [(row[1], row[2]) for row in database.execute(f"PRAGMA table_info({table})")]
    assert described == actual


def test_every_table_is_strict(database: sqlite3.Connection) -> None:
    for name, strict in database.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'"):
        assert strict or name.startswith("sqlite_")


def test_manifest_fields_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", SECTIONS["manifest.json"], re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(field.name for field in fields(Manifest))
    assert all(f'`"{quantile}"`' in TEXT for quantile in FVU_QUANTILES)


def test_numbers_agree() -> None:
    assert f"# The store, format {FORMAT}\n" in TEXT
    assert f"`user_version` {LATEST}" in TEXT
    assert [step.number for step in migrations()] == list(range(1, LATEST + 1))


def test_migrating_twice_changes_nothing(database: sqlite3.Connection) -> None:
    assert version(database) == LATEST
    before = list(database.execute("SELECT sql FROM sqlite_schema"))
    migrate(database)
    assert list(database.execute("SELECT sql FROM sqlite_schema")) == before
