"""COCO: labels, truth of patches from outlines and boxes, crowds, captions, and files with flaws."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.records import Box, Grid
from index.sources import CocoSource, Label
from index.sources.coco_files import categories_of, images_of, objects_of, packed_outlines
from index.sources.coco_truth import object_truth
from index.sources.words import kept_words, words_of

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
WIDTH, HEIGHT = 80, 60


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    """The outline of a rectangle."""
    return [left, top, right, top, right, bottom, left, bottom]


def make(folder: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    """Three pictures and an instances file."""
    images = []
    for i in (3, 1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * i, 0, 0)).save(folder / f"{i:03}.jpg")
        images.append({"id": i, "file_name": f"{i:03}.jpg", "width": WIDTH, "height": HEIGHT})
    path = folder / "instances.json"
    parsed = {"images": images, "annotations": annotations, "categories": CATEGORIES} | more
    path.write_text(json.dumps(parsed))
    return path


def thing(image: Any, category: Any, box: Any = None, outline: Any = None, **more: Any) -> dict[str, Any]:
    """One annotation."""
    found = {"image_id": image, "category_id": category, "iscrowd": 0, **more}
    return found | ({"bbox": box} if box else {}) | ({"segmentation": outline} if outline else {})


def grid(rows: int = 6, cols: int = 8, width: int = WIDTH, height: int = HEIGHT, box: Any = None) -> Grid:
    """A grid of 10 px patches over a whole picture."""
    return Grid(rows, cols, width, height, box or Box(0, 0, width, height))


def concepts(source: CocoSource, number: int, where: Grid | None = None) -> np.ndarray:
    """Patch truth as a table."""
    where = where or grid()
    return source.read(number).truth(where).concepts.reshape(where.rows, where.cols)


def test_pictures_go_by_file_name_and_categories_by_id(tmp_path: Path) -> None:
    path = make(tmp_path, [thing(2, 90, [0, 0, 9, 9]), thing(2, 1, [0, 0, 9, 9]), thing(2, 1, [5, 5, 9, 9])])
    source = CocoSource(tmp_path, path)
    assert [source.image_id(i) for i in range(3)] == ["001.jpg", "002.jpg", "003.jpg"]
    assert source.concepts == ("person", "dog", "toothbrush")
    assert source.vocabulary == tuple(Label("category", name) for name in source.concepts)
    assert [source.read(i).labels for i in range(3)] == [(), (0, 2), ()]
    assert source.origin(1) == str(tmp_path / "002.jpg")
    assert (concepts(source, 0) == -1).all()
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(concepts(again, 1), concepts(source, 1))
    assert again.list_hash() == source.list_hash()


def test_small_objects_lie_over_large_ones(tmp_path: Path) -> None:
    outline = [square(0, 0, 30, 20), square(50, 0, 60, 10)]
    path = make(
        tmp_path,
        [thing(1, 18, outline=[square(10, 10, 20, 20)]), thing(1, 1, outline=outline, area=700)],
    )
    source = CocoSource(tmp_path, path)
    expected = np.full((6, 8), -1)
    expected[0:2, 0:3] = 0
    expected[0, 5] = 0
    expected[1, 1] = 1
    np.testing.assert_array_equal(concepts(source, 0), expected)
    objects = source.read(0).truth(grid()).objects.reshape(6, 8)
    np.testing.assert_array_equal(objects, np.select([expected == 0, expected == 1], [1, 0], -1))


def test_boxes_do_where_there_is_no_outline(tmp_path: Path) -> None:
    run_length = {"counts": [0, 5, 10], "size": [60, 80]}
    path = make(
        tmp_path,
        [thing(1, 1, [0, 0, 14, 16]), thing(2, 1, [0, 0, 20, 10], run_length), thing(3, 1, outline=[])],
    )
    source = CocoSource(tmp_path, path)
    assert np.argwhere(concepts(source, 0) == 0).tolist() == [[0, 0], [1, 0]]  # 0.4 of column 1 is not half
    assert np.argwhere(concepts(source, 1) == 0).tolist() == [[0, 0], [0, 1]]
    assert (concepts(source, 2) == -1).all()


def test_crowds_are_unknown_unless_an_object_covers_them(tmp_path: Path) -> None:
    mask = {"counts": [5, 10], "size": [HEIGHT, WIDTH]}
    path = make(
        tmp_path,
        [
            thing(1, 1, [0, 0, 40, 30], mask, iscrowd=1, area=3),
            thing(1, 18, [10, 10, 10, 10]),
            thing(2, 1, outline=mask, iscrowd=1),
        ],
    )
    source = CocoSource(tmp_path, path)
    expected = np.full((6, 8), -1)
    expected[0:3, 0:4] = -2
    expected[1, 1] = 1
    np.testing.assert_array_equal(concepts(source, 0), expected)
    truth = source.read(0).truth(grid())
    np.testing.assert_array_equal(truth.objects >= 0, truth.concepts >= 0)
    assert source.read(0).labels == (0, 1)
    assert (concepts(source, 1) == -2).all()  # nobody says where


def test_truth_follows_crops_and_sizes(tmp_path: Path) -> None:
    source = CocoSource(tmp_path, make(tmp_path, [thing(1, 1, [20, 10, 30, 20])]))
    everything = concepts(source, 0)
    crop = concepts(source, 0, grid(6, 6, box=Box(10, 0, 70, 60)))
    np.testing.assert_array_equal(crop, everything[:, 1:7])
    padded = concepts(source, 0, grid(8, 8, box=Box(0, -10, 80, 70)))
    np.testing.assert_array_equal(padded[1:7], everything)
    assert (padded[[0, 7]] == -1).all()
    Image.new("RGB", (160, 120)).save(tmp_path / "001.jpg")  # the same picture, twice as large
    np.testing.assert_array_equal(concepts(source, 0, grid(width=160, height=120)), everything)
    assert (concepts(source, 0, grid(8, 6, width=60, height=80)) == -2).all()  # turned


def star(x: float, y: float, radius: float, corners: int, turned: float) -> list[tuple[float, float]]:
    """A regular outline."""
    angles = turned + 2 * np.pi * np.arange(corners) / corners
    return [(float(x + radius * np.cos(a)), float(y + radius * np.sin(a))) for a in angles]


polygons = st.builds(
    star, st.floats(-20, 100), st.floats(-20, 80), st.floats(1, 50), st.integers(3, 9), st.floats(0, 6)
)


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points lie within an outline, by counting crossings."""
    found = np.zeros(len(points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            found ^= crosses & (points[:, 0] < (x1 - x0) * (points[:, 1] - y0) / (y1 - y0) + x0)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(polygons, min_size=1, max_size=3))
def test_outlines_agree_with_counting_crossings(outlines: list[list[tuple[float, float]]]) -> None:
    flat = [[value for point in outline for value in point] for outline in outlines]
    areas = [100.0 - i for i in range(len(flat))]
    parsed = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}],
        "annotations": [thing(1, 18, outline=[o], area=a) for o, a in zip(flat, areas, strict=True)],
        "categories": CATEGORIES,
    }
    parsed = json.loads(json.dumps(parsed), object_hook=packed_outlines)
    listed = images_of(parsed, Path("x"))
    _, places = categories_of(parsed, Path("x"))
    objects = objects_of(parsed, listed, {"a.jpg": 0}, places)
    truth = object_truth(objects, objects.of_image.array(0), np.array([80, 60]), grid())
    x, y = np.meshgrid((np.arange(320) + 0.5) / 4, (np.arange(240) + 0.5) / 4)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    owner = np.full(len(points), -1)
    for number, outline in enumerate(outlines):
        owner[inside(points, np.array(outline))] = number
    cells = owner.reshape(6, 40, 8, 40).transpose(0, 2, 1, 3).reshape(48, -1)
    for patch in range(48):
        shares = np.array([(cells[patch] == number).mean() for number in range(len(outlines))])
        best = int(truth.objects[patch])
        shown = shares[best] if best >= 0 else 1 - shares.max()
        assert shown > 0.3  # within what the drawing rounds at edges


