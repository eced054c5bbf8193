"""From arguments to a source, and from an origin back to its picture."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.world import draw
from index.sources import FolderSource, Source, add_arguments, open_origin, open_source


def opened(*words: str | Path) -> Source:
    """The source of a command line."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return open_source(parser.parse_args([str(word) for word in words]))


def ids(source: Source) -> list[str]:
    """All ids of a source."""
    return [source.image_id(number) for number in range(len(source))]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Files for every kind of source."""
    (tmp_path / "photos" / "n01440764").mkdir(parents=True)
    for name in ("n01440764/a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name)
    (tmp_path / "list.txt").write_text("photos/b.png\nphotos/c.png\n")
    (tmp_path / "names.txt").write_text("n01440764 tench\n")
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("bc")]
    caption = {"image_id": 0, "caption": "a dog"}
    thing = {"image_id": 0, "category_id": 1, "bbox": [0, 0, 2, 2]}
    categories = [{"id": 1, "name": "dog"}]
    for name, annotation in (("captions", caption), ("instances", thing)):
        parsed = {"images": images, "annotations": [annotation], "categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(parsed))
    with tarfile.open(tmp_path / "s-0.tar", "w") as tar:
        tar.add(tmp_path / "photos" / "b.png", "b.png")
    return tmp_path


def test_every_kind_opens(home: Path) -> None:
    photos = home / "photos"
    assert ids(opened("--images", photos)) == ["b.png", "c.png", "n01440764/a.png"]
    named = opened("--imagenet", photos, "--class-names", home / "names.txt")
    assert [label.name for label in named.vocabulary] == ["tench"]
    annotated = opened("--coco-images", photos, "--coco-instances", home / "instances.json")
    assert annotated.concepts == ("dog",)
    told = opened("--coco-images", photos, "--coco-captions", home / "captions.json")
    assert ids(told) == ids(annotated) == ["b.png", "c.png"]
    assert ids(opened("--list", home / "list.txt")) == ["photos/b.png", "photos/c.png"]
    assert ids(opened("--tars", home / "s-{0..0}.tar")) == ["s-0.tar/b.png"]
    assert ids(opened("--scenes", 2, "--seed", 4)) == ["scene:ordinary:4", "scene:ordinary:5"]


def test_limits(home: Path) -> None:
    assert ids(opened("--images", home / "photos", "--limit", 2)) == ["b.png", "c.png"]
    assert ids(opened("--scenes", 9, "--limit", 3, "--spread")) == [f"scene:ordinary:{i}" for i in (0, 3, 6)]
    assert len(opened("--scenes", 9, "--limit", 30)) == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--scenes 3 --split train", "--split goes with --hf, not with --scenes"),
        ("--images x --seed 3", "--seed goes with --scenes, not with --images"),
        ("--images x --class-names y", "--class-names goes with --imagenet or --list or --tars or --hf"),
        ("--list x --coco-captions y", "--coco-captions goes with --coco-images"),
        ("--coco-images x", "--coco-images needs --coco-instances FILE or --coco-captions FILE"),
        ("--scenes 3 --spread", "--spread needs --limit"),
        ("--scenes 3 --seed -1", "below 0"),
        ("--images nowhere", "there is no folder nowhere"),
    ],
)
def test_what_does_not_go_together(words: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(*words.split())


@pytest.mark.parametrize(
    "words", ["", "--scenes 0", "--scenes 3 --images x", "--scenes 3 --limit 0", "--scenes x"]
)
def test_wrong_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        opened(*words.split())
    assert "usage" in capsys.readouterr().err


def test_data_sets_ask_for_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install -r requirements-extras\.txt"):
        opened("--hf", "nowhere/nothing")


def test_files_and_scenes_open_again(home: Path) -> None:
    source = opened("--images", home / "photos")
    for number in range(3):
        assert open_origin(source.origin(number)).tobytes() == source.read(number).image.tobytes()
    assert open_origin("scene:counterfactual:5").tobytes() == draw(5, "counterfactual").image.tobytes()


def test_names_that_are_no_text_open_again(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / raw)
    origin = FolderSource(tmp_path).origin(0)
    assert origin.endswith("caf\\xe9.png")
    assert open_origin(origin).getpixel((0, 0)) == (255, 0, 0)
    shard = tmp_path / "a!b.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(tmp_path / raw, "x!" + raw)
    source = opened("--tars", shard)
    assert source.origin(0) == f"tar:{shard}!x!caf\\xe9.png"
    assert open_origin(source.origin(0)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "/nowhere/a.png",
        "scene:ordinary:x",
        "scene:odd:3",
        "scene:5",
        "tar:/nowhere.tar!a.png",
        "tar:",
        "hf:x",
    ],
)
def test_origins_of_nothing(origin: str) -> None:
    with pytest.raises(ImageError):
        open_origin(origin)


def test_a_member_that_is_gone(home: Path) -> None:
    with pytest.raises(ImageError, match=r"holds no 'z\.png'"):
        open_origin(f"tar:{home}/s-0.tar!z.png")
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    with tarfile.open(home / "s-0.tar", "w") as tar:
        info = tarfile.TarInfo("z.png")
        info.size = len(stream.getvalue())
        tar.addfile(info, io.BytesIO(stream.getvalue()))
    assert open_origin(f"tar:{home}/s-0.tar!z.png").size == (2, 2)
