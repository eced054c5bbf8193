"""Folders, scenes and parts of them: order, stable ids, ground truth for any grid, vanished files."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.records import Box, Grid
from explorer.world import CONCEPTS, draw
from index.sources import (
    FolderSource,
    SceneSource,
    Source,
    Subset,
    limited,
    list_hash,
    scene_truth,
)
from index.sources.packed import PackedNames, PackedRows
from index.sources.truth import decided, sampled


def ids(source: Source) -> list[str]:
    """All ids of a source."""
    return [source.image_id(number) for number in range(len(source))]


def fill(folder: Path, *names: str) -> Path:
    """Write one small picture per name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


names_of_files = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.just("caf\udce9"))


@settings(deadline=None)
@given(names_of_files)
def test_packed_names_are_a_list_of_names(names: list[str]) -> None:
    packed = PackedNames(iter(names))
    assert list(packed) == names
    assert [packed[i] for i in range(-len(names), len(names))] == names + names
    assert list(packed[1::2]) == names[1::2]
    again = pickle.loads(pickle.dumps(packed))
    assert list(again) == names
    with pytest.raises(IndexError):
        packed[len(names)]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 99))))
def test_packed_rows_are_rows(rows: list[list[int]]) -> None:
    assert [*PackedRows.of(rows)] == [tuple(row) for row in rows]
    pairs = [(i, value) for i, row in enumerate(rows) for value in row]
    pairs.sort(key=lambda pair: pair[1] % 7)  # scattered over the rows
    row, value = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    grouped = PackedRows.grouped(row, value, len(rows))
    assert [sorted(found) for found in grouped] == [sorted(row) for row in rows]


def test_a_million_names_stay_small() -> None:
    packed = PackedNames(f"n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG" for i in range(100_000))
    assert packed.nbytes < 100_000 * 40
    assert len(pickle.dumps(packed)) < 100_000 * 41


def test_folders_are_walked_in_the_order_of_the_ids(tmp_path: Path) -> None:
    fill(tmp_path, "b/z.png", "b.png", "a/deep/x.jpeg", "B.webp", "10.png", "9.png", ".git/x.png", "ä.png")
    fill(tmp_path, "\U0001f600.png", "\uffee.png")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    source = FolderSource(tmp_path)
    found = ids(source)
    assert found[:6] == ["10.png", "9.png", "B.webp", "a/deep/x.jpeg", "b.png", "b/z.png"]
    assert found == sorted(found)
    assert source.origin(3) == str(tmp_path / "a" / "deep" / "x.jpeg")
    assert source.list_hash() == list_hash(reversed(found))
    for number, image_id in enumerate(found):
        picture = source.read(number)
        assert (picture.number, picture.image_id, picture.labels) == (number, image_id, ())
        assert picture.origin == source.origin(number)
    assert ids(pickle.loads(pickle.dumps(source))) == found


def test_a_folder_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a/b.png", "c.png")
    monkeypatch.chdir(tmp_path)
    source = FolderSource(".")
    monkeypatch.chdir("/")
    assert ids(source) == ["a/b.png", "c.png"]
    assert source.origin(0) == str(tmp_path / "a" / "b.png")
    assert tmp_path.name in source.description
    assert source.read(1).image.size == (4, 4)


def test_names_that_are_no_text_are_written_out(tmp_path: Path) -> None:
    fill(tmp_path, os.fsdecode(b"caf\xe9.png"))
    source = FolderSource(tmp_path)
    assert ids(source) == ["caf\\xe9.png"]
    assert source.read(0).image.size == (4, 4)
    fill(tmp_path, "caf\\xe9.png")
    with pytest.raises(SourceError, match="rename one"):
        FolderSource(tmp_path)


def test_a_missing_file_is_not_a_missing_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", *(f"{i}.png" for i in range(9)))
    source = FolderSource(folder)
    (folder / "0.png").unlink()
    (folder / "7.png").unlink()
    for number in (0, 7):
        with pytest.raises(ImageError, match=f"{number}.png"):
            source.read(number)
    assert source.read(8).image_id == "8.png"
    folder.rename(tmp_path / "elsewhere")
    for number in (0, 3, 8):
        with pytest.raises(SourceError, match=r"photos is gone.*run the same command again"):
            source.read(number)
    folder.mkdir()  # an empty mount point is as good as none
    with pytest.raises(SourceError, match="is gone"):
        source.read(3)
    shutil.rmtree(folder)
    (tmp_path / "elsewhere").rename(folder)
    assert source.read(3).image_id == "3.png"


def test_a_machine_in_trouble_is_no_damaged_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(fill(tmp_path, "a.png", "b.png"))

    def refuse(path: Path, mode: str) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match="Too many open files"):
        source.read(0)


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        FolderSource(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"notes.txt is a file, not a folder"):
        FolderSource(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="holds no pictures"):
        FolderSource(tmp_path)


