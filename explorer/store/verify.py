"""Checks a whole store against FORMAT.md: every hash, every row, every map. Knows all tables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.store import histogram
from explorer.store.classes import classify
from explorer.store.database import Database
from explorer.store.entropy import stored_entropies
from explorer.store.histogram import half_octaves
from explorer.store.manifest import Manifest, facts_of
from explorer.store.maps import unpack
from explorer.store.rows import MEAN_PATCH
from explorer.store.vectors import Centroids, Directions

_AT_MOST = 5  # problems of one kind that are told one by one
_MOST_OF_A_KIND = 10
_ROWS_AT_ONCE = 4096
_ROUNDING = 1e-9


class _Rule(NamedTuple):
    """A question whose answer must be empty: the first column of each row names what is wrong."""

    words: str
    sql: str


def _gapless(table: str, group: str, rank: str = "rank") -> _Rule:
    """Ranks run 0, 1, 2 ... within each group."""
    return _Rule(
        f"ranks in {table} have gaps for {group}",
        f"SELECT {group} FROM {table} GROUP BY {group}"
        f" HAVING min({rank}) <> 0 OR max({rank}) <> count(*) - 1",
    )


def _descending(table: str, group: str, rank: str, value: str) -> _Rule:
    """Values never rise with the rank."""
    return _Rule(
        f"{value}s in {table} are not descending for {group}",
        f"SELECT DISTINCT {group} FROM (SELECT {group}, {value} > lag({value}) OVER"
        f" (PARTITION BY {group} ORDER BY {rank}) AS risen FROM {table}) WHERE risen",
    )


_RULES = (
    *(_gapless(table, "neuron") for table in ("exemplars", "neuron_labels", "neuron_words", "partners")),
    _gapless("concepts", "concept"),
    _descending("exemplars", "neuron", "rank", "score"),
    _descending("interval_exemplars", "neuron", "interval", "score"),
    _descending("neuron_words", "neuron", "rank", "gain"),
    _descending("concepts", "concept", "rank", "score"),
    *(
        _Rule(f"scores in {table} are not above 0 for neuron", f"SELECT neuron FROM {table} WHERE score <= 0")
        for table in ("exemplars", "interval_exemplars")
    ),
    _Rule(
        "an image is twice among the exemplars of neuron",
        "SELECT neuron FROM exemplars GROUP BY neuron HAVING count(DISTINCT image) <> count(*)",
    ),
    _Rule(
        "an image is an exemplar and in an interval of neuron",
        "SELECT i.neuron FROM interval_exemplars i JOIN exemplars e ON e.neuron = i.neuron"
        " AND e.image = i.image",
    ),
    _Rule(
        "the best exemplar does not have the peak as its score for neuron",
        "SELECT n.neuron FROM neurons n LEFT JOIN exemplars e ON e.neuron = n.neuron AND e.rank = 0"
        " WHERE coalesce(e.score, 0) <> n.peak",
    ),
    _Rule(
        "no neuron has the image",
        "SELECT image FROM images WHERE image NOT IN (SELECT image FROM exemplars)"
        " AND image NOT IN (SELECT image FROM interval_exemplars)",
    ),
    _Rule(
        "images are not numbered without gaps; the highest is",
        "SELECT max(image) FROM images HAVING max(image) <> count(*) - 1",
    ),
    _Rule(
        "a position is not within -1 to 1 for neuron",
        "SELECT neuron FROM positions WHERE NOT (abs(x) <= 1 AND abs(y) <= 1)",
    ),
    _Rule("a neuron is its own partner:", "SELECT neuron FROM partners WHERE partner = neuron"),
    _Rule(
        "a label has no count of images:",
        "SELECT DISTINCT l.label FROM neuron_labels l LEFT JOIN label_images i USING (kind, label)"
        " WHERE i.images IS NULL",
    ),
)


def problems(
    folder: Path, manifest: Manifest, database: Database, directions: Directions, centroids: Centroids
) -> list[str]:
    """All that is wrong with an open store, in plain words; empty when nothing is.

    A database that cannot be read any further ends the list; vectors are looked at in unchanged files only.
    """
    found = list(_files(folder, manifest))
    checks = [
        _sqlite(database),
        _counts(manifest, database),
        _rules(manifest, database),
        _statistics(manifest, database),
        _intervals(database),
        _entropies(manifest, database),
        _maps(database, "exemplars"),
        _maps(database, "interval_exemplars"),
    ]
    if not found:
        checks.append(_vectors(database, directions, centroids))
    try:
        for check in checks:
            found.extend(islice(check, _MOST_OF_A_KIND))
    except StoreError as error:
        found.append(str(error))
    return found


def _files(folder: Path, manifest: Manifest) -> Iterator[str]:
    """The files are those that the manifest lists."""
    for name, facts in manifest.files.items():
        try:
            if facts_of(folder / name) != facts:
                yield f"{name} changed after the build"
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror or error})"


def _sqlite(database: Database) -> Iterator[str]:
    """The pages and indexes of the database are sound, and every row that is pointed at exists."""
    for (text,) in database.ask(f"PRAGMA integrity_check({_AT_MOST})"):
        if text != "ok":
            yield f"index.sqlite: {text}"
    broken: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in database.each("PRAGMA foreign_key_check"):
        broken[table, parent] = broken.get((table, parent), 0) + 1
    for (table, parent), rows in broken.items():
        yield f"{rows} rows of {table} point at rows of {parent} that do not exist"


def _counts(manifest: Manifest, database: Database) -> Iterator[str]:
    """The tables are as long as the manifest says."""
    for table, wanted in (("neurons", manifest.n_neurons), ("skipped", manifest.n_skipped)):
        ((rows,),) = database.ask(f"SELECT count(*) FROM {table}")
        if rows != wanted:
            yield f"{table} has {rows} rows, the manifest says {wanted}"
    ((rows,),) = database.ask("SELECT count(*) FROM neuron_words")
    if rows and manifest.words == "none":
        yield f"neuron_words has {rows} rows, the manifest says that nothing was asked"
    ((lowest, highest),) = database.ask("SELECT min(neuron), max(neuron) FROM neurons")
    if (lowest, highest) != (0, manifest.n_neurons - 1):
        yield f"neurons are numbered {lowest} to {highest}, not 0 to {manifest.n_neurons - 1}"
    for table, column, places in (
        ("exemplars", "rank", manifest.places),
        ("interval_exemplars", "interval", manifest.interval_places),
    ):
        ((highest,),) = database.ask(f"SELECT max({column}) FROM {table}")
        if highest is not None and highest >= places:
            yield f"{table} has {column} {highest}, the manifest says {places} places"


def _rules(manifest: Manifest, database: Database) -> Iterator[str]:
    """Ranks, scores and names are in order."""
    for words, sql in _RULES:
        rows = database.ask(f"{sql} LIMIT {_AT_MOST + 1}")
        if rows:
            yield f"{words} {_few([row[0] for row in rows])}"
    if manifest.rows:
        wrong = database.ask(
            "SELECT image FROM images WHERE grid_rows <> ? OR grid_cols <> ? LIMIT ?",
            (manifest.rows, manifest.cols, _AT_MOST + 1),
        )
        if wrong:
            names = _few([row[0] for row in wrong])
            yield f"the grid is not {manifest.rows} x {manifest.cols} for image {names}"


def _statistics(manifest: Manifest, database: Database) -> Iterator[str]:
    """Classes and histograms agree with the shares."""
    patches = manifest.n_images * manifest.rows * manifest.cols
    sql = "SELECT neuron, class, fires, in_top, patch_fires, score_histogram, active_histogram FROM neurons"
    for neuron, kind, fires, in_top, patch_fires, scores, actives in database.each(sql):
        expected = str(classify(np.float64(fires), np.float64(in_top)))
        if kind != expected:
            yield f"neuron {neuron} is {kind}, its shares say {expected}"
        for share, total, blob, what in (
            (fires, manifest.n_images, scores, "images"),
            (patch_fires, patches, actives, "patches"),
        ):
            try:
                counted = int(histogram.unpack(blob).sum())
            except StoreError as error:
                yield f"neuron {neuron}: {error}"
                continue
            fired = round(share * total)
            part = what == "patches" and not manifest.all_detailed
            if total and (counted > fired if part else counted != fired):
                yield f"neuron {neuron} fires in {share:.6g} of the {what}, its histogram counts {counted}"


def _intervals(database: Database) -> Iterator[str]:
    """Every image of an interval has a score within it."""
    rows = database.each(
        "SELECT i.neuron, i.interval, i.score, n.peak FROM interval_exemplars i JOIN neurons n USING (neuron)"
        " WHERE i.score > 0 AND n.peak > 0"
    )
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        neurons, intervals, scores, peaks = (np.array(column) for column in zip(*part, strict=True))
        below = half_octaves(peaks) - half_octaves(scores)
        for i in np.flatnonzero(below != intervals).tolist():
            yield f"interval {intervals[i]} of neuron {neurons[i]} holds a score {below[i]} below its peak's"


def _entropies(manifest: Manifest, database: Database) -> Iterator[str]:
    """Label entropies are those of the exemplars' labels."""
    if database.ask("SELECT 1 FROM exemplars WHERE image NOT IN (SELECT image FROM images) LIMIT 1"):
        return  # told already, as rows that point at nothing
    expected = stored_entropies(database, manifest.n_neurons)
    for neuron, kept in database.each("SELECT neuron, entropy FROM neurons ORDER BY neuron"):
        if not 0 <= neuron < len(expected):
            continue
        found = float("nan") if kept is None else kept
        if not np.isclose(found, expected[neuron], rtol=0, atol=_ROUNDING, equal_nan=True):
            yield f"neuron {neuron} has the label entropy {kept}, its exemplars say {expected[neuron]:.6g}"


