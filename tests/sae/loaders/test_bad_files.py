"""Damaged, inconsistent and hostile files of every format: each gives a named error, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from explorer.errors import SAEError, UnsafeFileError
from explorer.sae import SAE, ActivationRule, load_sae
from explorer.sae.files import is_finite
from explorer.sae.loaders.opcodes import MAX_PICKLE
from explorer.sae.loaders.reading import read_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
State = dict[str, Tensor]


class Base(NamedTuple):
    """A good checkpoint.

    weights, config: names in its folder; decoder: its tensor [F, d] or [d, F]; width: the entry of the
    configuration that says d; optional: tensors that may be missing.
    """

    name: str
    weights: str
    decoder: str
    config: str | None = None
    width: str | None = None
    hints: dict[str, object] | None = None
    optional: tuple[str, ...] = ()

    def copy(self, folder: Path) -> Path:
        """Lay the checkpoint into a folder; the path of its weights."""
        if self.name == "own":
            parts = (torch.randn(4, 12), torch.randn(12), torch.randn(12, 4), torch.randn(4))
            SAE(*parts, ActivationRule("topk", k=3)).save(folder / self.weights)
        else:
            ignored = shutil.ignore_patterns("io.safetensors", "model.pth", "*sparsity*")
            shutil.copytree(GOLDEN / self.name, folder, dirs_exist_ok=True, ignore=ignored)
        return folder / self.weights


OVERCOMPLETE = {"top_k": 3, "normalization": "l2"}
PRISMA = "vit_prisma.sae.config.VisionModelSAERunnerConfig"
BASES = [
    Base("own", "sae.safetensors", "W_dec"),
    Base("saev-topk", "checkpoint/sae.pt", "W_dec"),
    Base("saelens-topk", "sae_weights.safetensors", "W_dec", "cfg.json", "d_in"),
    Base("sparsify-topk", "layers.22/sae.safetensors", "W_dec", "layers.22/cfg.json", "d_in"),
    Base("prisma-relu", "n_images_1300000.pt", "W_dec", "config.json"),
    Base("patchsae-out", "out.pt", "W_dec"),
    Base("dictlearn-topk", "ae.pt", "decoder.weight", "config.json", optional=("threshold", "k")),
    Base("overcomplete-topk", "state_dict.pt", "dictionary._weights", hints=OVERCOMPLETE,
         optional=("dictionary.multiplier",)),
]  # fmt: skip
WITH_CONFIG = [base for base in BASES if base.config]
PICKLED = [base for base in BASES if not base.weights.endswith(".safetensors")]


def named(base: Base) -> str:
    return base.name


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "checkpoint of a peer"
    place.mkdir()
    return place


def refused(place: Path, hints: dict[str, object] | None = None, *, name: str, words: str = "") -> str:
    """The message of the error; it names the file, says what was expected, and holds the words."""
    with pytest.raises(SAEError) as caught:
        load_sae(place, hints)
    message = str(caught.value)
    assert name in message and words in message, message
    assert any(word in message for word in ("expected", "known", "pass ", "hints")), message
    return message


def peer_object(name: str, fields: dict[str, Any]) -> object:
    """An object of a peer's class; `as_modules` lets it be pickled."""
    module, _, kind = name.rpartition(".")
    made = type(kind, (), {"__module__": module})()
    made.__dict__.update(fields)
    return made


def save_with_modules(value: object, objects: list[object], file: Any, **how: bool) -> None:
    """torch.save, while the modules of the objects' classes exist."""
    modules: dict[str, types.ModuleType] = {}
    for one in objects:
        parts = type(one).__module__.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            modules.setdefault(name, types.ModuleType(name))
        setattr(modules[type(one).__module__], type(one).__name__, type(one))
    assert not modules.keys() & sys.modules.keys()
    sys.modules.update(modules)
    try:
        torch.save(value, file, **how)
    finally:
        for name in modules:
            del sys.modules[name]


