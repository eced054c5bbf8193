"""Reads files that give classes their names: ImageNet's lists, and plain ones. Knows texts; no pictures.

Four layouts are told apart by looking at the file:
  LOC_synset_mapping.txt          n01440764 tench, Tinca tinca
  imagenet_class_index.json       {"0": ["n01440764", "tench"], ...}, or {"n01440764": "tench"},
                                  or ["tench", ...]
  key and name, by tab or space   n01440764<TAB>tench; also 0<TAB>tench
  a plain list                    one name per line, for numbered classes
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from explorer.errors import SourceError

_KEY = re.compile(r"n\d{8}|\d+")
_EXPECTED = (
    'expected lines such as "n01440764 tench, Tinca tinca" (LOC_synset_mapping.txt), or JSON such as '
    '{"0": ["n01440764", "tench"]} (imagenet_class_index.json), or one name per line'
)


@dataclass(frozen=True)
class ClassNames:
    """Names of classes. by_key: by folder name (wnid) or other key; by_number: by class number, from 0."""

    path: Path
    by_key: Mapping[str, str]
    by_number: Mapping[int, str]

    def name(self, key: str) -> str | None:
        """The name of a key: a folder's name, or a class number in digits."""
        if key in self.by_key:
            return self.by_key[key]
        return self.by_number.get(int(key)) if key.isdecimal() else None


def read_class_names(path: str | Path) -> ClassNames:
    """Read a file of class names. Raises SourceError for a file that is missing or no such file."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SourceError(f"cannot read the class names {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is no file of class names (it is no text); {_EXPECTED}") from error
    text = text.strip()
    if not text:
        raise SourceError(f"the file of class names {path} is empty; {_EXPECTED}")
    return _from_json(path, text) if text[0] in "{[" else _from_lines(path, text.splitlines())


def unique_names(keys: Sequence[str], names: ClassNames | None) -> list[str]:
    """The name of each key, the key itself where it has none.

    ImageNet calls two classes "crane" and two "maillot": equal names get their key in brackets.
    """
    found = [(names.name(key) if names else None) or key for key in keys]
    count = Counter(found)
    return [f"{name} ({key})" if count[name] > 1 else name for key, name in zip(keys, found, strict=True)]


def _from_json(path: Path, text: str) -> ClassNames:
    """The JSON layouts."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is damaged JSON ({error}); {_EXPECTED}") from error
    entries = dict(enumerate(parsed)) if isinstance(parsed, list) else parsed
    by_key: dict[str, str] = {}
    by_number: dict[int, str] = {}
    for key, value in entries.items():
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise SourceError(f"{path} is no file of class names (entry {key!r}: {value!r}); {_EXPECTED}")
        number = int(key) if isinstance(key, int) or key.isdecimal() else None
        if number is not None and len(words) == 2 and _KEY.fullmatch(words[0]):
            _put(path, by_key, words[0], words[1])
        elif number is None:
            _put(path, by_key, key, words[-1] if _KEY.fullmatch(words[0]) else words[0])
        if number is not None:
            by_number[number] = words[-1].strip()
    if not by_key and not by_number:
        raise SourceError(f"{path} names no class; {_EXPECTED}")
    return ClassNames(path, by_key, by_number)


def _from_lines(path: Path, lines: list[str]) -> ClassNames:
    """The layouts with a class per line. A line's place is its class number, unless its key is one."""
    lines = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if any("\0" in line or len(line) > 1000 for line in lines):
        raise SourceError(f"{path} is no file of class names; {_EXPECTED}")
    tabs = all("\t" in line for line in lines)
    pairs = [line.split("\t" if tabs else None, 1) for line in lines]
    keyed = tabs or all(len(pair) == 2 and _KEY.fullmatch(pair[0]) for pair in pairs)
    if not keyed and any(_KEY.fullmatch(pair[0]) for pair in pairs):
        wrong = next(line for line, pair in zip(lines, pairs, strict=True) if not _KEY.fullmatch(pair[0]))
        if any(len(pair) == 2 and _KEY.fullmatch(pair[0]) for pair in pairs):
            raise SourceError(f"{path}: the line {wrong[:80]!r} has no key and name; {_EXPECTED}")
    if not keyed:
        short = len({pair[0] for pair in pairs}) == len(pairs) and all(len(pair) == 2 for pair in pairs)
        return ClassNames(path, dict(pairs) if short else {}, dict(enumerate(lines)))
    by_key: dict[str, str] = {}
    by_number: dict[int, str] = {}
    for place, (key, name) in enumerate(pairs):
        _put(path, by_key, key.strip(), name)
        by_number[int(key) if key.strip().isdecimal() else place] = name.strip()
    return ClassNames(path, by_key, by_number)


def _put(path: Path, names: dict[str, str], key: str, name: str) -> None:
    """Take in one name. Raises SourceError when the key has another one."""
    if names.setdefault(key, name.strip()) != name.strip():
        raise SourceError(f"{path} gives {key!r} two names: {names[key]!r} and {name.strip()!r}")
