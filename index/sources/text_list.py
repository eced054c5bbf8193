"""Pictures that a text file lists, one path per line, with labels if wanted. Knows files."""

from __future__ import annotations

from pathlib import Path

from explorer.errors import SourceError
from index.sources.base import Label
from index.sources.class_names import ClassNames, unique_names
from index.sources.files import FileSource, in_order, text_of
from index.sources.packed import PackedRows


class TextListSource(FileSource):
    """Pictures of a list: a path per line, relative to the list's folder or absolute.

    After a TAB may stand a label, after further TABs more of them. Blank lines and lines that begin with
    # are skipped. The pictures' ids are the paths as written, their order is that of the ids. A path that
    comes twice is one picture with the labels of both lines. names: what the labels are called.
    Raises SourceError for a file that cannot be read, holds no path, or only paths of missing files.
    """

    def __init__(self, path: str | Path, names: ClassNames | None = None) -> None:
        path = Path(path)
        shown = text_of(str(path))
        listed = _read(path, shown)
        paths = in_order(listed)
        keys = sorted({label for labels in listed.values() for label in labels})
        if names is not None and keys and not any(names.name(key) for key in keys):
            raise SourceError(f"{names.path} names none of the labels in {shown} (the first: {keys[0]!r})")
        place = {key: number for number, key in enumerate(keys)}
        self.vocabulary = tuple(Label("class", name) for name in unique_names(keys, names))
        self._labels = PackedRows.of(sorted(place[label] for label in listed[name]) for name in paths)
        super().__init__(
            path.absolute().parent,
            paths,
            f"the list {shown}",
            f"pictures of the list {text_of(path.name)}",
        )

    def labels(self, number: int) -> tuple[int, ...]:
        """The labels on the picture's line."""
        return self._labels[number]


def _read(path: Path, shown: str) -> dict[str, frozenset[str]]:
    """The paths of a list and their labels."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise SourceError(f"cannot read the list {shown}: {error.strerror}") from error
    listed: dict[str, frozenset[str]] = {}
    known: dict[str, frozenset[str]] = {}  # few labels stand on many lines
    for number, line in enumerate(lines, start=1):
        if b"\0" in line:
            raise SourceError(f"{shown} is no text (line {number}); expected one path per line")
        if not line.strip() or line.startswith(b"#"):
            continue
        path_part, _, rest = line.decode("utf-8", "surrogateescape").partition("\t")
        name = path_part.strip(" ")
        if not name:
            raise SourceError(f"{shown}, line {number}: a label without a path before it")
        if rest not in known:
            known[rest] = frozenset(text_of(label.strip()) for label in rest.split("\t") if label.strip())
        before = listed.get(name)
        listed[name] = known[rest] if before is None else before | known[rest]
    if not listed:
        raise SourceError(f"the list {shown} holds no path; expected one per line")
    return listed
