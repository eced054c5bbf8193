"""Reads COCO's annotation files into packed arrays: images, categories, boxes, outlines, captions.

Forgives what real files have (gaps in ids, images without annotations, annotations of other images,
files that are listed twice, boxes without area) and refuses what is no such file. Outlines are packed
while the file is read, which takes about four times its size in memory. Knows JSON and geometry;
nothing of pictures.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from explorer.errors import SourceError
from index.sources.packed import PackedRows

_EXPECTED = 'expected COCO\'s layout: {"images": [...], "annotations": [...]'
_MOST = 1e9
"""No length in pixels is larger."""

Id = int | str
"""COCO's ids are numbers; files of other origin have texts."""


class Images(NamedTuple):
    """files: the file name of each image id; sizes: (width, height) of each file name, where told."""

    files: dict[Id, str]
    sizes: dict[str, tuple[float, float]]


class Objects(NamedTuple):
    """All annotated objects of an instances file, by picture; the n-th object has index n in each array.

    of_image: the objects of each picture, in the file's order; category: index into the categories;
    crowd: whether it is a region of many; box: [n, 4] left, top, right, bottom in pixels of the annotated
    picture, zeros where it has none; area: in square pixels; parts: the outlines of each object;
    outlines: starts of each outline's numbers; points: x, y, x, y, ... of all outlines.
    """

    of_image: PackedRows
    category: np.ndarray
    crowd: np.ndarray
    box: np.ndarray
    area: np.ndarray
    parts: np.ndarray
    outlines: np.ndarray
    points: np.ndarray

    def polygons(self, index: int) -> list[np.ndarray]:
        """The outlines of one object, each [n, 2] in pixels."""
        starts = self.outlines[self.parts[index] : self.parts[index + 1] + 1]
        return [self.points[a:b].reshape(-1, 2).astype(np.float64) for a, b in pairwise(starts)]


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The parts of a COCO file. what: the key of an annotation that tells the kind of file."""
    try:
        with path.open("rb") as file:
            parsed = json.load(file, object_hook=packed_outlines)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is no JSON, or is cut short ({error}); {_EXPECTED}, ...}}") from error
    if not isinstance(parsed, dict) or not all(
        isinstance(parsed.get(key), list) for key in ("images", "annotations")
    ):
        raise SourceError(f"{path} is no COCO file; {_EXPECTED}, ...}}")
    if not parsed["images"]:
        raise SourceError(f"{path} lists no images")
    for found in parsed["annotations"]:
        if not (isinstance(found, dict) and what in found and isinstance(found.get("image_id"), Id)):
            raise SourceError(
                f"{path} has an annotation without {what} or image_id; {_EXPECTED} with {what!r} in each "
                f"annotation}} ({'instances' if what == 'category_id' else 'captions'}_*.json)"
            )
    return parsed


def images_of(parsed: Mapping[str, Any], path: Path) -> Images:
    """The images of a file. Two ids with one file name are one picture."""
    files: dict[Id, str] = {}
    sizes: dict[str, tuple[float, float]] = {}
    for entry in parsed["images"]:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or "\0" in name or not isinstance(entry.get("id"), Id):
            raise SourceError(
                f'{path} has an image without id or file_name: {str(entry)[:120]}; expected {{"id": 139, '
                '"file_name": "000000000139.jpg", "width": 640, "height": 426}'
            )
        if files.setdefault(entry["id"], name) != name:
            raise SourceError(f"{path} gives image {entry['id']} two files: {files[entry['id']]} and {name}")
        size = _numbers([entry.get("width"), entry.get("height")])
        if size and min(size) > 0:
            sizes.setdefault(name, (size[0], size[1]))
    return Images(files, sizes)


def categories_of(parsed: Mapping[str, Any], path: Path) -> tuple[list[str], dict[Id, int]]:
    """The categories' names by id, and the place of each id; equal names are one category."""
    entries = parsed.get("categories")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("id"), Id) and isinstance(entry.get("name"), str)
        for entry in entries
    ):
        raise SourceError(
            f'{path} names no categories; {_EXPECTED}, "categories": [{{"id": 1, "name": "person"}}, ...]}}'
        )
    names: dict[str, int] = {}
    places = {
        entry["id"]: names.setdefault(entry["name"], len(names))
        for entry in sorted(entries, key=lambda entry: (str(type(entry["id"])), entry["id"]))
    }
    return list(names), places