def test_scenes_are_named_by_their_seed() -> None:
    source = SceneSource(3, seed=5)
    assert ids(source) == ["scene:ordinary:5", "scene:ordinary:6", "scene:ordinary:7"]
    assert source.concepts == CONCEPTS
    assert [(label.kind, label.name) for label in source.vocabulary] == [("concept", c) for c in CONCEPTS]
    picture = source.read(1)
    assert picture.image.tobytes() == draw(6).image.tobytes()
    assert picture.labels == tuple(sorted(picture.labels))
    shown = {source.vocabulary[label].name for label in picture.labels}
    assert shown == {thing.concept for thing in draw(6).objects if thing.visible >= 0.05}
    for wrong in ((0, 0), (3, -1), (3, 0, "odd")):
        with pytest.raises(SourceError):
            SceneSource(*wrong)


def whole(rows: int, cols: int, side: int = 112) -> Grid:
    """A grid over a whole square picture."""
    return Grid(rows, cols, side, side, Box(0, 0, side, side))


def test_scene_truth_fits_any_grid() -> None:
    for seed in range(5):
        scene = draw(seed)
        truth = scene_truth(scene, whole(14, 14))
        np.testing.assert_array_equal(truth.concepts, scene.patch_concepts(14, 14).ravel())
        np.testing.assert_array_equal(truth.objects, scene.patch_objects(14, 14).ravel())
        for rows, cols in ((24, 24), (5, 9), (1, 1)):
            other = scene_truth(scene, whole(rows, cols))
            assert other.objects.shape == other.concepts.shape == (rows * cols,)
            shown = other.objects >= 0
            kinds = np.array([CONCEPTS.index(thing.concept) for thing in scene.objects])
            np.testing.assert_array_equal(other.concepts[shown], kinds[other.objects[shown]])
        fine = scene_truth(scene, whole(24, 24)).objects.reshape(24, 24)
        assert abs((fine >= 0).mean() - (truth.objects >= 0).mean()) < 0.12


def test_a_crop_of_the_grid_is_a_crop_of_the_truth() -> None:
    scene = draw(3)
    everything = scene_truth(scene, whole(14, 14)).objects.reshape(14, 14)
    crop = scene_truth(scene, Grid(10, 8, 112, 112, Box(16, 24, 80, 104)))
    np.testing.assert_array_equal(crop.objects.reshape(10, 8), everything[3:13, 2:10])
    padded = scene_truth(scene, Grid(16, 18, 112, 112, Box(-16, -8, 128, 120))).objects.reshape(16, 18)
    np.testing.assert_array_equal(padded[1:15, 2:16], everything)
    padded[1:15, 2:16] = -1
    assert (padded == -1).all()


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.integers(0, 4), st.randoms())
def test_patches_show_what_covers_half_of_them(rows, cols, pixels, n_objects, random) -> None:
    choices = range(-2, n_objects)
    owner = np.array([[random.choice(choices) for _ in range(cols * pixels)] for _ in range(rows * pixels)])
    height, width = owner.shape
    concepts = np.array([random.randrange(9) for _ in range(n_objects)], dtype=np.int64)
    grid = Grid(rows, cols, width, height, Box(0, 0, width, height))
    truth = decided(sampled(owner, grid), rows, cols, concepts)
    for row in range(rows):
        for col in range(cols):
            cell = (
                owner[row * pixels : (row + 1) * pixels, col * pixels : (col + 1) * pixels].ravel().tolist()
            )
            order = [*range(n_objects), -2]
            shares = [cell.count(kind) / len(cell) for kind in order]
            best = order[int(np.argmax(shares))] if max(shares) >= 0.5 else -1
            place = row * cols + col
            assert truth.objects[place] == max(best, -1)
            assert truth.concepts[place] == (concepts[best] if best >= 0 else best)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_a_part_of_a_source(count: int, total: int, spread: bool) -> None:
    source = SceneSource(total, seed=9)
    part = limited(source, count, spread)
    if count >= total:
        assert part is source
        return
    assert len(part) == count == len(set(ids(part)))
    assert part.list_hash() == list_hash(ids(part)) != source.list_hash()
    places = [ids(source).index(image_id) for image_id in ids(part)]
    assert places == sorted(places)
    assert places[0] == 0
    if not spread:
        assert places == list(range(count))
    gaps = np.diff([*places, total])
    assert not spread or gaps.max() - gaps.min() <= 1


def test_a_part_numbers_its_pictures_anew() -> None:
    part = Subset(SceneSource(10), 4, spread=True)
    picture = part.read(3)
    assert (picture.number, picture.image_id) == (3, "scene:ordinary:7") == (3, part.origin(3))
    assert part.concepts == CONCEPTS
    assert "4 evenly spaced of 10" in part.description
    assert limited(part, None) is part
    for wrong in (0, 11):
        with pytest.raises(SourceError):
            Subset(SceneSource(10), wrong)
    with pytest.raises(IndexError):
        part.read(4)


def test_list_hash_does_not_depend_on_order() -> None:
    assert list_hash(["b", "a"]) == list_hash(["a", "b"])
    assert len({list_hash(ids) for ids in (["a"], ["b"], ["a", "b"], ["ab"], [])}) == 5
