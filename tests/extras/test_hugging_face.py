"""Data sets of Hugging Face, saved to disk: columns, classes, splits, reading again. Needs `datasets`."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pictures

from explorer.errors import ImageError, SourceError
from explorer.records import Box, Grid
from explorer.vlm.base import Prepared
from index.loading import load_chunks
from index.sources import HuggingFaceSource, open_origin, read_class_names
from index.sources.hugging_face import image_of


def png(shade: int) -> bytes:
    """A small grey picture."""
    stream = io.BytesIO()
    Pictures.new("L", (3, 2), shade).save(stream, "PNG")
    return stream.getvalue()


def cell(shade: int) -> dict[str, Any]:
    """The same in a cell."""
    return {"bytes": png(shade), "path": None}


def save(folder: Path, columns: dict[str, list[Any]], kinds: dict[str, Any]) -> str:
    """A data set of one split on disk."""
    Dataset.from_dict(columns, features=Features(kinds)).save_to_disk(str(folder))
    return str(folder)


def shown(source: HuggingFaceSource) -> list[list[str]]:
    """The labels of each row."""
    rows = [source.read(number).labels for number in range(len(source))]
    return [[source.vocabulary[label].name for label in labels] for labels in rows]


@pytest.fixture
def pets(tmp_path: Path) -> str:
    """Three rows; the last has no picture."""
    columns = {"id": [7, 8, 9], "photo": [cell(10), cell(20), None], "pet": [1, 0, -1]}
    kinds = {"id": Value("int64"), "photo": Image(), "pet": ClassLabel(names=["cat", "dog"])}
    return save(tmp_path / "pets", columns, kinds)


def test_rows_are_pictures(pets: str) -> None:
    source = HuggingFaceSource(pets)
    assert len(source) == 3
    assert [source.image_id(number) for number in range(3)] == ["00000000", "00000001", "00000002"]
    assert [tuple(label) for label in source.vocabulary] == [("class", "cat"), ("class", "dog")]
    first = source.read(0)
    assert (first.number, first.image.mode, first.image.getpixel((0, 0))) == (0, "RGB", (10, 10, 10))
    assert (source.read(0).labels, source.read(1).labels) == ((1,), (0,))
    with pytest.raises(ImageError, match="row 00000002: there is no picture"):
        source.read(2)
    assert "pets" in source.description
    assert source.list_hash() == HuggingFaceSource(pets).list_hash()
    again = pickle.loads(pickle.dumps(source))
    assert again.read(1).image.tobytes() == source.read(1).image.tobytes()
    with pytest.raises(IndexError):
        source.image_id(3)


def test_rows_open_again(pets: str) -> None:
    source = HuggingFaceSource(pets)
    assert source.origin(1) == f"hf:{pets}?split=all&image=photo&row=1"
    assert open_origin(source.origin(1)).getpixel((0, 0)) == (20, 20, 20)
    with pytest.raises(ImageError, match="no row 3"):
        open_origin(f"hf:{pets}?split=all&image=photo&row=3")
    with pytest.raises(SourceError, match="cannot open the data set"):
        open_origin("hf:/nowhere/at/all?split=all&image=photo&row=3")


def test_names_with_odd_letters_open_again(tmp_path: Path) -> None:
    kinds = {"a photo & more?": Image()}
    folder = save(tmp_path / "a?b%20&c", {"a photo & more?": [cell(3)]}, kinds)
    source = HuggingFaceSource(folder)
    assert open_origin(source.origin(0)).getpixel((0, 0)) == (3, 3, 3)
    assert source.vocabulary == ()


def test_cells_that_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(9))
    found = image_of({"bytes": None, "path": str(tmp_path / "a.png")}, "5")
    assert found.getpixel((0, 0)) == (9, 9, 9)
    for nothing in (None, {}, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}):
        with pytest.raises(ImageError, match="row 5: there is no picture"):
            image_of(nothing, "5")
    with pytest.raises(ImageError, match="row 5: there is no file"):
        image_of({"bytes": None, "path": str(tmp_path / "gone.png")}, "5")


def test_splits(tmp_path: Path) -> None:
    one = Dataset.from_dict({"image": [cell(1)]}, features=Features({"image": Image()}))
    two = Dataset.from_dict({"image": [cell(2), cell(3)]}, features=Features({"image": Image()}))
    DatasetDict({"train": one, "test": two}).save_to_disk(str(tmp_path / "both"))
    DatasetDict({"val": one, "test": two}).save_to_disk(str(tmp_path / "odd"))
    assert len(HuggingFaceSource(str(tmp_path / "both"))) == 1
    test = HuggingFaceSource(str(tmp_path / "both"), "test")
    assert len(test) == 2
    assert open_origin(test.origin(1)).getpixel((0, 0)) == (3, 3, 3)
    with pytest.raises(SourceError, match="no split 'dev'; it has train, test"):
        HuggingFaceSource(str(tmp_path / "both"), "dev")
    with pytest.raises(SourceError, match="splits val, test; choose one with --split"):
        HuggingFaceSource(str(tmp_path / "odd"))


def test_folders_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kinds = Features({"image": Image(), "label": ClassLabel(names=["x", "y"])})
    folder = tmp_path / "set"
    for split, shade in (("train", 1), ("test", 2)):
        rows = Dataset.from_dict({"image": [cell(shade), cell(9)], "label": [1, 0]}, features=kinds)
        rows.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    source = HuggingFaceSource(str(folder))
    assert shown(source) == [["y"], ["x"]]
    assert source.read(0).image.getpixel((0, 0)) == (1, 1, 1)
    test = HuggingFaceSource(str(folder), "test")
    assert open_origin(test.origin(0)).getpixel((0, 0)) == (2, 2, 2)
    with pytest.raises(SourceError, match="cannot open the data set"):
        HuggingFaceSource(str(folder), "dev")


def test_columns(tmp_path: Path) -> None:
    kinds = {"a": Image(), "b": Image(), "c": ClassLabel(names=["x"]), "d": Value("string")}
    columns = {"a": [cell(1), cell(2)], "b": [cell(3), cell(4)], "c": [0, 0], "d": ["no", None]}
    folder = save(tmp_path / "set", columns, kinds)
    with pytest.raises(SourceError, match=r"which column holds the pictures.*a, b"):
        HuggingFaceSource(folder)
    with pytest.raises(SourceError, match=r"the column 'd' holds none.*a, b"):
        HuggingFaceSource(folder, image_column="d")
    with pytest.raises(SourceError, match="no column 'e'; it has a, b, c, d"):
        HuggingFaceSource(folder, image_column="b", label_column="e")
    source = HuggingFaceSource(folder, image_column="b", label_column="d")
    assert source.read(1).image.getpixel((0, 0)) == (4, 4, 4)
    assert shown(source) == [["no"], []]
    assert shown(HuggingFaceSource(folder, image_column="a")) == [["x"], ["x"]]


def test_other_kinds_of_labels(tmp_path: Path) -> None:
    kinds = {"image": Image(), "many": List(ClassLabel(names=["p", "q", "r"])), "number": Value("int32")}
    columns = {"image": [cell(1), cell(2)], "many": [[2, 0], []], "number": [10, 2]}
    folder = save(tmp_path / "set", columns, kinds)
    assert shown(HuggingFaceSource(folder, label_column="many")) == [["p", "r"], []]
    numbered = HuggingFaceSource(folder, label_column="number")
    assert [label.name for label in numbered.vocabulary] == ["2", "10"]
    (tmp_path / "names.txt").write_text("zero\none\ntwo\n")
    names = read_class_names(tmp_path / "names.txt")
    assert shown(HuggingFaceSource(folder, label_column="number", names=names)) == [["10"], ["two"]]
    assert shown(HuggingFaceSource(folder, label_column="many", names=names)) == [["zero", "two"], []]


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot open the data set"):
        HuggingFaceSource(str(tmp_path))
    empty = save(tmp_path / "empty", {"image": []}, {"image": Image()})
    with pytest.raises(SourceError, match="empty"):
        HuggingFaceSource(empty)
    folder = save(tmp_path / "set", {"image": [cell(1)]}, {"image": Image()})
    (tmp_path / "set" / "dataset_info.json").write_text("{}")
    (tmp_path / "set" / "state.json").write_text("{}")
    with pytest.raises(SourceError, match="cannot open the data set"):
        HuggingFaceSource(folder)


def test_workers_read_the_same(tmp_path: Path) -> None:
    columns = {"image": [cell(i) for i in range(40)], "label": [i % 2 for i in range(40)]}
    kinds = {"image": Image(), "label": ClassLabel(names=["even", "odd"])}
    source = HuggingFaceSource(save(tmp_path / "set", columns, kinds))

    def prepare(image: Pictures.Image) -> Prepared:
        import torch

        return Prepared(torch.tensor(np.asarray(image))[None], Grid(2, 3, 3, 2, Box(0, 0, 3, 2)))

    here, there = (list(load_chunks(source, prepare, range(5), 8, workers)) for workers in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert one.pixels.equal(other.pixels)
        assert one.items == other.items
