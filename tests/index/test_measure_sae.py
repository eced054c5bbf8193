"""The command that tells what an SAE is worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from explorer.sae import SAE, ActivationRule
from explorer.vlm import open_lvlm
from index.__main__ import main


def sae_of(width: int, kept: float = 1.0, folder: Path | None = None) -> Path:
    """Neurons along all axes, both ways: exact for kept = 1; smaller ones lose that much of everything."""
    eye = torch.cat([torch.eye(width), -torch.eye(width)])
    zeros = torch.zeros(2 * width), torch.zeros(width)
    sae = SAE(eye.T.clone(), zeros[0], kept * eye, zeros[1], ActivationRule(), group_sizes=(width, width))
    sae.facts["warning"] = "made for a test"
    sae.save(folder / f"{kept}.safetensors")
    return folder / f"{kept}.safetensors"


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command prints."""
    assert main(["measure-sae", "--scenes", "3", "--captions", "2", "--workers", "0", *words]) == 0
    return capsys.readouterr().out


def test_an_exact_sae_keeps_everything(
    tiny_lvlm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(tiny_lvlm_folder), "--quiet"]
    width = open_lvlm(tiny_lvlm_folder).width(2)
    found = json.loads(measured(capsys, *model, "--sae", str(sae_of(width, 1.0, tmp_path)), "--json"))
    assert found["block"] == 2 and found["quality"]["explained_variance"] == pytest.approx(1.0)
    assert found["quality"]["l0"] == width and found["quality"]["vectors"] == 3 * 16
    assert found["preserved"]["captions"] == 1.0 and found["preserved"]["pictures"] == 2
    poor = json.loads(measured(capsys, *model, "--sae", str(sae_of(width, 0.1, tmp_path)), "--json"))
    assert poor["quality"]["explained_variance"] < 0.6
    assert poor["preserved"]["divergence"] > found["preserved"]["divergence"]


def test_what_people_read(tiny_lvlm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sae = sae_of(open_lvlm(tiny_lvlm_folder).width(2), 1.0, tmp_path)
    out = measured(capsys, "--model", str(tiny_lvlm_folder), "--sae", str(sae), "--captions", "0")
    assert "64 neurons of width 32, relu, 2 Matryoshka groups; here on block 2 of tiny@" in out
    assert "its files say: warning made for a test" in out
    assert "explained variance 1.0000, 32.0 active neurons per vector" in out and "captions" not in out


def test_pictures_that_cannot_be_read_are_told(
    tiny_lvlm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.effect_noise((40, 30), 60).convert("RGB").save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    sae = sae_of(open_lvlm(tiny_lvlm_folder).width(2), 1.0, tmp_path)
    words = ["--images", str(folder), "--model", str(tiny_lvlm_folder), "--sae", str(sae), "--workers", "0"]
    assert main(["measure-sae", *words, "--captions", "2"]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 pictures could not be read" in out and "b.png" in out


def test_pictures_none_of_which_can_be_read_are_told(
    tiny_lvlm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"no picture")
    sae = sae_of(open_lvlm(tiny_lvlm_folder).width(2), 1.0, tmp_path)
    words = ["--images", str(folder), "--model", str(tiny_lvlm_folder), "--sae", str(sae), "--workers", "0"]
    assert main(["measure-sae", *words]) == 1
    assert "none of the 2 pictures can be used; a.png: " in capsys.readouterr().err


def test_an_sae_of_another_width_is_refused(
    tiny_lvlm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = sae_of(7, 1.0, tmp_path)
    words = ["--scenes", "2", "--model", str(tiny_lvlm_folder), "--sae", str(sae), "--workers", "0"]
    assert main(["measure-sae", *words]) == 1
    assert "vectors of width 7" in capsys.readouterr().err
