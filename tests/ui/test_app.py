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
from explorer import Session
from explorer.errors import ExplorerError

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
        (["--model", "x"], "--model needs --sae"),
    ],
)
def test_wrong_usage_is_said(argv: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        app.parse(argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("manifest", "built"),
    [
        (None, True),
        ({"format": 1, "source": "train scenes, seeds 0 to 9"}, True),
        ({"format": 2}, False),
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
    monkeypatch.setattr(Session, "open", stop)
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
