"""`verify` finds what differs from FORMAT.md, and names all of it at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from store_maker import (
    N_NEURONS,
    WIDTH,
    fill,
    make_store,
    some_b_dec,
    some_centroids,
    some_directions,
    some_manifest,
)

from explorer.errors import StoreError
from explorer.store import Store, StoreWriter, atomic
from explorer.store.histogram import pack as pack_histogram
from explorer.store.manifest import facts_of
from explorer.store.maps import pack
from explorer.store.vectors import unit_rows, write_centroids, write_directions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_store(tmp_path / "s")


def hash_again(folder: Path) -> None:
    """Make the manifest's hashes those of the files as they are now."""
    path = folder / "manifest.json"
    text = json.loads(path.read_text())
    text["files"] = {name: facts_of(folder / name)._asdict() for name in text["files"]}
    path.write_text(json.dumps(text))


def found_by(folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Store.open(folder).verify()
    return str(caught.value)


def test_a_good_store_passes(folder: Path, tmp_path: Path) -> None:
    Store.open(folder).verify()
    Store.open(make_store(tmp_path / "bare", truth=False)).verify()


RULES = [
    ("DELETE FROM exemplars WHERE neuron = 4 AND rank = 1", "ranks in exemplars have gaps for neuron 4"),
    ("DELETE FROM neuron_labels WHERE rank = 0", "ranks in neuron_labels have gaps for neuron 3"),
    (
        "DELETE FROM neuron_words WHERE neuron = 2 AND rank = 0",
        "ranks in neuron_words have gaps for",
    ),
    ("UPDATE partners SET rank = rank + 2", "ranks in partners have gaps for neuron 3"),
    ("DELETE FROM concepts WHERE rank = 1", "ranks in concepts have gaps for concept wine_glass"),
    (
        "UPDATE exemplars SET score = 20 WHERE neuron = 4 AND rank = 2",
        "scores in exemplars are not desc",
    ),
    ("UPDATE neuron_words SET gain = 9 WHERE word = 'stripe'", "gains in neuron_words are not desc"),
    (
        "UPDATE concepts SET score = 9 WHERE rank = 2",
        "scores in concepts are not descending",
    ),
    ("UPDATE exemplars SET score = 0 WHERE rank = 3", "scores in exemplars are not above 0 for neuron 4, 5"),
    (
        "UPDATE interval_exemplars SET score = -1 WHERE neuron = 2",
        "in interval_exemplars are not above",
    ),
    ("UPDATE exemplars SET image = 0 WHERE neuron = 3", "an image is twice among the exemplars of neuron 3"),
    ("UPDATE interval_exemplars SET image = 1 WHERE neuron = 3", "exemplar and in an interval of neuron 3"),
    (
        "UPDATE interval_exemplars SET interval = 3 WHERE interval = 2",
        "interval 3 of neuron 1 holds a",
    ),
    ("UPDATE neurons SET peak = 7 WHERE neuron = 2", "not have the peak as its score for neuron 2"),
    ("DELETE FROM interval_exemplars WHERE image = 5", "no neuron has the image 5"),
    ("DELETE FROM images WHERE image = 2", "rows of exemplars point at rows of images that do not exist"),
    ("UPDATE images SET image = 9 WHERE image = 5", "not numbered without gaps; the highest is 9"),
    ("UPDATE images SET grid_rows = 3, grid_cols = 2 WHERE image = 3", "the grid is not 2 x 3 for image 3"),
    ("UPDATE partners SET partner = 3 WHERE rank = 1", "a neuron is its own partner: 3"),
    ("UPDATE partners SET partner = 77 WHERE rank = 1", "1 rows of partners point at rows of neurons"),
    ("DELETE FROM label_images WHERE label = 'café'", "a label has no count of images: café"),
    ("DELETE FROM neurons WHERE neuron = 5", "neurons has 5 rows, the manifest says 6"),
    ("UPDATE neurons SET neuron = 8 WHERE neuron = 5", "neurons are numbered 0 to 8, not 0 to 5"),
    ("DELETE FROM skipped", "skipped has 0 rows, the manifest says 1"),
    ("UPDATE interval_exemplars SET interval = 12 WHERE interval = 4", "interval 12, the manifest says 10"),
    ("UPDATE exemplars SET rank = 16 WHERE rank = 0", "exemplars has rank 16, the manifest says 16 places"),
    ("UPDATE neurons SET class = 'rare' WHERE neuron = 1", "neuron 1 is rare, its shares say always_on"),
    ("UPDATE neurons SET fires = 0.5 WHERE neuron = 2", "neuron 2 fires in 0.5 of the images, its histogram"),
    ("UPDATE neurons SET score_histogram = x'00'", "neuron 0: a histogram of this store is damaged"),
    ("UPDATE neurons SET active_histogram = :empty", "neuron 1 fires in 0.0333333 of the patches, its"),
    (
        "UPDATE exemplars SET patch_map = x'00' WHERE neuron = 2",
        "exemplars of neuron 2: a patch map",
    ),
    ("UPDATE interval_exemplars SET patch_map = :short", "has 5 patches, not 2 x 3"),
    (
        "UPDATE probes SET weight = x'00000000'",
        "have different widths: 1, 5",
    ),
    (
        "UPDATE neurons SET entropy = 0.5 WHERE neuron = 2",
        "neuron 2 has the label entropy 0.5, its exemplars say 0",
    ),
    (
        "UPDATE neurons SET entropy = NULL WHERE neuron = 4",
        "neuron 4 has the label entropy None, its exemplars",
    ),
    (
        "UPDATE neurons SET entropy = 0 WHERE neuron = 1",
        "neuron 1 has the label entropy 0.0, its exemplars say nan",
    ),
    ("UPDATE positions SET x = -1.5 WHERE neuron = 3", "a position is not within -1 to 1 for neuron 3"),
    ("UPDATE positions SET y = 9e999 WHERE neuron = 3", "a position is not within -1 to 1 for neuron 3"),
    (
        "DELETE FROM positions WHERE neuron = 3",
        "a direction without a position, or a position without one: 3",
    ),
    ("UPDATE positions SET neuron = 5 WHERE neuron = 3", "or a position without one: 3, 5"),
    ("UPDATE site SET vector = x'000000'", "have different widths: 0.75, 5"),
    ("UPDATE site SET name = 'mean'", "site has a row 'mean' that this format does not know"),
    ("UPDATE site SET vector = :wild", "the mean patch has values that are not finite numbers"),
]


@pytest.mark.parametrize(("sql", "words"), RULES, ids=range(len(RULES)))
def test_every_broken_rule_is_named(folder: Path, sql: str, words: str) -> None:
    values = {"empty": pack_histogram(np.zeros(64)), "short": pack(np.ones(5))}
    values["wild"] = np.array([0, 1, np.inf, 2, 3], dtype="<f4").tobytes()
    with closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
        db.execute(sql, values)
    hash_again(folder)
    said = found_by(folder)
    assert words in said and "changed after the build" not in said
    assert f"python -m index build --images FOLDER --out {folder}" in said


def test_words_that_nobody_asked_for_are_found(tmp_path: Path) -> None:
    make_store(tmp_path / "s", words="none")
    assert "neuron_words has 3 rows, the manifest says that nothing was asked" in found_by(tmp_path / "s")


def test_all_problems_are_told_together_but_not_endlessly(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
        db.execute("UPDATE neurons SET class = 'rare'")
        db.execute("UPDATE exemplars SET patch_map = x'00'")
        db.execute("DELETE FROM skipped")
    said = found_by(folder)
    for part in ("index.sqlite changed", "skipped has 0 rows", "neuron 0 is rare", "exemplars of neuron 1"):
        assert part in said
    assert said.count("a patch map of this store is damaged") == 10


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["index.sqlite", "directions.faiss", "centroids.faiss"])
def test_every_flipped_byte_is_found(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    for place in np.random.default_rng(3).integers(0, len(whole), 25).tolist():
        flip(path, place)
        with pytest.raises(StoreError, match=name):
            Store.open(folder).verify()
        path.write_bytes(whole)


@pytest.mark.parametrize("place", [4, 12, 32, 36, 40, 41, 186, 190, 194, 195, 220, 240])
def test_damaged_headers_of_vectors_are_not_fatal(folder: Path, place: int) -> None:
    for name in ("directions.faiss", "centroids.faiss"):
        path = folder / name
        whole = path.read_bytes()
        flip(path, min(place, len(whole) - 1))
        with pytest.raises(StoreError, match=name.replace(".", r"\.")):
            store = Store.open(folder)
            store.similar(2, 3), store.by_patch(np.ones(WIDTH, dtype=np.float32), 3)
            store.verify()
        path.write_bytes(whole)


def test_a_broken_page_with_a_right_hash_is_found(folder: Path) -> None:
    path = folder / "index.sqlite"
    path.write_bytes(path.read_bytes()[:-8192] + b"\x00" * 8192)
    hash_again(folder)
    assert "index.sqlite" in found_by(folder)


def test_a_file_that_vanished_is_named(folder: Path) -> None:
    store = Store.open(folder)
    (folder / "centroids.faiss").unlink()
    with pytest.raises(StoreError, match=r"centroids\.faiss cannot be read \(No such file"):
        store.verify()


def dead_with_centroid(folder: Path) -> None:
    rows = some_centroids()
    rows[0] = 1
    write_centroids(folder / "centroids.faiss", rows, some_b_dec())


def wrong_width(folder: Path) -> None:
    write_directions(folder / "directions.faiss", np.ones((N_NEURONS, WIDTH + 1), dtype=np.float32))


def wrong_length(folder: Path) -> None:
    path = folder / "directions.faiss"
    row = unit_rows(some_directions())[2]
    data = path.read_bytes()
    assert data.count(row.tobytes()) == 1
    path.write_bytes(data.replace(row.tobytes(), (2 * row).tobytes()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dead_with_centroid, "a neuron without exemplars has a centroid: 0"),
        (wrong_width, "directions, centroids, probes and the mean patch have different widths: 5, 6"),
        (wrong_length, "directions are not of length 1 for neuron 2"),
    ],
)
def test_vectors_are_checked(folder: Path, change: Callable[[Path], None], words: str) -> None:
    change(folder)
    hash_again(folder)
    assert words in found_by(folder)


def test_wrong_counts_of_vectors_are_refused_at_once(tmp_path: Path) -> None:
    with atomic(tmp_path / "s") as work, StoreWriter(work) as writer:
        fill(writer)
        writer.add_centroids(some_centroids()[:4], some_b_dec())
        writer.finish(some_manifest())
    with pytest.raises(StoreError, match=r"centroids\.faiss of the store .* has 4 rows for 6 neurons"):
        Store.open(tmp_path / "s")


def test_one_kind_of_vectors_is_not_taken_for_another(folder: Path) -> None:
    (folder / "centroids.faiss").write_bytes((folder / "directions.faiss").read_bytes())
    hash_again(folder)
    with pytest.raises(
        StoreError, match=r"cannot read centroids\.faiss .* again .it is of the kind IndexFlatIP"
    ):
        Store.open(folder)