def _maps(database: Database, table: str) -> Iterator[str]:
    """Every patch map has the size of its image's grid."""
    sql = (
        f"SELECT e.neuron, e.patch_map, e.scale, i.grid_rows, i.grid_cols FROM {table} e"
        " JOIN images i USING (image)"
    )
    for neuron, blob, scale, rows, cols in database.each(sql):
        try:
            unpack(blob, scale, rows, cols)
        except StoreError as error:
            yield f"{table} of neuron {neuron}: {error}"


def _vectors(database: Database, directions: Directions, centroids: Centroids) -> Iterator[str]:
    """Both files have a row of length 1 or 0 per neuron; a centroid of 0 means no exemplars."""
    live = {row[0] for row in database.ask("SELECT DISTINCT neuron FROM exemplars")}
    for vectors, name in ((directions, "directions"), (centroids, "centroids")):
        lengths = vectors.lengths()
        wrong = np.flatnonzero(~((abs(lengths - 1) < 1e-3) | (lengths == 0))).tolist()
        if wrong:
            yield f"{name} are not of length 1 for neuron {_few(wrong)}"
        if name == "centroids" and (wrong := sorted(set(np.flatnonzero(lengths).tolist()) - live)):
            yield f"a neuron without exemplars has a centroid: {_few(wrong)}"
    placed = {row[0] for row in database.ask("SELECT neuron FROM positions")}
    directed = set(np.flatnonzero(directions.lengths()).tolist())
    if odd := sorted(placed ^ directed):
        yield f"a neuron has a direction without a position, or a position without one: {_few(odd)}"
    widths = {directions.width, centroids.width}
    for sql in ("SELECT DISTINCT length(weight) FROM probes", "SELECT length(vector) FROM site"):
        widths.update(row[0] / 4 for row in database.ask(sql))
    if len(widths) > 1:
        names = "directions, centroids, probes and the mean patch"
        yield f"{names} have different widths: {', '.join(f'{width:g}' for width in sorted(widths))}"
    for name, blob in database.ask("SELECT name, vector FROM site"):
        if name != MEAN_PATCH:
            yield f"site has a row {name!r} that this format does not know"
        elif len(blob) % 4 or not np.isfinite(np.frombuffer(blob, dtype="<f4")).all():
            yield "the mean patch has values that are not finite numbers"


def _few(names: list[object]) -> str:
    """The first names of a list."""
    return ", ".join(map(str, names[:_AT_MOST])) + (" ..." if len(names) > _AT_MOST else "")