def rewrite(path: Path, change: Callable[[State], State]) -> None:
    """Write the file again, in its format, with other tensors."""
    found = read_weights(path, frozenset({PRISMA, "src.sae_training.config.ViTSAERunnerConfig"}))
    tensors = change(dict(found.tensors))
    if path.suffix == ".safetensors":
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=found.metadata
        )
        return
    with path.open("wb") as file:
        if found.header:
            file.write(json.dumps(found.header).encode() + b"\n")
        if found.record_class:
            config = peer_object(found.record_class, found.record or {})
            save_with_modules({"cfg": config, "state_dict": tensors}, [config], file)
        else:
            torch.save(tensors, file)


@pytest.mark.parametrize("base", BASES, ids=named)
def test_the_good_ones_are_good(base: Base, folder: Path) -> None:
    path = base.copy(folder)
    before = load_sae(folder, base.hints)
    rewrite(path, lambda tensors: tensors)
    after = load_sae(folder, base.hints)
    assert after.id == before.id and after.facts == before.facts


def changed(name: str, how: Callable[[Tensor], Tensor]) -> Callable[[Base, State], State]:
    def change(base: Base, tensors: State) -> State:
        name_here = name.replace("DECODER", base.decoder)
        return tensors | {name_here: how(tensors[name_here])}

    return change


def spoilt(value: float) -> Callable[[Tensor], Tensor]:
    def spoil(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[5] = value
        return tensor

    return spoil


DAMAGE: dict[str, tuple[Callable[[Base, State], State], str]] = {
    "transposed": (changed("DECODER", lambda t: t.T.clone()), "transposed"),
    "NaN": (changed("DECODER", spoilt(torch.nan)), "not finite"),
    "infinite": (changed("DECODER", spoilt(-torch.inf)), "not finite"),
    "whole numbers": (changed("DECODER", lambda t: t.to(torch.int32)), "torch.int32"),
    "one column less": (changed("DECODER", lambda t: t[:, :-1].clone()), "shape"),
    "one row less": (changed("DECODER", lambda t: t[:-1].clone()), "shape"),
    "one axis more": (changed("DECODER", lambda t: t[None]), "shape"),
    "flat": (changed("DECODER", lambda t: t.flatten()), "shape"),
    "no values": (changed("DECODER", lambda t: t[:0]), "shape"),
    "unknown tensor": (lambda base, tensors: tensors | {"mystery": torch.ones(3)}, "mystery"),
    "skip": (lambda base, tensors: tensors | {"W_skip": torch.ones(3, 3)}, "W_skip"),
    "no tensors": (lambda base, tensors: {}, ""),
    "another module": (lambda base, tensors: {"layer.weight": torch.ones(3, 3)}, ""),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("base", BASES, ids=named)
def test_tensors_that_do_not_fit(base: Base, damage: str, folder: Path) -> None:
    path = base.copy(folder)
    change, words = DAMAGE[damage]
    rewrite(path, lambda tensors: change(base, tensors))
    refused(folder, base.hints, name=path.name, words=words)


@pytest.mark.parametrize("base", BASES, ids=named)
def test_each_tensor_that_is_missing_is_missed(base: Base, folder: Path) -> None:
    path = base.copy(folder)
    whole = path.read_bytes()
    names = list(
        read_weights(path, frozenset({PRISMA, "src.sae_training.config.ViTSAERunnerConfig"})).tensors
    )
    assert len(names) >= 3
    for name in set(names) - set(base.optional):
        path.write_bytes(whole)
        rewrite(path, lambda tensors, name=name: {key: t for key, t in tensors.items() if key != name})
        refused(folder, base.hints, name=path.name)


def test_large_numbers_are_numbers() -> None:
    """Their sum is infinite, and they are not."""
    large = torch.full((4, 4), 3e38)
    assert is_finite(large) and is_finite(large.half().fill_(6e4)) and is_finite(-large)
    large[1, 1] = torch.nan
    assert not is_finite(large)
    assert not is_finite(torch.tensor([torch.inf, -torch.inf]))


def cuts(length: int) -> Iterator[int]:
    """Where a file is cut: everywhere near its start and end, and often in between."""
    yield from range(0, min(length, 40), 5)
    yield from range(40, length - 1, max(1, length // 20))
    yield from (length - 22, length - 2, length - 1)


@pytest.mark.parametrize("base", BASES, ids=named)
def test_files_that_end_too_early(base: Base, folder: Path) -> None:
    path = base.copy(folder)
    whole = path.read_bytes()
    for end in cuts(len(whole)):
        path.write_bytes(whole[:end])
        refused(folder, base.hints, name=path.name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ""),
        (b"not a checkpoint at all, but a note", ""),
        (b"<!DOCTYPE html><html><body>404</body></html>", ""),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", ""),
        (b"\x1f\x8b\x08\x00 and so on", ""),
        (bytes(range(256)) * 20, ""),
        (b"{" * 5000, ""),
        (b'{"schema": 5}', ""),
        (b'{"schema": 5}\n', ""),
        (b"[" * 200_000, ""),
        (b"{" + b'"a": {' * 50_000 + b"\n", ""),
        (b"\xff" * 8 + b"{", ""),
        ((1 << 40).to_bytes(8, "little") + b"{}", ""),
        (pickle.dumps(1.0), ""),
    ],
)
@pytest.mark.parametrize("base", BASES, ids=named)
def test_other_content_under_the_name(base: Base, content: bytes, words: str, folder: Path) -> None:
    path = base.copy(folder)
    path.write_bytes(content)
    refused(folder, base.hints, name=path.name, words=words)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"k": 3, "k": 5}',
        b'{"k": ' + b"9" * 5000 + b"}",
        b" " * (17 << 20),
    ],
    ids=lambda content: repr(content[:18]),
)
@pytest.mark.parametrize("base", WITH_CONFIG, ids=named)
def test_configurations_that_are_no_json_object(base: Base, content: bytes, folder: Path) -> None:
    base.copy(folder)
    config = folder / str(base.config)
    config.write_bytes(content)
    with pytest.raises(SAEError, match=config.name):
        load_sae(folder, base.hints)


