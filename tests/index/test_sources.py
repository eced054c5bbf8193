"""Sources: order, stable ids, ground truth for any grid, and folders that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.errors import SourceError
from explorer.world import CONCEPTS, draw
from index.sources import FolderSource, Picture, SceneSource, list_hash, scene_truth


def test_folders_are_walked_in_the_order_of_the_ids(tmp_path: Path) -> None:
    for name in ("b/z.png", "b.png", "a/deep/x.jpeg", "B.webp", "10.png", "9.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    source = FolderSource(tmp_path)
    assert source.ids() == ["10.png", "9.png", "B.webp", "a/deep/x.jpeg", "b.png", "b/z.png"]
    assert [item.image_id for item in source] == source.ids()
    assert [item.origin for item in source][3] == str(tmp_path / "a" / "deep" / "x.jpeg")
    assert FolderSource(tmp_path, limit=2).ids() == ["10.png", "9.png"]


def test_names_that_are_no_text_are_written_out(tmp_path: Path) -> None:
    try:
        Image.new("RGB", (4, 4)).save(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (item,) = FolderSource(tmp_path)
    assert isinstance(item, Picture)
    assert item.image_id == "caf\\xe9.png"


def test_a_vanished_picture_is_skipped(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    source = FolderSource(tmp_path)
    (tmp_path / "a.png").unlink()
    (item,) = source
    assert not isinstance(item, Picture)
    assert "a.png" in item.reason


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        FolderSource(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match="there is no folder"):
        FolderSource(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="holds no pictures"):
        FolderSource(tmp_path)


def test_scenes_are_named_by_their_seed() -> None:
    source = SceneSource(3, seed=5)
    items = list(source)
    assert source.ids() == ["scene:ordinary:5", "scene:ordinary:6", "scene:ordinary:7"]
    assert [item.image_id for item in items] == source.ids()
    assert source.concepts == CONCEPTS
    assert items[1].image.tobytes() == draw(6).image.tobytes()
    assert set(items[1].labels) == {thing.concept for thing in draw(6).objects if thing.visible >= 0.05}
    assert SceneSource(30, limit=2).ids() == ["scene:ordinary:0", "scene:ordinary:1"]
    for wrong in ((0, 0), (3, -1)):
        with pytest.raises(SourceError):
            SceneSource(*wrong)


def test_truth_fits_any_grid() -> None:
    for seed in range(5):
        scene = draw(seed)
        truth = scene_truth(scene, 14, 14)
        np.testing.assert_array_equal(truth.concepts, scene.patch_concepts(14, 14).ravel())
        np.testing.assert_array_equal(truth.objects, scene.patch_objects(14, 14).ravel())
        for rows, cols in ((24, 24), (5, 9), (1, 1)):
            other = scene_truth(scene, rows, cols)
            assert other.objects.shape == other.concepts.shape == (rows * cols,)
            shown = other.objects >= 0
            kinds = np.array([CONCEPTS.index(thing.concept) for thing in scene.objects])
            np.testing.assert_array_equal(other.concepts[shown], kinds[other.objects[shown]])
        fine = scene_truth(scene, 24, 24).objects.reshape(24, 24)
        assert abs((fine >= 0).mean() - (truth.objects >= 0).mean()) < 0.12


def test_list_hash_does_not_depend_on_order() -> None:
    assert list_hash(["b", "a"]) == list_hash(["a", "b"])
    assert len({list_hash(ids) for ids in (["a"], ["b"], ["a", "b"], ["ab"], [])}) == 5
