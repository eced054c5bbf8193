"""FORMAT.md is normative: its tables, columns, types, manifest fields and numbers are those of the code."""

from __future__ import annotations

import re
import sqlite3
import zlib
from dataclasses import fields
from pathlib import Path

import faiss
import numpy as np
import pytest
from store_maker import make_store, some_b_dec

import explorer.store
from explorer.records import FAVOURITES
from explorer.store import classes, histogram, lists, maps, notes, notes_file, sketch
from explorer.store.manifest import (
    FILE_NAMES,
    FORMAT,
    FVU_QUANTILES,
    MANIFEST_NAME,
    NOTES_NAME,
    ROUTES,
    UPGRADABLE,
    Manifest,
)
from explorer.store.rows import MEAN_PATCH
from explorer.store.schema import LATEST, migrate, migrations, version

TEXT = Path(explorer.store.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
STORE_TEXT, NOTES_TEXT = TEXT.split("\n# notes.sqlite\n")
TABLE_NAMES = (
    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
    " AND name NOT LIKE 'sqlite_%'"
)


def sections_of(text: str) -> dict[str, str]:
    """The sections of FORMAT.md whose heading is one word, by that word."""
    return dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def schema_columns(connection: sqlite3.Connection) -> dict[str, list[tuple[str, str]]]:
    """Name and type of each column of each table."""
    return {
        name: [(row[1], row[2] or "none") for row in connection.execute(f"PRAGMA table_info({name})")]
        for (name,) in connection.execute(TABLE_NAMES)
    }


def described_columns(text: str) -> dict[str, list[tuple[str, str]]]:
    """The same, as FORMAT.md tells it."""
    return {
        name: re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
        for name, section in sections_of(text).items()
        if "| column | type | meaning |" in section
    }


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    migrate(connection)
    return connection


def test_tables_columns_and_types_are_those_of_the_schema(database: sqlite3.Connection) -> None:
    assert described_columns(STORE_TEXT) == schema_columns(database)
    assert len(schema_columns(database)) == 14


def test_tables_of_notes_are_those_of_their_schema() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(notes_file.SCHEMA_FILE.read_text(encoding="utf-8"))
    assert described_columns(NOTES_TEXT) == schema_columns(connection)
    assert f"`user_version` {notes_file.NOTES_FORMAT}" in NOTES_TEXT
    assert [step.number for step in notes_file.migrations()] == [1, notes_file.NOTES_FORMAT]
    assert f"Files of version {notes_file.WITHOUT_LISTS} lack" in NOTES_TEXT
    assert f"its name, 1 to {lists.MAX_LIST_NAME} characters" in NOTES_TEXT
    assert f"at most {lists.MAX_LISTS}; `{FAVOURITES}` is the one behind the star" in NOTES_TEXT
    assert f"at most {notes.MAX_NAME} characters" in NOTES_TEXT
    assert f"at most {notes.MAX_NOTE} characters" in NOTES_TEXT


def test_every_column_has_a_meaning() -> None:
    rows = re.findall(r"^\| `.+$", TEXT, re.MULTILINE)
    assert len(rows) > 90 and all(len(row.strip("|").split(" | ")[-1]) > 5 for row in rows)


def test_every_table_is_strict(database: sqlite3.Connection) -> None:
    sql = "SELECT name, strict, type FROM pragma_table_list WHERE schema = 'main'"
    for name, strict, kind in database.execute(sql):
        assert strict or kind in ("virtual", "shadow") or name.startswith("sqlite_")


def test_manifest_fields_are_those_of_the_code() -> None:
    section = sections_of(STORE_TEXT)[MANIFEST_NAME]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(field.name for field in fields(Manifest))
    assert all(f'`"{quantile}"`' in section for quantile in FVU_QUANTILES)


def test_ways_to_find_words_are_those_of_the_code() -> None:
    sections = sections_of(STORE_TEXT)
    row = re.search(r"^\| `words` \| (.*) \|$", sections[MANIFEST_NAME], re.MULTILINE)
    assert row and [name for name in re.findall(r"`(\w+)`", row[1]) if name != "neuron_words"] == [*ROUTES]
    assert re.findall(r"^- `(\w+)`:", sections["neuron_words"], re.MULTILINE) == [*ROUTES]


def test_files_are_those_of_the_code() -> None:
    described = re.findall(r"^\| `(\S+\.\w+)` \|", TEXT, re.MULTILINE)
    assert sorted(described) == sorted([*FILE_NAMES, MANIFEST_NAME, NOTES_NAME])
    listed = re.search(r"^\| `files` \| (.*) \|$", TEXT, re.MULTILINE)
    assert listed and all(f"`{name}`" in listed[1] for name in FILE_NAMES)


def test_numbers_agree() -> None:
    assert f"# The store, format {FORMAT}\n" in TEXT
    assert f"`user_version` {LATEST}" in STORE_TEXT
    assert [step.number for step in migrations()] == [UPGRADABLE, FORMAT] and LATEST == FORMAT
    assert f"publishes a store of format {UPGRADABLE} in format {FORMAT}:" in STORE_TEXT
    for part in (
        f"One row, `{MEAN_PATCH}`:",
        f"Histogram:** {histogram.BINS} bins",
        f"2^{histogram.LOWEST_EXPONENT}, 1.5 x 2^{histogram.LOWEST_EXPONENT},",
        f"s = min(d, {sketch.SIDE})",
        f"seeding by {sketch.SEED},",
        f"highest activation / {maps.STEPS} ",
        f"`in_top` is {classes.ALWAYS_SHARE}",
        f"`fires` is below {classes.RARE_SHARE}",
        *(f"`{name}`" for name in classes.CLASSES),
    ):
        assert part in STORE_TEXT, part


def test_the_sketch_matrix_is_the_one_described() -> None:
    for width in (1, 5, 256):
        assert np.array_equal(sketch.matrix(width), np.eye(width, dtype=np.float32))
    raw = [int(word) for word in np.random.PCG64(0).random_raw(300 * 256 // 64)]
    bits = [word >> place & 1 for word in raw for place in range(64)]
    expected = np.where(np.array(bits).reshape(300, 256), 1 / 16, -1 / 16).astype(np.float32)
    assert np.array_equal(sketch.matrix(300), expected)
    assert raw[0] == 0xA30FEBCFD9C2825F  # NumPy's seeding has not changed


def test_patch_maps_are_packed_as_described() -> None:
    patches = np.array([[0.0, 1.0, 2.5, 10.0, 0.1, 9.99]], dtype=np.float32)
    steps, scales = maps.quantise(patches)
    assert scales.dtype == np.float32 and scales[0] == np.float32(10.0 / 255) and steps.max() == 255
    raw = zlib.decompress(maps.pack(steps[0]))
    assert len(raw) == 6
    np.testing.assert_allclose([byte * scales[0] for byte in raw], patches[0], atol=10 / 509)


def test_histograms_are_packed_as_described() -> None:
    counts = np.arange(64) * 10**15
    raw = zlib.decompress(histogram.pack(counts))
    assert [int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(64)] == counts.tolist()
    lower = [base * 2.0**power for power in range(-16, 16) for base in (1.0, 1.5)]
    assert histogram.edges().tolist() == [*lower, 2.0**16]


def test_centroids_are_the_index_described(tmp_path: Path) -> None:
    index = faiss.read_index(str(make_store(tmp_path / "s") / "centroids.faiss"))
    assert isinstance(index, faiss.IndexPreTransform) and index.chain.size() == 2
    linear, unit = (faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(2))
    assert isinstance(linear, faiss.LinearTransform) and isinstance(unit, faiss.NormalizationTransform)
    assert isinstance(faiss.downcast_index(index.index), faiss.IndexFlatIP) and unit.norm == 2
    b_dec, width = some_b_dec(), len(some_b_dec())
    assert np.array_equal(faiss.vector_to_array(linear.A).reshape(width, width), sketch.matrix(width).T)
    np.testing.assert_allclose(faiss.vector_to_array(linear.b), -b_dec @ sketch.matrix(width))


def test_migrating_twice_changes_nothing(database: sqlite3.Connection) -> None:
    assert version(database) == LATEST
    before = list(database.execute("SELECT sql FROM sqlite_schema"))
    migrate(database)
    assert list(database.execute("SELECT sql FROM sqlite_schema")) == before