@pytest.mark.parametrize("value", [14, 0, -1, "12", 12.5, True, [12], {"a": 1}, 10**30])
@pytest.mark.parametrize("base", [base for base in WITH_CONFIG if base.width], ids=named)
def test_widths_that_the_tensors_do_not_have(base: Base, value: object, folder: Path) -> None:
    path = base.copy(folder)
    config = folder / str(base.config)
    config.write_text(json.dumps(json.loads(config.read_text()) | {base.width: value}))
    refused(folder, base.hints, name=path.name)


# --- places


def test_places_that_hold_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, name=str(tmp_path), words="found nothing")
    (tmp_path / "README.md").write_text("nothing here")
    refused(tmp_path, name=str(tmp_path), words="README.md")
    missing = tmp_path / "none.pt"
    with pytest.raises(SAEError, match=r"there is no .*none\.pt"):
        load_sae(missing)
    for broken in ("", " ", "a\0b", "x" * 5000, "owner/name/\0", "~nobody-of-that-name/ae.pt", "a/b/../c\n"):
        with pytest.raises(SAEError, match=r"expected|hub"):
            load_sae(broken)
    monkeypatch.chdir(tmp_path)
    refused(Path("."), name=".", words="README.md")


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    loop = tmp_path / "ae.pt"
    loop.symlink_to(loop)
    refused(tmp_path, name=str(tmp_path))
    with pytest.raises(SAEError, match=r"ae\.pt"):
        load_sae(loop)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path / "folder")
    refused(tmp_path / "folder", name="folder")
    for number in range(40):  # 40 ways back to the same folder at every depth
        (tmp_path / "folder" / f"way{number}").symlink_to(tmp_path / "folder")
    refused(tmp_path / "folder", name="folder")


def test_a_folder_under_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "ae.pt").mkdir()
    refused(tmp_path, name=str(tmp_path))


def test_several_that_could_be_meant(tmp_path: Path) -> None:
    for name in ("one.pt", "two.pt"):
        torch.save({"w": torch.ones(2)}, tmp_path / name)
    with pytest.raises(SAEError, match=r"holds 2 weight files: one\.pt, two\.pt; name one of them"):
        load_sae(tmp_path)


