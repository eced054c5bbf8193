"""Checkpoints of torch.save are read; what they would run is named and never runs."""

from __future__ import annotations

import builtins
import enum
import os
import pathlib
import pickle
import sys
import threading
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from explorer.errors import SAEError, UnsafeFileError
from explorer.sae.loaders import opcodes
from explorer.sae.loaders.unpickle import Record, read_pickle

CONFIG = "peer.config.RunnerConfig"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A peer's module that exists while a file is written and is broken while it is read."""
    module = types.ModuleType("peer.config")
    module.ran = []

    class RunnerConfig:
        def __init__(self, **fields: object) -> None:
            self.__dict__.update(fields)

        def __setstate__(self, state: dict) -> None:
            module.ran.append("setstate")

    class Mode(enum.Enum):
        FAST = "fast"

    for kind in (RunnerConfig, Mode):
        kind.__module__, kind.__qualname__ = "peer.config", kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "peer", types.ModuleType("peer"))
    monkeypatch.setitem(sys.modules, "peer.config", module)
    return module


class Call:
    """Pickles as a call of something."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple[object, ...]]:
        return self.what


def saved(path: Path, value: object, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **how: int) -> Path:
    """The same archive with changed entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_state_dicts_come_back_bit_for_bit(tmp_path: Path, legacy: bool, dtype: torch.dtype) -> None:
    state = OrderedDict(w=torch.randn(5, 3).mul(9).to(dtype).T, b=torch.ones((), dtype=dtype))
    path = saved(tmp_path / "a.pt", {"state": state, "step": 3, "names": ("x", None, True)}, legacy)
    read = read_pickle(path)
    assert read["step"] == 3 and read["names"] == ("x", None, True)
    assert read["state"]["w"].stride() == state["w"].stride()
    assert all(torch.equal(read["state"][name], state[name]) for name in state)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_header_before_the_file_is_skipped(tmp_path: Path, legacy: bool) -> None:
    body = saved(tmp_path / "a.pt", {"w": torch.arange(6.0)}, legacy).read_bytes()
    path = tmp_path / "b.pt"
    path.write_bytes(b'{"schema": 5}\n' + body)
    assert torch.equal(read_pickle(path, offset=14)["w"], torch.arange(6.0))
    with pytest.raises(SAEError, match=r"b\.pt"):
        read_pickle(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_named_class_becomes_an_inert_record(
    tmp_path: Path, peer: types.ModuleType, legacy: bool
) -> None:
    fields = {
        "d_in": 12,
        "lr": numpy.float64(0.5),
        "seed": numpy.int64(7),
        "dtype": torch.float32,
        "device": torch.device("cuda"),
        "folder": pathlib.PurePosixPath("a/b"),
        "mode": peer.Mode.FAST,
        "inner": peer.RunnerConfig(k=3),
    }
    path = saved(tmp_path / "a.pt", {"cfg": peer.RunnerConfig(**fields), "w": torch.ones(2)}, legacy)
    read = read_pickle(path, frozenset({CONFIG, "peer.config.Mode"}))
    config = read["cfg"]
    assert isinstance(config, Record) and config.name == CONFIG
    assert config.state["lr"] == 0.5 and config.state["seed"] == 7 and type(config.state["seed"]) is int
    assert config.state["dtype"] is torch.float32 and config.state["folder"] == "a/b"
    assert config.state["mode"].args == ("fast",) and config.state["inner"].state == {"k": 3}
    assert peer.ran == [] and torch.equal(read["w"], torch.ones(2))
    with pytest.raises(UnsafeFileError, match=r"peer\.config\.Mode"):
        read_pickle(path, frozenset({CONFIG}))


def test_the_class_is_not_imported_nor_kept_on_torchs_list(tmp_path: Path, peer: types.ModuleType) -> None:
    path = saved(tmp_path / "a.pt", peer.RunnerConfig(a=1))
    torch.serialization.add_safe_globals([peer.RunnerConfig])
    try:
        before = set(torch.serialization.get_safe_globals())
        assert read_pickle(path, frozenset({CONFIG})).state == {"a": 1}
        assert set(torch.serialization.get_safe_globals()) == before and peer.ran == []
    finally:
        with torch.serialization.safe_globals([peer.RunnerConfig]):
            pass
    del sys.modules["peer.config"]
    assert read_pickle(path, frozenset({CONFIG})).state == {"a": 1}
    assert "peer.config" not in sys.modules


def test_many_threads_read_at_once(tmp_path: Path, peer: types.ModuleType) -> None:
    path = saved(tmp_path / "a.pt", {"cfg": peer.RunnerConfig(a=1)})
    read: list[object] = []
    threads = [
        threading.Thread(target=lambda: read.append(read_pickle(path, frozenset({CONFIG})))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["cfg"].state for one in read] == [{"a": 1}] * 8


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), "posix.system|nt.system"),
        (lambda mark: Call(builtins.eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Call(builtins.exec, f"open({str(mark)!r}, 'w')"), "builtins.exec"),
        (lambda mark: Call(open, str(mark), "w"), "io.open"),
        (lambda mark: Call(torch.load, str(mark)), "torch.serialization.load"),
        (lambda mark: Call(torch.hub.load, "a/b", "c"), "torch.hub.load"),
        (lambda mark: Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {mark}"))), "pickle.loads"),
        (lambda mark: Call(getattr, "a", "b"), "builtins.getattr"),
        (lambda mark: Call(bytearray, 1 << 60), "builtins.bytearray"),
        (lambda mark: Call(torch._utils._rebuild_wrapper_subclass, 1), "_rebuild_wrapper_subclass"),
        (lambda mark: numpy.ones(3), "_reconstruct"),
    ],
)
@pytest.mark.parametrize("where", ["bare", "in a state dict", "in the record", "legacy", "plain pickle 4"])
def test_what_a_file_would_run_is_named_and_not_run(
    tmp_path: Path, peer: types.ModuleType, payload: Callable, named: str, where: str
) -> None:
    mark = tmp_path / "ran"
    evil = payload(mark)
    value = {
        "in a state dict": OrderedDict(W_enc=torch.ones(2, 2), b_enc=evil),
        "in the record": {"cfg": peer.RunnerConfig(hook=evil), "state_dict": {}},
    }.get(where, evil)
    path = tmp_path / "sae.pt"
    if where == "plain pickle 4":
        path.write_bytes(pickle.dumps(value, protocol=4))
    else:
        saved(path, value, where == "legacy")
    with pytest.raises(UnsafeFileError, match=f"sae.pt asks to import .*({named})"):
        read_pickle(path, frozenset({CONFIG}))
    assert not mark.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_each_of_the_two_gates_holds_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    mark = tmp_path / "ran"
    path = saved(tmp_path / "a.pt", {"w": torch.ones(2), "x": Call(os.system, f"touch {mark}")}, legacy)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with monkeypatch.context() as without_first:
        without_first.setattr(opcodes, "_refuse", lambda *_: None)
        with pytest.raises(
            SAEError,
            match=r"a\.pt is not a whole file of torch\.save \(.*GLOBAL (posix|nt)\.system .*is blocked",
        ):
            read_pickle(path)
    with monkeypatch.context() as without_second:
        without_second.setattr(torch, "load", lambda file, **_: pickle.load(file))
        with pytest.raises(UnsafeFileError, match=r"a\.pt asks to import (posix|nt)\.system"):
            read_pickle(path)
    assert not mark.exists()


