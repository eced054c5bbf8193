"""Starting the page: arguments, and what is said when it cannot start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import app
from explorer.errors import ExplorerError
from explorer.session import anyway
from explorer.store.manifest import FORMAT, UPGRADABLE

ROOT = Path(__file__).parents[2]


def test_host_and_port_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "7999")
    monkeypatch.setenv("HOST", "0.0.0.0")
    args = app.parse([])
    assert (args.host, args.port) == ("0.0.0.0", 7999)
    assert app.parse(["--port", "8001"]).port == 8001


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port", "0"], "no port"),
        (["--port", "x"], "--port"),
        (["--auth", "me"], "USER:PASS"),
        (["--auth", "me:"], "USER:PASS"),
        (["--auth", "me:one", "--auth", "me:two"], "'me' has two passwords"),
        (["--auth-file", "no such file"], "cannot read 'no such file'"),
        (["--auth-file", os.devnull], "names nobody"),
        (["--auth-file", __file__], "a line that is not USER:PASS"),
        (["--root-path", "neurons"], "'neurons' is no path"),
        (["--root-path", "/"], "'/' is no path"),
        (["--root-path", "/a b"], "no path of a page"),
        (["--max-upload", "64"], "'64' is no size"),
        (["--max-upload", "0MB"], "no size"),
        (["--queue", "0"], "'0' is no number of events"),
        (["--visitors", "many"], "'many' is no number of visitors"),
        (["--cases", __file__], "is a file; give a folder"),
        (["--model", "x"], "--model needs --sae"),
    ],
)
def test_wrong_usage_is_said(argv: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        app.parse(argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_the_arguments_of_a_host(tmp_path: Path) -> None:
    people = tmp_path / "people.txt"
    people.write_text("# who may come\n\nbob:a:b\n  eve:c  \n")
    args = app.parse(
        f"--auth ann:secret --auth-file {people} --root-path /neurons/ --read-only --share --max-upload 2gb"
        f" --queue 9 --visitors 7 --cases {tmp_path}".split()
    )
    assert args.auth == [("ann", "secret"), ("bob", "a:b"), ("eve", "c")]
    assert (args.root_path, args.read_only, args.share) == ("/neurons", True, True)
    assert (args.max_upload, args.queue, args.visitors, args.cases) == (2 << 30, 9, 7, tmp_path)
    plain = app.parse([])
    assert (plain.auth, plain.root_path, plain.read_only, plain.cases) == ([], None, False, None)
    assert (plain.max_upload, plain.queue, plain.visitors) == (64 << 20, 64, 200)
    assert (
        app.parse(["--root-path", "https://example.org/neurons"]).root_path == "https://example.org/neurons"
    )


def test_a_busy_port_is_one_clear_line_and_exit_code_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "app.py", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr and "PORT=" in done.stderr


def test_a_missing_model_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        "--port",
        str(port),
        "--model",
        str(tmp_path / "none"),
        "--sae",
        str(tmp_path / "none.safetensors"),
    ]
    assert app.main(argv) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("works", [True, False])
def test_an_embedded_store_of_the_format_before_is_upgraded_or_else_built(
    works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command[2:4])
        return subprocess.CompletedProcess(command, 0 if works or "build" in command else 1)

    (tmp_path / app.STORE).mkdir(parents=True)
    (tmp_path / app.STORE / "manifest.json").write_text(json.dumps({"format": UPGRADABLE}))
    monkeypatch.setattr(app, "ROOT", tmp_path)
    monkeypatch.setattr(app.subprocess, "run", run)
    app.build_store()
    assert commands == [["index", "upgrade"], *([] if works else [["index", "build"]])]


@pytest.mark.parametrize(
    ("manifest", "built"),
    [
        (None, True),
        ({"format": 1, "source": "train scenes, seeds 0 to 9"}, True),
        ({"format": FORMAT}, False),
        ({"format": 99}, False),
        ({}, False),
        ("[]", False),
        ("{", False),
    ],
)
def test_an_embedded_store_is_built_when_missing_or_of_an_old_format(
    manifest: dict[str, object] | str | None,
    built: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    def stop(*_: object) -> None:
        raise ExplorerError("far enough")

    if manifest is not None:
        (tmp_path / app.STORE).mkdir(parents=True)
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        (tmp_path / app.STORE / "manifest.json").write_text(text)
    monkeypatch.setattr(app, "ROOT", tmp_path)
    monkeypatch.setattr(app.subprocess, "run", run)
    monkeypatch.setattr(app, "check_address", lambda host, port: None)
    monkeypatch.setattr(anyway, "open_anyway", stop)
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    assert app.main([]) == 1
    assert [command[2:] for command in commands] == (
        [["index", "build", "--scenes", "4000", "--out", str(app.STORE)]] if built else []
    )
    said = capsys.readouterr().err
    assert "far enough" in said
    assert ("Its format is old" in said) == (built and manifest is not None)
    assert ("First start" in said) == (manifest is None)
