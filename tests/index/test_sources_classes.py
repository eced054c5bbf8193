"""Class folders, files of class names, and lists of paths."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ImageError, SourceError
from index.sources import ImageFolderSource, Label, Source, TextListSource, read_class_names
from index.sources.class_names import unique_names

TENCH, CRANE, OTHER_CRANE = "n01440764", "n02012849", "n03126707"


def fill(folder: Path, *names: str) -> Path:
    """Write one small picture per name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def write(path: Path, text: str | bytes) -> Path:
    """A file with this content."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def shown(source: Source) -> dict[str, list[str]]:
    """The labels of each picture."""
    pictures = [source.read(number) for number in range(len(source))]
    return {p.image_id: [source.vocabulary[label].name for label in p.labels] for p in pictures}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, one with folders of its own, and a picture beside them."""
    names = (f"{CRANE}/a.png", f"{TENCH}/deep/b.png", f"{TENCH}/a.png", f"{OTHER_CRANE}/z.png", "alone.png")
    return fill(tmp_path / "train", *names)


def test_the_first_folder_is_the_class(folder: Path) -> None:
    source = ImageFolderSource(folder)
    assert source.vocabulary == tuple(Label("class", name) for name in (TENCH, CRANE, OTHER_CRANE))
    assert shown(source) == {
        "alone.png": [],
        f"{TENCH}/a.png": [TENCH],
        f"{TENCH}/deep/b.png": [TENCH],
        f"{CRANE}/a.png": [CRANE],
        f"{OTHER_CRANE}/z.png": [OTHER_CRANE],
    }
    assert source.concepts == ()
    assert "3 class folders of train" in source.description
    assert shown(pickle.loads(pickle.dumps(source))) == shown(source)