def test_what_another_part_of_the_program_allowed_is_still_refused(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([os.path.join]), pytest.raises(UnsafeFileError, match=r"join"):
        read_pickle(saved(tmp_path / "a.pt", Call(os.path.join, "a", "b")))


def test_the_record_cannot_be_changed_for_the_next_file(tmp_path: Path, peer: types.ModuleType) -> None:
    """BUILD on the class itself, which Python's own unpickler would obey."""
    path = saved(tmp_path / "a.pt", 1)
    hostile = b"\x80\x02cpeer.config\nRunnerConfig\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b."
    rewritten(path, lambda name, data: hostile if name.endswith("data.pkl") else data)
    with pytest.raises(SAEError, match=r"a\.pt"):
        read_pickle(path, frozenset({CONFIG}))
    good = saved(tmp_path / "b.pt", peer.RunnerConfig(a=1))
    assert read_pickle(good, frozenset({CONFIG})).state == {"a": 1}


@pytest.mark.parametrize("legacy", [False, True])
def test_every_cut_is_noticed(tmp_path: Path, legacy: bool) -> None:
    whole = saved(tmp_path / "a.pt", {"w": torch.randn(40, 12), "b": torch.ones(12)}, legacy).read_bytes()
    path = tmp_path / "cut.pt"
    for end in [*range(0, 64, 3), *range(64, len(whole) - 1, 97), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(SAEError, match=r"cut\.pt"):
            read_pickle(path)


def test_archives_that_unpack_to_more_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.zeros(1 << 18)})
    rewritten(path, lambda name, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SAEError, match=r"claims to unpack to 1,0\d\d,\d{3} .*is compressed"):
        read_pickle(path)


