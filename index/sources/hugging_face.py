"""Data sets in the `datasets` format, from the hub or from a folder. Knows that package, if it is there.

The package is an optional extra: pip install -r requirements-extras.txt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import numpy as np
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.images import load_image
from index.sources.base import Label, Picture, ordered_hash
from index.sources.class_names import ClassNames, unique_names
from index.sources.packed import PackedRows

if TYPE_CHECKING:
    from datasets import Dataset

_DIGITS = 8
_SAVED = ("state.json", "dataset_dict.json")
_DAMAGE = (OSError, ValueError, RuntimeError, KeyError, TypeError, IndexError)
"""What the package raises for data sets that are missing or damaged."""


class HuggingFaceSource:
    """The rows of one split of a data set. Ids are row numbers, with leading zeros.

    where: a folder that `save_to_disk` wrote, another folder that `load_dataset` understands (of parquet
    files, say), or a name on the hub ("name" or "name:configuration");
    split: "train" unless given, or the only one; image_column: the only column of pictures unless given;
    label_column: the only column of classes unless given. names: what numbered classes are called where
    the data set itself does not tell. Raises SourceError when the package or the data set is missing, or
    the columns do not fit.
    """

    concepts: Sequence[str] = ()

    def __init__(
        self,
        where: str,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        names: ClassNames | None = None,
    ) -> None:
        rows, split = open_rows(where, split)
        if not len(rows):
            raise SourceError(f"the split {split!r} of {where} has no rows")
        self._column = _image_column(rows, where, image_column)
        self.vocabulary, self._labels = _labels(rows, where, label_column, names)
        self._rows = _undecoded(rows, self._column)
        folder = Path(where)
        self._where = str(folder.absolute()) if folder.is_dir() else where
        self._query = urlencode({"split": split, "image": self._column})
        self.description = (
            f"pictures of the data set {folder.name if folder.is_dir() else where}, split {split}"
        )
        self._digits = max(_DIGITS, len(str(len(rows) - 1)))
        self._hash = ""

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, number: int) -> str:
        """The row number."""
        return f"{range(len(self))[number]:0{self._digits}}"

    def origin(self, number: int) -> str:
        """hf:<name or folder>?split=...&image=...&row=..."""
        return f"hf:{quote(self._where, safe='/:')}?{self._query}&row={number}"

    def list_hash(self) -> str:
        """The hash of all ids, computed once."""
        self._hash = self._hash or ordered_hash(self.image_id(number) for number in range(len(self)))
        return self._hash

    def read(self, number: int) -> Picture:
        """Read one row; see `Source.read`."""
        image = image_of(self._rows[number][self._column], self.image_id(number))
        return Picture(number, self.image_id(number), self.origin(number), image, self._labels[number])


def open_rows(where: str, split: str | None) -> tuple[Dataset, str]:
    """One split of a data set, and its name."""
    try:
        import datasets
    except ImportError as error:
        raise SourceError(
            "data sets of Hugging Face need the package `datasets`: pip install -r requirements-extras.txt"
        ) from error
    try:
        if any((Path(where) / name).is_file() for name in _SAVED):
            found: Any = datasets.load_from_disk(where)
        elif Path(where).is_dir():
            found = datasets.load_dataset(where, split=split)
        else:
            name, _, configuration = where.partition(":")
            found = datasets.load_dataset(name, configuration or None, split=split)
    except (*_DAMAGE, datasets.exceptions.DatasetsError) as error:
        raise SourceError(
            f"cannot open the data set {where}: {' '.join(str(error).split())[:500]}"
        ) from error
    if isinstance(found, datasets.Dataset):
        return found, split or str(found.split or "all")
    if split is None and len(found) > 1 and "train" not in found:
        raise SourceError(f"{where} has the splits {', '.join(found)}; choose one with --split")
    split = split or ("train" if "train" in found else next(iter(found)))
    if split not in found:
        raise SourceError(f"{where} has no split {split!r}; it has {', '.join(found)}")
    return found[split], split


def image_of(cell: Any, name: str) -> Image.Image:
    """The picture in a cell of an undecoded column. Raises ImageError when there is none."""
    try:
        if not cell or not (cell.get("bytes") or cell.get("path")):
            raise ImageError("there is no picture in this row")
        return load_image(cell["bytes"] or cell["path"])
    except ImageError as error:
        raise ImageError(f"row {name}: {error}") from error


def open_cell(where: str, split: str, column: str, row: int) -> Image.Image:
    """Read one picture anew, as `origin` names it."""
    rows = _kept(where, split, column)
    if not 0 <= row < len(rows):
        raise ImageError(f"{where} has no row {row}")
    return image_of(rows[row][column], str(row))


@lru_cache(maxsize=2)
def _kept(where: str, split: str, column: str) -> Dataset:
    """The pictures of a data set, kept open for the next row."""
    rows, _ = open_rows(where, split)
    return _undecoded(rows, _image_column(rows, where, column))


def _undecoded(rows: Dataset, column: str) -> Dataset:
    """Only the pictures' column, as bytes of files."""
    import datasets

    return rows.select_columns([column]).with_format(None).cast_column(column, datasets.Image(decode=False))


def _image_column(rows: Dataset, where: str, wanted: str | None) -> str:
    """The column of the pictures."""
    import datasets

    found = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted not in found:
        told = "which column holds the pictures?" if wanted is None else f"the column {wanted!r} holds none:"
        raise SourceError(
            f"{where}: {told} columns of pictures: {', '.join(found) or 'none'} (--image-column)"
        )
    return wanted


def _labels(
    rows: Dataset, where: str, wanted: str | None, names: ClassNames | None
) -> tuple[tuple[Label, ...], PackedRows]:
    """The vocabulary, and the labels of each row."""
    import datasets

    classes = [name for name, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
    if wanted is None and len(classes) != 1:
        return (), PackedRows(np.zeros(len(rows) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    column = wanted or classes[0]
    if column not in rows.features:
        raise SourceError(f"{where} has no column {column!r}; it has {', '.join(rows.features)}")
    kind = rows.features[column]
    inner = getattr(kind, "feature", kind)  # a list of classes per row
    cells = rows.select_columns([column]).with_format(None)[column]
    many = [_several(cell) for cell in cells]
    if isinstance(inner, datasets.ClassLabel):
        keys: list[Any] = list(range(len(inner.names)))
        shown = list(inner.names)
        shown = unique_names([str(key) for key in keys], names) if names else shown
    else:
        keys = sorted({value for row in many for value in row if _is_label(value)}, key=_by_kind)
        shown = unique_names([str(key) for key in keys], names)
    place = {key: number for number, key in enumerate(keys)}
    labels = PackedRows.of(sorted({place[value] for value in row if value in place}) for row in many)
    return tuple(Label("class", name) for name in shown), labels


def _several(cell: Any) -> Sequence[Any]:
    """A cell as a list of labels."""
    if cell is None:
        return ()
    return [value for value in cell if _is_label(value)] if isinstance(cell, list) else [cell]


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _by_kind(key: Any) -> tuple[bool, Any]:
    """Numbers before texts."""
    return isinstance(key, str), key
