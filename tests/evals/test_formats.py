"""The comparison with other projects' own answers: on the files that ship, and on files that are off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.evals.formats import compare, main
from explorer.sae import SAE, ActivationRule

GOLDEN = Path(__file__).parents[1] / "golden" / "sae"


def made(folder: Path) -> Path:
    """An SAE of the explorer's own beside its answers."""
    draw = torch.Generator().manual_seed(0)
    weights = (torch.randn(shape, generator=draw) for shape in ((4, 9), (9,), (9, 4), (4,)))
    sae = SAE(*weights, ActivationRule("topk", k=2)).requires_grad_(False)
    sae.save(folder / "sae.safetensors")
    x = torch.randn(6, 4, generator=draw)
    save_file({"x": x, "z": sae.encode(x), "x_hat": sae(x), "more": x + 1}, folder / "io.safetensors")
    return folder


def changed(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace answers, or take them out (None)."""
    held = load_file(folder / "io.safetensors") | tensors
    save_file({name: one for name, one in held.items() if one is not None}, folder / "io.safetensors")


def test_every_file_that_ships_is_read_as_its_project_means_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="the hint scaling_factor"):
        status = main([str(GOLDEN), "--hints", str(GOLDEN / "hints.json")])
    lines = capsys.readouterr().out.splitlines()
    count = len([folder for folder in GOLDEN.iterdir() if folder.is_dir()])
    assert lines[-1] == f"{count - 1} of {count} agree within 0.0001" and status == 1
    (refused,) = [line for line in lines if line.startswith("sparsify-skip-transcoder")]
    assert "transcode is true: a transcoder" in refused


def test_distances_are_the_largest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = load_file(made(tmp_path) / "io.safetensors")
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 agree within 0.0001"
    held["z"][2, 3] += 0.25
    held["x_hat"][1, 1] -= 0.5
    changed(tmp_path, **held)
    found = compare(tmp_path, "here")
    assert found.dz == pytest.approx(0.25) and found.dx_hat == pytest.approx(0.5)
    assert (found.format, found.kind, found.error) == ("own", "topk", "")
    assert main([str(tmp_path)]) == 1 and main([str(tmp_path), "--tolerance", "0.6"]) == 0


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(made(tmp_path), z=torch.zeros(6, 8))
    assert "z has the shape [6, 8]; expected [n = 6, F = 9]" in compare(tmp_path, "x").error
    changed(tmp_path, z=None)
    assert "it misses z" in compare(tmp_path, "x").error
    (tmp_path / "sae.safetensors").unlink()
    assert compare(tmp_path, "x").error.startswith(f"{tmp_path} holds no weights of an SAE")
    assert main([str(tmp_path)]) == 1
    capsys.readouterr()
    (tmp_path / "io.safetensors").unlink()
    assert main([str(tmp_path)]) == 2
    assert "holds no io.safetensors" in capsys.readouterr().err


def test_hints_for_nobody_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path)
    for hints, words in (({"mine": {"top_k": 3}}, "no checkpoint 'mine'"), ({".": {"top_k": 3}}, None)):
        (tmp_path / "hints.json").write_text(json.dumps(hints))
        status = main([str(tmp_path), "--hints", str(tmp_path / "hints.json")])
        said = capsys.readouterr()
        if words:
            assert status == 2 and words in said.err
        else:
            assert status == 1 and "unknown hint 'top_k'" in said.out