def test_tensors_larger_than_what_is_stored_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.ones(1).expand(1 << 20, 1 << 12)})
    with pytest.raises(SAEError, match=r"\[1048576, 4096\] claims 17,179,869,184 bytes, 4 are stored"):
        read_pickle(path)
    little = saved(tmp_path / "little.pt", {"w": torch.ones(8).expand(4, 8)})
    with pytest.raises(SAEError, match=r"\[4, 8\] claims 128 bytes, 32 are stored"):
        read_pickle(little)
    big = torch.ones(4096)
    many = saved(tmp_path / "b.pt", {str(i): big.view(64, 64) for i in range(40)})
    with pytest.raises(SAEError, match=r"expected the whole tensor"):
        read_pickle(many)
    tied = saved(tmp_path / "c.pt", {"W_enc": big.view(64, 64), "W_dec": big.view(64, 64).T})
    assert torch.equal(read_pickle(tied)["W_dec"], big.view(64, 64))


def test_a_record_of_another_size_than_claimed_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.arange(6.0)})
    rewritten(
        path,
        lambda name, data: (
            data.replace(b"K\x06t", b"M\xff\xfft").replace(b"K\x06\x85", b"M\xff\xff\x85")
            if name.endswith("data.pkl")
            else data
        ),
    )
    with pytest.raises(SAEError, match=r"a\.pt is not a whole file"):
        read_pickle(path)


def test_nesting_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", 1)
    deep = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."
    rewritten(path, lambda name, data: deep if name.endswith("data.pkl") else data)
    with pytest.raises(SAEError, match=r"tuples"):
        read_pickle(path)


def test_pickles_of_too_many_steps_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.ones(2), "steps": list(range(50))})
    assert len(read_pickle(path)["steps"]) == 50
    monkeypatch.setattr(opcodes, "MAX_OPCODES", 60)
    with pytest.raises(SAEError, match="more than 60 steps"):
        read_pickle(path)


def test_numpys_texts_are_no_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.ones(2), "name": numpy.str_("clip")})
    with pytest.raises(SAEError, match="'U4' is not a plain number's type"):
        read_pickle(path)


def test_an_object_that_holds_itself_is_no_trap(tmp_path: Path) -> None:
    loop: dict[str, object] = {"w": torch.ones(2)}
    loop["again"] = loop
    read = read_pickle(saved(tmp_path / "a.pt", loop))
    assert read["again"] is read and isinstance(read["w"], Tensor)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"# README\n", "text that begins '# README"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"\x40\0\0\0\0\0\0\0{}", "a safetensors file"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"\xff\xfe\0\1\2\3\4\5\6", "ff fe 00 01"),
        (b"PK\x03\x04 and nothing else", "not a whole file"),
        (pickle.dumps({"a": 1}, 2), "a plain Python pickle"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "sae.pt"
    path.write_bytes(content)
    with pytest.raises(SAEError, match=r"sae\.pt") as caught:
        read_pickle(path)
    assert words in str(caught.value)


def test_archives_of_other_kinds_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.png", b"x")
    with pytest.raises(SAEError, match=r"photo\.png; expected one data\.pkl"):
        read_pickle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(1, 2))
        archive.writestr("net/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(UnsafeFileError, match=r"a\.zip is a TorchScript program; expected tensors"):
        read_pickle(path)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("net/data.pkl", pickle.dumps(1, 2))
        archive.writestr("net/data.pkl", pickle.dumps(2, 2))
    with pytest.raises(SAEError, match=r"expected one data\.pkl"):
        read_pickle(path)


def test_places_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(SAEError, match=r"none\.pt cannot be read: No such file"):
        read_pickle(tmp_path / "none.pt")
    with pytest.raises(SAEError, match=r"cannot be read: Is a directory"):
        read_pickle(tmp_path)
    loop = tmp_path / "loop.pt"
    loop.symlink_to(loop)
    with pytest.raises(SAEError, match=r"loop\.pt cannot be read: Too many levels"):
        read_pickle(loop)