def test_flaws_of_real_files(tmp_path: Path) -> None:
    flawed = [
        thing(1, 1, [10, 10, 0, 5]),
        thing(1, 18, [10, 10, -5, 5]),
        thing(1, 90, [0, 0, float("nan"), 5]),
        thing(99, 1, [0, 0, 80, 60]),  # no such picture
        thing(2, 7, [0, 0, 80, 60]),  # no such category
        thing(2, 1, ["a", 0, 5, 5], [[1, 2, 3, 4], [1, 2, 3, 4, 5], "x", 7, ["x"] * 6, [10**400] * 6]),
        thing(3, 1, [0, 0, 10, 10], [[0, 0, float("inf"), 0, 5, 5]], area=-4),
        thing(3, 18, [1e300, 0, 10**400, 10]),
    ]
    source = CocoSource(tmp_path, make(tmp_path, flawed))
    assert [source.read(i).labels for i in range(3)] == [(0, 1, 2), (0,), (0, 1)]
    assert (concepts(source, 0) == -1).all()
    assert (concepts(source, 1) == -1).all()
    assert np.argwhere(concepts(source, 2) >= 0).tolist() == [[0, 0]]


def test_one_file_under_two_ids_is_one_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "two", "file_name": "a.jpg"}]
    path = make(tmp_path, [thing(1, 1, [0, 0, 8, 8]), thing("two", 18, [0, 0, 4, 4])], images=images)
    source = CocoSource(tmp_path, path)
    assert len(source) == 1
    assert source.read(0).labels == (0, 1)
    found = concepts(source, 0, grid(2, 2, 8, 8))
    np.testing.assert_array_equal(found, [[1, 0], [0, 0]])
    images[1]["id"] = 1
    images[1]["file_name"] = "b.jpg"
    with pytest.raises(SourceError, match=r"image 1 two files: a\.jpg and b\.jpg"):
        CocoSource(tmp_path, make(tmp_path, [], images=images))