@pytest.mark.parametrize("base", BASES, ids=named)
def test_files_that_may_not_be_read(base: Base, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = base.copy(folder)
    opened = Path.open

    def deny(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", deny)
    refused(folder, base.hints, name=path.name, words="cannot be read: Permission denied")


# --- archives


def repacked(
    path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    """The same archive with other contents."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


def test_an_archive_that_unpacks_to_much_more(folder: Path) -> None:
    path = folder / "ae.pt"
    torch.save({"decoder.weight": torch.zeros(3000, 1000)}, path)
    repacked(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    message = refused(folder, name="ae.pt", words="claims to unpack to 12,0")
    assert "is compressed" in message


def test_entries_that_share_their_bytes(folder: Path) -> None:
    """Many entries of the directory point to the same place in the file."""
    path = folder / "ae.pt"
    torch.save({"w": torch.randn(1000)}, path)
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<II", data, end + 12)
    directory = bytes(data[start : start + size])
    place = directory.index(b"/data/0") - 46
    place = directory.rindex(b"PK\x01\x02", 0, place + 46)
    length = 46 + sum(struct.unpack_from("<HHH", directory, place + 28))
    entry = directory[place : place + length]
    copies = b"".join(entry.replace(b"/data/0", f"/data/{i}".encode()) for i in range(1, 10))
    data[start:end] = directory + copies
    at = data.rindex(b"PK\x05\x06")
    count = struct.unpack_from("<H", data, at + 10)[0] + 9
    struct.pack_into("<HHII", data, at + 8, count, count, size + len(copies), start)
    path.write_bytes(data)
    refused(folder, name="ae.pt", words="claims to unpack")


def test_a_pickle_of_absurd_size(folder: Path) -> None:
    path = folder / "ae.pt"
    torch.save({"w": torch.ones(2)}, path)
    repacked(path, lambda name, data: b"\0" * (MAX_PICKLE + 1) if name.endswith("data.pkl") else data)
    refused(folder, name="ae.pt", words="its pickle has")


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 20), (100_000, 100_000)])
def test_shapes_that_no_machine_could_hold(folder: Path, shape: tuple[int, int]) -> None:
    torch.save({"decoder.weight": torch.ones(1).expand(shape)}, folder / "ae.pt")
    refused(folder, name="ae.pt", words="claims")
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4]}
    header = json.dumps({"W_dec": entry}).encode()
    (folder / "ae.pt").unlink()
    (folder / "sae.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    refused(folder, name="sae.safetensors", words="not a whole safetensors file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"", "an empty file"),
        (b"PK\x03\x04" + bytes(40), "something that begins with the bytes 50 4b 03 04"),
    ],
)
def test_other_content_where_safetensors_belong(folder: Path, content: bytes, words: str) -> None:
    (folder / "sae.safetensors").write_bytes(content)
    refused(folder, name="sae.safetensors", words=f"it looks like {words}")


def test_keys_that_stand_twice(folder: Path) -> None:
    entry = '"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f"{{{entry}, {entry}}}".encode()
    path = folder / "sae.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    refused(folder, name="sae.safetensors", words="the key 'w' is there twice")


# --- hostile files


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.what


class Hidden(OrderedDict):
    """Pickles as an ordinary OrderedDict whose attributes hold something."""

    def __init__(self, entries: State, **attributes: object) -> None:
        super().__init__(entries)
        self.attributes = attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), self.attributes, None, iter(self.items())


def raw(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls module.name(argument)."""
    text = argument.encode()
    return f"c{module}\n{name}\n".encode() + b"(X" + struct.pack("<I", len(text)) + text + b"tR."


CALLS = [
    ("os", "system", "touch {mark}"),
    ("posix", "system", "touch {mark}"),
    ("subprocess", "getoutput", "touch {mark}"),
    ("builtins", "eval", "open('{mark}', 'w')"),
    ("builtins", "exec", "open('{mark}', 'w')"),
    ("__builtin__", "execfile", "{mark}"),
    ("builtins", "__import__", "antigravity"),
    ("builtins", "open", "{mark}"),
    ("runpy", "run_path", "{mark}"),
    ("code", "interact", "{mark}"),
    ("pickle", "loads", "x"),
    ("torch", "load", "{mark}"),
    ("torch.serialization", "load", "{mark}"),
    ("torch.hub", "load", "{mark}"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper", "open('{mark}', 'w')"),
    ("torch.utils.collect_env", "run", "touch {mark}"),
    ("torch._inductor.codecache", "compile_file", "{mark}"),
    ("numpy.testing._private.utils", "runstring", "open('{mark}', 'w')"),
    ("numpy.core.multiarray", "_reconstruct", "x"),
    ("timeit", "timeit", "open('{mark}', 'w')"),
    ("webbrowser", "open", "{mark}"),
    ("functools", "partial", "x"),
    ("operator", "attrgetter", "system"),
    ("collections", "Counter", "x"),
    ("builtins", "bytearray", "x"),
    ("torch.storage", "UntypedStorage", "x"),
    ("torch._tensor", "_rebuild_from_type_v2", "x"),
    ("vit_prisma.sae.config", "EvilConfig", "x"),
]


@pytest.mark.parametrize(("module", "name", "argument"), CALLS, ids=lambda part: str(part))
def test_every_global_that_is_not_known_is_named(folder: Path, module: str, name: str, argument: str) -> None:
    mark = folder / "ran"
    pickled = b"\x80\x02" + raw(module, name, argument.format(mark=mark))
    before = set(sys.modules)
    for wrap in ("plain", "archive", "behind a header"):
        path = folder / "sae.pt"
        if wrap == "archive":
            torch.save(1, path)
            repacked(path, lambda entry, data: pickled if entry.endswith("data.pkl") else data)
        else:
            path.write_bytes((b'{"schema": 5}\n' if wrap == "behind a header" else b"") + pickled)
        with pytest.raises(
            UnsafeFileError, match=rf"sae\.pt asks to import .*\.{name}; expected ordinary tensors"
        ):
            load_sae(folder)
    assert not mark.exists() and module not in set(sys.modules) - before


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["sae.pt", "sae.bin", "sae.safetensors"])
def test_pickles_of_every_protocol(folder: Path, name: str, protocol: int) -> None:
    mark = folder / "ran"
    hostile = {"W_enc": Call(os.system, f"touch '{mark}'")}
    (folder / name).write_bytes(pickle.dumps(hostile, protocol=protocol))
    refused(folder, name=name, words="asks to import posix.system" if name != "sae.safetensors" else "whole")
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"(S'touch {mark}'\nios\nsystem\n.",
        b"\x80\x02cos\nsystem\n\x94(S'touch {mark}'\ntR.",
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x0ctouch {mark}\x94\x85\x94R\x94.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
        b"cposixpath\nos\n.",
        b"\x80\x02X\x02\x00\x00\x00os" + b"q\x00h\x00" * 3 + b".",
        b"\x80\x02Q.",
    ],
)
def test_ways_to_spell_a_call(folder: Path, data: bytes) -> None:
    mark = folder / "ran"
    (folder / "sae.pt").write_bytes(data.replace(b"{mark}", str(mark).encode()))
    refused(folder, name="sae.pt")
    assert not mark.exists()


def places(evil: object, tensors: State) -> dict[str, Callable[[], object]]:
    """Where something hostile may hide in a state dict."""
    parameter = torch.nn.Parameter(torch.ones(2))
    storage = torch.ones(2)._typed_storage()
    hooked = Call(torch._utils._rebuild_tensor_v2, storage, 0, (2,), (1,), False, OrderedDict(first=evil))
    return {
        "a value": lambda: {**tensors, "extra": evil},
        "a nested value": lambda: {**tensors, "extra": {"deep": [(1, [evil])]}},
        "a key": lambda: {**tensors, evil: 1},
        "an attribute of the dict": lambda: Hidden(tensors, _metadata={"version": evil}),
        "a hook of a tensor": lambda: {**tensors, "extra": hooked},
        "beside a parameter": lambda: {**tensors, "extra": [parameter, evil]},
        "a set": lambda: {**tensors, "extra": {evil}},
        "the whole": lambda: evil,
    }


PLACES = ("a value", "a nested value", "a key", "an attribute of the dict", "a hook of a tensor",
          "beside a parameter", "a set", "the whole")  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("base", [PICKLED[0], PICKLED[3], PICKLED[4]], ids=named)
def test_calls_hidden_in_a_state_dict(base: Base, place: str, legacy: bool, folder: Path) -> None:
    path = base.copy(folder)
    mark = folder / "ran"
    found = read_weights(path)
    hostile = places(Call(os.system, f"touch '{mark}'"), found.tensors)[place]()
    with path.open("wb") as file:
        if found.header:
            file.write(json.dumps(found.header).encode() + b"\n")
        torch.save(hostile, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeFileError, match=rf"{path.name} asks to import (posix|nt)\.system; expected"):
        load_sae(folder, base.hints)
    assert not mark.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
@pytest.mark.parametrize(
    "where", ["a field", "a nested record", "its arguments", "its whole state", "beside it"]
)
@pytest.mark.parametrize(
    "base", [base for base in BASES if base.name in ("prisma-relu", "patchsae-out")], ids=named
)
def test_calls_hidden_in_the_inert_record(base: Base, where: str, legacy: bool, folder: Path) -> None:
    path = base.copy(folder)
    mark = folder / "ran"
    evil = Call(os.system, f"touch '{mark}'")
    found = read_weights(path, frozenset({PRISMA, "src.sae_training.config.ViTSAERunnerConfig"}))
    name, fields = str(found.record_class), dict(found.record or {})
    config: Any = peer_object(name, fields)
    kind = type(config)
    objects = [config]
    if where == "a field":
        config.more = evil
    elif where == "a nested record":
        config.more = kind.__new__(kind)
        config.more.inner = [evil]
    elif where == "its arguments":
        kind.__reduce__ = lambda self: (kind, (evil,), self.__dict__)
    elif where == "its whole state":
        kind.__getstate__ = lambda self: evil
    whole = {"cfg": config, "state_dict": found.tensors} | ({"more": evil} if where == "beside it" else {})
    with path.open("wb") as file:
        save_with_modules(whole, objects, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeFileError, match=rf"{path.name} asks to import (posix|nt)\.system"):
        load_sae(folder)
    assert not mark.exists()


def test_what_the_real_class_would_do_never_happens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class is installed, and does harm when it is made or given a state."""
    base = next(base for base in BASES if base.name == "patchsae-out")
    base.copy(folder)
    ran: list[str] = []
    module = types.ModuleType("src.sae_training.config")

    class ViTSAERunnerConfig:
        def __new__(cls, *args: object) -> ViTSAERunnerConfig:
            ran.append("new")
            return super().__new__(cls)

        def __setstate__(self, state: object) -> None:
            ran.append("setstate")

    module.ViTSAERunnerConfig = ViTSAERunnerConfig  # type: ignore[attr-defined]
    for name in ("src", "src.sae_training"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "src.sae_training.config", module)
    torch.serialization.add_safe_globals([(ViTSAERunnerConfig, "src.sae_training.config.ViTSAERunnerConfig")])
    try:
        assert load_sae(folder).n_neurons == 40 and ran == []
    finally:
        torch.serialization.clear_safe_globals()


# --- random damage


@pytest.mark.parametrize("base", BASES, ids=named)
def test_random_damage_never_escapes(base: Base, folder: Path) -> None:
    """Whatever bytes are changed: an SAE, or a named error with the file in it."""
    path = base.copy(folder)
    files = [path] + ([folder / base.config] if base.config else [])
    generator = torch.Generator().manual_seed(1)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    for file in files:
        whole = file.read_bytes()
        for trial in range(25):
            data = bytearray(whole)
            for _ in range(1 + below(4)):
                data[below(len(data) if trial % 2 else min(len(data), 2500))] = below(256)
            file.write_bytes(data)
            try:
                assert load_sae(folder, base.hints).n_neurons > 0
            except SAEError as error:
                assert str(folder) in str(error)
        file.write_bytes(whole)


def test_a_file_of_safetensors_in_a_pickles_name_is_read_as_what_it_is(folder: Path) -> None:
    base = BASES[0]
    path = base.copy(folder)
    path.rename(folder / "sae.pt")
    assert load_sae(folder).n_neurons == 12
    (folder / "sae.pt").write_bytes(save({"w": torch.ones(2)}))
    refused(folder, name="sae.pt", words="no known format")
