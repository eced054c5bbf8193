"""What the command of the shipped cases refuses before it answers anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from explorer.evals import cases
from explorer.session import Session
from tests.vlm.families.made import made


def refused(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says."""
    monkeypatch.setattr("sys.argv", ["cases", *line.split()])
    assert cases.main() == 2
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1
    return said.err


def test_folders_without_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no such folder" in refused(f"--folder {tmp_path / 'none'}", monkeypatch, capsys)
    monkeypatch.setattr(Session, "chosen", lambda *_: None)
    assert "holds no case files" in refused(f"--folder {tmp_path}", monkeypatch, capsys)


def test_the_recipes_are_the_embedded_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = object.__new__(Session)
    other.lvlm = made("qwen/qwen2").lvlm
    monkeypatch.setattr(Session, "chosen", lambda *_: other)
    said = refused(f"--make --folder {tmp_path}", monkeypatch, capsys)
    assert "neurons of the embedded model" in said and not list(tmp_path.iterdir())