def test_missing_pictures(tmp_path: Path) -> None:
    path = make(tmp_path, [])
    (tmp_path / "001.jpg").unlink()
    source = CocoSource(tmp_path, path)
    with pytest.raises(ImageError, match=r"001\.jpg"):
        source.read(0)
    assert source.read(1).image.size == (WIDTH, HEIGHT)
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    with pytest.raises(SourceError, match=r"none of the 3 files.*elsewhere.*instances\.json"):
        CocoSource(empty, path)
    with pytest.raises(SourceError, match="there is no folder"):
        CocoSource(tmp_path / "nowhere", path)


def test_pictures_in_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "a.jpg")
    path = make(tmp_path, [], images=[{"id": 1, "file_name": "val/a.jpg"}])
    source = CocoSource(tmp_path, path)
    assert source.read(0).image_id == "val/a.jpg"
    assert source.read(0).image.size == (8, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ('{"images": [', "cut short"),
        ("[1, 2]", "no COCO file"),
        ('{"images": {}, "annotations": []}', "no COCO file"),
        ('{"images": [], "annotations": []}', "lists no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "without id or file_name"),
        ('{"images": [7], "annotations": [], "categories": []}', "without id or file_name"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}', "names no categories"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}',
            "without category_id",
        ),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [3]}', "without category_id"),
        ('{"images": [1], "annotations": [], "categories": [{"id": 1}]}', "without id or file_name"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=words) as caught:
        CocoSource(tmp_path, path)
    assert "odd.json" in str(caught.value)
    with pytest.raises(SourceError, match=r"odd\.json"):
        CocoSource(tmp_path, captions=path)


def test_no_annotations_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="an instances file, a captions file, or both"):
        CocoSource(tmp_path)
    with pytest.raises(SourceError, match="cannot read"):
        CocoSource(tmp_path, tmp_path / "nowhere.json")


def captions_file(folder: Path, captions: dict[int, list[str]]) -> Path:
    """A captions file; pictures are made too."""
    for i in captions:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{i:03}.jpg")
    path = folder / "captions.json"
    parsed = {
        "images": [{"id": i, "file_name": f"{i:03}.jpg"} for i in captions],
        "annotations": [{"image_id": i, "caption": text} for i, texts in captions.items() for text in texts],
    }
    path.write_text(json.dumps(parsed))
    return path


def test_words_of_captions_are_labels(tmp_path: Path) -> None:
    captions = {i: ["A man with an Umbrella.", "the man's dog-walk"] for i in range(1, 6)}
    captions[6] = ["A rare zebra of 2 umbrellas", "umbrella umbrella"]
    captions[7] = []
    source = CocoSource(tmp_path, captions=captions_file(tmp_path, captions))
    assert source.concepts == ()
    assert source.vocabulary == tuple(Label("word", word) for word in ("dog", "man", "umbrella", "walk"))
    assert source.read(0).labels == (0, 1, 2, 3)
    assert source.read(5).labels == (2,)
    assert source.read(6).labels == ()
    assert source.read(0).truth is None


def test_both_files_together(tmp_path: Path) -> None:
    captions = {i: ["a dog"] for i in range(1, 7)}
    captions_path = captions_file(tmp_path, captions)
    source = CocoSource(tmp_path, make(tmp_path, [thing(1, 90, [0, 0, 80, 60])]), captions_path)
    assert len(source) == 6
    assert [tuple(label) for label in source.vocabulary] == [
        ("category", "person"), ("category", "dog"), ("category", "toothbrush"), ("word", "dog"),
    ]  # fmt: skip
    assert source.read(0).labels == (2, 3)
    assert source.read(5).labels == (3,)
    assert source.read(2).truth is not None
    assert source.read(5).truth is None  # the instances file does not list it
    assert "instances.json and captions.json" in source.description


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["cat", "dog", "owl", "the", "ox"])), max_size=30), st.integers(0, 9000)
)
def test_kept_words_are_in_enough_pictures(pictures: list[list[str]], n_images: int) -> None:
    sets = [words_of([" ".join(words)]) for words in pictures]
    kept = kept_words(sets, n_images)
    for word in ("cat", "dog", "owl"):
        count = sum(word in words for words in pictures)
        assert (word in kept) == (count >= 5 and count >= n_images / 1000)
    assert set(kept) <= {"cat", "dog", "owl"}
    assert kept == sorted(kept)


def test_of_too_many_words_the_most_frequent_stay() -> None:
    names = ["".join(chr(97 + i // 26**k % 26) for k in (3, 2, 1, 0)) for i in range(5003)]
    pictures = [set(names) for _ in range(5)] + [{names[-1]}]
    kept = kept_words(pictures, 6)
    assert len(kept) == 5000
    assert names[-1] in kept
    assert set(names) - set(kept) == set(names[-4:-1])
