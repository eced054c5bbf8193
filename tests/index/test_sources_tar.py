"""Tar shards: samples, labels, random access, damage, and patterns of names."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ImageError, SourceError
from index.sources import TarSource, list_hash, open_origin, read_class_names
from index.sources.patterns import expand_braces, tar_paths
from index.sources.tar_files import members_of


def png(shade: int) -> bytes:
    """A small grey picture."""
    stream = io.BytesIO()
    Image.new("L", (3, 2), shade).save(stream, "PNG")
    return stream.getvalue()


def shard(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """Write a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shades(source: TarSource) -> dict[str, int]:
    """The grey of each picture."""
    pictures = [source.read(number) for number in range(len(source))]
    return {picture.image_id: picture.image.getpixel((0, 0))[0] for picture in pictures}


def labels(source: TarSource) -> dict[str, list[str]]:
    """The labels of each picture."""
    pictures = [source.read(number) for number in range(len(source))]
    return {p.image_id: [source.vocabulary[label].name for label in p.labels] for p in pictures}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_pictures_are_found_and_read_by_place(tmp_path: Path, form: int) -> None:
    long = "deep/" + "d" * 90 + "/" + "x" * 90 + ".png"
    shard(tmp_path / "a-1.tar", [("2.png", png(20)), ("2.cls", b"1"), ("v1.0/1.png", png(10))], form)
    shard(tmp_path / "a-0.tar", [("9.input.PNG", png(90)), ("9.txt", b"a cat"), (long, png(5))], form)
    source = TarSource([str(tmp_path / "a-{0..1}.tar")])
    expected = {
        "a-0.tar/9.input.PNG": 90,
        f"a-0.tar/{long}": 5,
        "a-1.tar/2.png": 20,
        "a-1.tar/v1.0/1.png": 10,
    }
    assert shades(source) == expected
    assert list(shades(source)) == sorted(expected)
    assert source.list_hash() == list_hash(expected)
    assert shades(pickle.loads(pickle.dumps(source))) == expected
    for number, shade in enumerate(expected.values()):
        assert source.origin(number).startswith(f"tar:{tmp_path}/a-")
        again = open_origin(source.origin(number))
        assert again.getpixel((0, 0))[0] == shade


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(names, st.binary(max_size=1500))), st.sampled_from([0, 1, 2]))
def test_members_are_where_python_finds_them(tmp_path_factory, members, form: int) -> None:
    path = tmp_path_factory.mktemp("members") / "s.tar"
    try:
        shard(path, members, form)
    except ValueError:  # a name that is too long for the oldest format
        return
    with tarfile.open(path) as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar.getmembers()]
    assert [tuple(member) for member in members_of(path)] == expected
    data = path.read_bytes()
    assert [data[m.offset : m.offset + m.size] for m in members_of(path)] == [data for _, data in members]


def test_broken_headers_are_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", png(2))])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        start = tar.getmembers()[1].offset
    for place in (0, 100, 124, 130, 148, 156, 257, 345):
        for value in (b"9", b"\xff", b"z"):
            path.write_bytes(whole[: start + place] + value + whole[start + place + 1 :])
            with pytest.raises(SourceError, match="damaged or cut short"):
                list(members_of(path))