def objects_of(
    parsed: Mapping[str, Any], images: Images, numbers: Mapping[str, int], places: Mapping[Id, int]
) -> Objects:
    """Pack the objects of the listed pictures.

    parsed: as `read_json` gives it; numbers: the number of each file name; places: the place of each
    category id. Objects of other images or of other categories are left out.
    """
    image, category, crowd, area = array("q"), array("q"), array("b"), array("d")
    box, points = array("d"), array("f")
    parts, outlines = array("q", [0]), array("q", [0])
    for found in parsed["annotations"]:
        number, kind = numbers.get(images.files.get(found["image_id"], "")), found["category_id"]
        kind = places.get(kind) if isinstance(kind, Id) else None
        if number is None or kind is None:
            continue
        image.append(number)
        category.append(kind)
        crowd.append(1 if found.get("iscrowd") else 0)
        left, top, width, height = _numbers(found.get("bbox"), 4) or (0.0, 0.0, 0.0, 0.0)
        good = width > 0 and height > 0
        box.extend((left, top, left + width, top + height) if good else (0.0, 0.0, 0.0, 0.0))
        for outline in found.get("segmentation", ()):
            points.extend(outline)
            outlines.append(len(points))
        parts.append(len(outlines) - 1)
        told = _numbers([found.get("area")])
        area.append(told[0] if told and told[0] > 0 else max(0.0, width * height if good else 0.0))
    rows = PackedRows.grouped(_packed(image), np.arange(len(image)), len(numbers))
    return Objects(
        rows,
        _packed(category).astype(np.int32),
        _packed(crowd).astype(bool),
        _packed(box).astype(np.float32).reshape(-1, 4),
        _packed(area).astype(np.float32),
        _packed(parts),
        _packed(outlines),
        _packed(points),
    )


def captions_of(parsed: Mapping[str, Any], images: Images) -> dict[str, list[str]]:
    """The captions of each file name."""
    captions: dict[str, list[str]] = {}
    for found in parsed["annotations"]:
        name = images.files.get(found["image_id"])
        if name is not None and isinstance(found["caption"], str):
            captions.setdefault(name, []).append(found["caption"])
    return captions


def _packed(values: array) -> np.ndarray:
    """The same numbers as an array of numpy's."""
    return np.array(values, dtype=values.typecode)


def packed_outlines(found: dict[str, Any]) -> dict[str, Any]:
    """For JSON's reader: an object whose "segmentation" is a list of usable outlines, packed.

    An outline has at least three points. Run-length masks give no outlines.
    """
    if "segmentation" in found:
        given = found["segmentation"] if isinstance(found["segmentation"], list) else []
        found["segmentation"] = [outline for outline in map(_outline, given) if len(outline)]
    return found


def _outline(values: object) -> array:
    """x, y, x, y, ... of one outline, empty when it is none."""
    if not isinstance(values, list) or len(values) < 6 or len(values) % 2:
        return array("f")
    try:
        packed = array("f", values)
    except (TypeError, OverflowError):
        return array("f")
    return packed if np.isfinite(np.frombuffer(packed, dtype=np.float32)).all() else array("f")


def _numbers(values: object, count: int | None = None) -> list[float]:
    """The values, if all are finite numbers, and as many as wanted; otherwise none."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return []
    good = all(
        isinstance(value, int | float) and not isinstance(value, bool) and -_MOST < value < _MOST
        for value in values
    )
    return values if good else []
