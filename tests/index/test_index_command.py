"""The command line: exit codes, messages in one line, and a whole build through the real door."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from explorer.sae import SAE, ActivationRule
from explorer.store import Store
from index import __main__ as command


@pytest.fixture(scope="module")
def sae_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = torch.Generator().manual_seed(0)
    encoder = torch.randn(32, 20, generator=draw)
    sae = SAE(encoder, torch.zeros(20), encoder.T.contiguous(), torch.zeros(32), ActivationRule("topk", k=3))
    path = tmp_path_factory.mktemp("sae") / "sae.safetensors"
    sae.save(path)
    return path


def test_builds_from_scenes_and_from_a_folder(
    tmp_path: Path, tiny_lvlm_folder: Path, sae_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = ["--model", str(tiny_lvlm_folder), "--sae", str(sae_file), "--device", "cpu"]
    code = command.main(["build", "--scenes", "6", "--limit", "5", "--out", str(tmp_path / "s"), *site])
    printed = capsys.readouterr()
    assert code == 0
    assert "5 images in" in printed.out
    assert "5/5" in printed.err
    store = Store.open(tmp_path / "s")
    assert (store.manifest.n_images, store.manifest.rows, store.manifest.block) == (5, 4, 2)
    assert any(store.exemplars(neuron) for neuron in range(20))

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((60, 40), 80).save(photos / "a.png")
    (photos / "bad.png").write_text("no")
    args = ["build", "--images", str(photos), "--out", str(tmp_path / "s"), "--store-score", "max", "--quiet"]
    assert command.main([*args, *site]) == 0
    printed = capsys.readouterr()
    assert "1 could not be read" in printed.out
    assert "bad.png:" in printed.out
    assert "img/s" not in printed.err
    assert Store.open(tmp_path / "s").manifest.score == "max"


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["cook"],
        ["build"],
        ["build", "--out", "x"],
        ["build", "--scenes", "0", "--out", "x"],
        ["build", "--scenes", "1", "--images", "y", "--out", "x"],
        ["build", "--scenes", "1", "--out", "x", "--score", "median"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(args)
    assert caught.value.code == 2


def test_errors_are_one_line_and_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dear.txt").touch()
    for args in (
        ["--images", str(tmp_path / "nowhere"), "--out", str(tmp_path / "s")],
        ["--scenes", "1", "--out", str(tmp_path)],
        ["--scenes", "1", "--out", str(tmp_path / "s"), "--sae", str(tmp_path / "no.safetensors")],
    ):
        assert command.main(["build", *args]) == 1
        text = capsys.readouterr().err
        assert text.startswith("error: ")
        assert text.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["dear.txt"]


def test_an_interrupt_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_build", interrupted)
    assert command.main(["build", "--scenes", "1", "--out", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_names_both_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "build" in text
    assert "train-sae" in text