def test_a_fork_reads_for_itself(tmp_path: Path) -> None:
    source = TarSource([str(shard(tmp_path / "a.tar", [(f"{i}.png", png(i)) for i in range(9)]))])
    expected = shades(source)
    child = os.fork()
    if child == 0:
        os._exit(0 if shades(source) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shades(source) == expected


def test_many_shards_need_few_open_files(tmp_path: Path) -> None:
    for i in range(40):
        shard(tmp_path / f"{i:02}.tar", [("a.png", png(i))])
    source = TarSource([str(tmp_path)])
    before = len(os.listdir("/proc/self/fd"))
    assert list(shades(source).values()) == list(range(40))
    assert len(os.listdir("/proc/self/fd")) <= before + 16
    source._reader.close()
    assert source.read(3).image.getpixel((0, 0))[0] == 3


def test_classes(tmp_path: Path) -> None:
    members = [
        ("a.png", png(1)), ("a.cls", b"10\n"),
        ("b.cls", b"2"), ("b.png", png(2)), ("b.json", b'{"label": 7}'),
        ("c.json", json.dumps({"label": 2, "id": 5}).encode()), ("c.png", png(3)),
        ("d.png", png(4)), ("d.json", b"[broken"),
        ("e.png", png(5)), ("e.json", b'{"class": "cat"}'),
        ("alone.cls", b"3"),
        ("f.seg.png", png(0)), ("f.jpg", png(6)), ("f.cls", b"10"),
    ]  # fmt: skip
    path = shard(tmp_path / "s.tar", members)
    found = labels(TarSource([str(path)]))
    assert found == {
        "s.tar/a.png": ["10"], "s.tar/b.png": ["2"], "s.tar/c.png": ["2"], "s.tar/d.png": [],
        "s.tar/e.png": ["cat"], "s.tar/f.jpg": ["10"],
    }  # fmt: skip
    (tmp_path / "names.txt").write_text("\n".join(f"name of {i}" for i in range(5)))
    names = read_class_names(tmp_path / "names.txt")
    named = TarSource([str(path)], names)
    assert labels(named)["s.tar/b.png"] == ["name of 2"]
    assert labels(named)["s.tar/a.png"] == ["10"]
    assert [label.name for label in named.vocabulary] == ["name of 2", "10", "cat"]


def test_shards_in_several_folders_keep_apart(tmp_path: Path) -> None:
    for place in ("x", "y/z"):
        shard(tmp_path / place / "0.tar", [("a.png", png(len(place)))])
    assert shades(TarSource([str(tmp_path)])) == {"x/0.tar/a.png": 1, "y/z/0.tar/a.png": 3}
    one = str(tmp_path / "x" / "0.tar")
    assert shades(TarSource([one, str(tmp_path / "x")])) == {"0.tar/a.png": 1}


def test_a_damaged_picture_is_one_picture(tmp_path: Path) -> None:
    source = TarSource([str(shard(tmp_path / "s.tar", [("a.png", b"no picture"), ("b.png", png(7))]))])
    with pytest.raises(ImageError, match=r"s\.tar/a\.png"):
        source.read(0)
    assert source.read(1).image.getpixel((0, 0))[0] == 7


@settings(deadline=None)
@given(st.integers(1, 200), st.booleans())
def test_a_cut_shard_is_refused_wherever_it_is_cut(tmp_path_factory, cut: int, large: bool) -> None:
    tmp_path = tmp_path_factory.mktemp("cut")
    noise = np.random.default_rng(cut).bytes(3000)
    path = shard(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", noise if large else png(2))])
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
    os.truncate(path, max(1, end - end * (cut - 1) // 200))
    with pytest.raises(SourceError, match=r"s\.tar is damaged or cut short"):
        TarSource([str(path)])


def test_garbage_between_members_is_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", png(2))])
    with tarfile.open(path) as tar:
        place = tar.getmembers()[1].offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 512)
    with pytest.raises(SourceError, match="damaged or cut short"):
        TarSource([str(path)])


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_packed_shards_are_refused(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "s.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(SourceError, match=r"is packed with .*unpack it"):
        TarSource([str(tmp_path / "s.tar")])


def test_vanished_shards(tmp_path: Path) -> None:
    source = TarSource([str(shard(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", png(2))]))])
    os.truncate(tmp_path / "s.tar", 600)
    with pytest.raises(SourceError, match="has become shorter"):
        source.read(1)
    source._reader.close()
    (tmp_path / "s.tar").unlink()
    with pytest.raises(SourceError, match="run the same command again"):
        source.read(0)
    with pytest.raises(ImageError, match="is not there"):
        open_origin(source.origin(0))


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="hold no pictures"):
        TarSource([str(shard(tmp_path / "s.tar", [("a.txt", b"x"), (".png", png(1))]))])
    with pytest.raises(SourceError, match="holds two files"):
        TarSource([str(shard(tmp_path / "s.tar", [("a.png", png(1)), ("b.png", png(1)), ("a.png", png(2))]))])
    (tmp_path / "s.tar").write_text("no tar at all")
    with pytest.raises(SourceError, match="damaged"):
        TarSource([str(tmp_path / "s.tar")])
    (tmp_path / "s.tar").write_bytes(b"")
    with pytest.raises(SourceError, match="damaged"):
        TarSource([str(tmp_path / "s.tar")])
    for missing in ("nowhere.tar", "x*.tar", "t-{00..01}.tar", "."):
        (tmp_path / "s.tar").unlink(missing_ok=True)
        with pytest.raises(SourceError, match="there is no tar file"):
            TarSource([str(tmp_path / missing)])


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5))
def test_braces_count_with_leading_zeros(first: int, more: int, width: int) -> None:
    pattern = f"a{{{first:0{width}}..{first + more:0{width}}}}.tar"
    wide = width if str(f"{first:0{width}}").startswith("0") else 0
    assert list(expand_braces(pattern)) == [f"a{i:0{wide}}.tar" for i in range(first, first + more + 1)]


def test_braces() -> None:
    assert list(expand_braces("{a,b}-{1..2}")) == ["a-1", "a-2", "b-1", "b-2"]
    assert list(expand_braces("plain")) == ["plain"]
    for wrong in ("{3..1}", "{0..99999999}"):
        with pytest.raises(SourceError):
            list(expand_braces(wrong))


def test_patterns_name_each_file_once(tmp_path: Path) -> None:
    for name in ("a[1].tar", "b.tar", "deep/c.tar", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    all_of_them = [tmp_path / "a[1].tar", tmp_path / "b.tar", tmp_path / "deep" / "c.tar"]
    assert tar_paths([str(tmp_path)]) == all_of_them
    assert tar_paths([str(tmp_path / "*.tar"), str(tmp_path / "b.tar")]) == all_of_them[:2]
    assert tar_paths([str(tmp_path / "a[1].tar")]) == all_of_them[:1]
    assert tar_paths([str(tmp_path / "**" / "*.tar")]) == all_of_them
