"""The manifest: what a store was built from, and the mark that it is complete.

Knows JSON, files and hashes; nothing of SQLite, FAISS or models.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from explorer.errors import StoreError

FORMAT = 3
UPGRADABLE = 2
"""The format that `python -m index upgrade` brings up to date without pictures or a model."""
MANIFEST_NAME = "manifest.json"
DATABASE_NAME = "index.sqlite"
DIRECTIONS_NAME = "directions.faiss"
CENTROIDS_NAME = "centroids.faiss"
NOTES_NAME = "notes.sqlite"
FILE_NAMES = (DATABASE_NAME, DIRECTIONS_NAME, CENTROIDS_NAME)
"""The files that the manifest lists."""
Route = Literal["answer", "unembedding", "none"]
ROUTES: tuple[Route, ...] = get_args(Route)
"""Where the words of neurons may come from; FORMAT.md says what each means."""
DETAILED = 32
"""How many times more images than the sample holds stand for intervals and histograms of activations."""
FVU_QUANTILES = (0.5, 0.9, 0.99, 0.995, 0.999)


_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("block", "n_neurons", "n_images", "n_skipped", "rows", "cols", "places"), int),
    **dict.fromkeys(("batch", "sample", "n_parts", "interval_places"), int),
    **dict.fromkeys(("model_id", "sae_id", "score", "source", "preprocessing", "dtype", "words"), str),
    **{"fvu": dict, "files": dict},
}


class FileFacts(NamedTuple):
    """Size in bytes and sha256 in hex of one file of the store."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a store was built from; FORMAT.md describes each field."""

    model_id: str
    block: int
    sae_id: str
    n_neurons: int
    n_images: int
    n_skipped: int
    rows: int
    cols: int
    score: Literal["mean", "max"]
    places: int
    source: str
    image_list_hash: str
    preprocessing: str
    fvu: Mapping[str, float]
    created: str
    batch: int
    include_cls: bool
    sample: int
    n_parts: int
    interval_places: int
    monosemanticity_baseline: float | None
    dtype: str
    words: Route
    format: int = FORMAT
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    @property
    def all_detailed(self) -> bool:
        """Whether all images could stand for intervals and are counted in the histograms of activations."""
        return not self.sample or self.n_images + self.n_skipped <= DETAILED * self.sample

    def fvu_quantile(self, quantile: float) -> float:
        """The unexplained variance that a share `quantile` of the indexed images stays below."""
        try:
            return self.fvu[str(quantile)]
        except KeyError:
            known = ", ".join(self.fvu)
            raise StoreError(
                f"the store keeps no {quantile} quantile of unexplained variance, only {known}"
            ) from None


def facts_of(path: Path) -> FileFacts:
    """Size and hash of a file, read in pieces."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileFacts(path.stat().st_size, digest)


def build_command(folder: Path, source: str = "") -> str:
    """The command that builds a store at `folder`, again from its source where that is known."""
    pictures = "--scenes 4000" if not source or "scenes" in source else "--images FOLDER"
    return f"python -m index build {pictures} --out {folder}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json so that it is on the disk, whole, before this returns."""
    text = asdict(manifest)
    text["files"] = {name: {"bytes": facts[0], "sha256": facts[1]} for name, facts in manifest.files.items()}
    part = folder / f"{MANIFEST_NAME}.part"
    with part.open("w", encoding="utf-8") as stream:
        json.dump(text, stream, indent=2)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(folder / MANIFEST_NAME)


def upgrade_command(folder: Path) -> str:
    """The command that brings a store of the format before this one up to date."""
    return f"python -m index upgrade {folder}"


def read_manifest(folder: Path, wanted: int = FORMAT) -> Manifest:
    """The manifest of a store. Raises StoreError that says what is wrong and how to build one.

    wanted: the format that it must have.
    """
    command = build_command(folder)
    if not folder.exists():
        raise StoreError(f"there is no store at {folder}; build one with: {command}")
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file, not a store; a store is a folder, built with: {command}")
    path = folder / MANIFEST_NAME
    if not path.exists():
        raise StoreError(
            f"{folder} is not a finished store (it has no {MANIFEST_NAME}); build one with: {command}"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}; build the store again with: {command}") from error
    return _parse(raw, path, command, wanted)


def is_outdated(folder: Path) -> bool:
    """Whether a finished store of an earlier format lies there, which this program does not read."""
    found = _format_of(folder)
    return found is not None and found < FORMAT


def is_upgradable(folder: Path) -> bool:
    """Whether a finished store lies there that `python -m index upgrade` brings up to date."""
    return _format_of(folder) == UPGRADABLE


def _format_of(folder: Path) -> int | None:
    """The format of a finished store; None where there is none."""
    try:
        raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = raw.get("format") if isinstance(raw, dict) else None
    return found if isinstance(found, int) else None


def _parse(raw: object, path: Path, command: str, wanted: int) -> Manifest:
    """Check a manifest's JSON of the format wanted and make the record of it."""
    if not isinstance(raw, dict) or "format" not in raw:
        raise StoreError(f"{path} is not the manifest of a store; build one with: {command}")
    command = build_command(path.parent, str(raw.get("source", "")))
    if raw["format"] != wanted:
        raise StoreError(_other_format(raw["format"], path.parent, command, wanted))
    names = {item.name for item in fields(Manifest)}
    if missing := sorted(names - raw.keys()):
        raise StoreError(f"{path} lacks {', '.join(missing)}; build the store again with: {command}")
    if wrong := [name for name, kinds in _KINDS.items() if not isinstance(raw[name], kinds)]:
        raise StoreError(f"{path} is damaged ({', '.join(wrong)}); build the store again with: {command}")
    if raw["words"] not in ROUTES:
        raise StoreError(f"{path} is damaged (words); build the store again with: {command}")
    try:
        files = {
            name: FileFacts(int(facts["bytes"]), str(facts["sha256"])) for name, facts in raw["files"].items()
        }
        return Manifest(**{**{name: raw[name] for name in names}, "files": files})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); build the store again with: {command}") from error


def _other_format(found: object, folder: Path, command: str, wanted: int) -> str:
    """What to say about a store of another format than the one wanted."""
    said = f"the store {folder} has format {found!r}, this program reads format {FORMAT}; "
    if found == UPGRADABLE and wanted == FORMAT:
        return f"{said}bring it up to date with: {upgrade_command(folder)}"
    return f"{said}build it again with: {command}"