LAYOUTS = {
    "LOC_synset_mapping.txt": f"{TENCH} tench, Tinca tinca\n{CRANE} crane\n{OTHER_CRANE} crane\n",
    "imagenet_class_index.json": json.dumps(
        {"0": [TENCH, "tench, Tinca tinca"], "1": [CRANE, "crane"], "2": [OTHER_CRANE, "crane"]}
    ),
    "by_key.json": json.dumps({TENCH: "tench, Tinca tinca", CRANE: ["crane", "bird"], OTHER_CRANE: "crane"}),
    "tabs.tsv": f"\ufeff# wnid\tname\r\n{TENCH}\ttench, Tinca tinca\r\n\r\n{CRANE}\tcrane\n"
    f"{OTHER_CRANE}\tcrane",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_of_classes_in_many_layouts(folder: Path, tmp_path: Path, name: str) -> None:
    names = read_class_names(write(tmp_path / name, LAYOUTS[name]))
    source = ImageFolderSource(folder, names)
    assert [label.name for label in source.vocabulary] == [
        "tench, Tinca tinca", f"crane ({CRANE})", f"crane ({OTHER_CRANE})",
    ]  # fmt: skip
    if "by_key" not in name:
        assert [names.name(str(number)) for number in range(4)] == [
            "tench, Tinca tinca",
            "crane",
            "crane",
            None,
        ]


def test_classes_without_a_name_keep_their_folders(folder: Path, tmp_path: Path) -> None:
    names = read_class_names(write(tmp_path / "names.txt", f"{CRANE} crane\nn00000001 other"))
    source = ImageFolderSource(folder, names)
    assert [label.name for label in source.vocabulary] == [TENCH, "crane", OTHER_CRANE]
    with pytest.raises(SourceError, match=rf"names none of the 3 folders.*{TENCH}"):
        ImageFolderSource(folder, read_class_names(write(tmp_path / "names.txt", "n00000001 other")))


def test_plain_lists_name_numbers(tmp_path: Path) -> None:
    plain = read_class_names(write(tmp_path / "names.txt", "tench\ngreat white shark\ngreat grey owl\n"))
    assert [plain.name(key) for key in ("0", "1", "2", "3", "great")] == [
        "tench", "great white shark", "great grey owl", None, None,
    ]  # fmt: skip
    listed = read_class_names(write(tmp_path / "names.json", '["tench", "great white shark"]'))
    assert listed.name("1") == "great white shark"
    numbered = read_class_names(write(tmp_path / "names.txt", "7 tench\n3 great white shark"))
    assert (numbered.name("7"), numbered.name("3"), numbered.name("0")) == (
        "tench",
        "great white shark",
        None,
    )
    words = read_class_names(write(tmp_path / "names.txt", "cats Cat\ndogs Big dog"))
    assert (words.name("dogs"), words.name("1")) == ("Big dog", "dogs Big dog")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "no text"),
        ("{", "damaged JSON"),
        ("{}", "names no class"),
        ('{"images": [{"id": 1}], "annotations": []}', "no file of class names"),
        ('{"0": 5}', "no file of class names"),
        ('[["a"], ""]', "no file of class names"),
        ("a\0b", "no file of class names"),
        (f"{TENCH} tench\nfish\n", "'fish' has no key and name"),
        (f"{TENCH} tench\n{TENCH} crane\n", "two names"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        read_class_names(write(tmp_path / "names.txt", content))
    assert "names.txt" in str(caught.value)


def test_missing_files_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read the class names"):
        read_class_names(tmp_path / "nowhere.txt")
    with pytest.raises(SourceError, match=r"no class folders.*--images"):
        ImageFolderSource(folder / CRANE)
    with pytest.raises(SourceError, match="there is no folder"):
        ImageFolderSource(tmp_path / "nowhere")


@settings(deadline=None)
@given(st.lists(st.text("abc", min_size=1), unique=True))
def test_names_stay_different(keys: list[str]) -> None:
    names = unique_names(keys, None)
    assert names == keys
    assert len(set(names)) == len(keys)


def test_lists_keep_paths_as_they_are_written(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a/x y.png", "c.png")
    other = fill(tmp_path / "far", "z.png") / "z.png"
    path = write(
        tmp_path / "list.txt",
        f"\ufeff# comment\n\nc.png\tcat\tdog\r\n{other}\na/x y.png\tdog\nb.png\n  \nc.png\tbird\nc.png",
    )
    source = TextListSource(path)
    found = shown(source)
    assert list(found) == sorted([str(other), "a/x y.png", "b.png", "c.png"])
    assert found["c.png"] == ["bird", "cat", "dog"]
    assert found["a/x y.png"] == ["dog"]
    assert found["b.png"] == []
    assert {label.kind for label in source.vocabulary} == {"class"}
    assert source.origin(len(source) - 1) == str(tmp_path / "c.png")
    assert source.origin(0) == str(other)
    assert shown(pickle.loads(pickle.dumps(source))) == found


def test_labels_of_lists_may_have_names(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    path = write(tmp_path / "list.txt", "a.png\t0\nb.png\t1")
    names = read_class_names(write(tmp_path / "names.txt", "tench\ngoldfish"))
    assert shown(TextListSource(path, names)) == {"a.png": ["tench"], "b.png": ["goldfish"]}
    write(path, "a.png\tcat\nb.png")
    with pytest.raises(SourceError, match=r"names none of the labels.*'cat'"):
        TextListSource(path, names)


def test_lists_of_missing_files(tmp_path: Path) -> None:
    fill(tmp_path, "b.png")
    path = write(tmp_path / "list.txt", "a.png\nb.png")
    source = TextListSource(path)
    with pytest.raises(ImageError, match=r"a\.png"):
        source.read(0)
    assert source.read(1).image.size == (4, 4)
    (tmp_path / "b.png").unlink()
    with pytest.raises(SourceError, match="is gone"):
        source.read(1)
    with pytest.raises(SourceError, match=r"none of the 2 files of the list"):
        TextListSource(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no path"), (b"# a\n \n", "holds no path"), (b"\tcat\n", "line 1"), (b"a\nb\0c", "line 2")],
)
def test_other_lists_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        TextListSource(write(tmp_path / "list.txt", content))
    with pytest.raises(SourceError, match="cannot read the list"):
        TextListSource(tmp_path / "nowhere.txt")
