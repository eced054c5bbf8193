"""The command that holds SAEs against other projects' own code, with a project that is made up here."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from explorer.evals.peers import dictionary_learning, overcomplete, sae_lens, saev, sparsify
from explorer.evals.peers.__main__ import PEERS, main
from explorer.evals.peers.made import Codes, Made, sizes

WIDTH, NEURONS, K = 5, 12, 3


def sparsify_like(off: float = 0.0, hints: dict[str, object] | None = None) -> SimpleNamespace:
    """A project that writes sparsify's files; its own z is `off` more wherever a neuron fires."""

    def make(draw: Random, folder: Path) -> Made:
        tensors = {
            "encoder.weight": torch.randn(NEURONS, WIDTH),
            "encoder.bias": torch.randn(NEURONS),
            "W_dec": torch.randn(NEURONS, WIDTH),
            "b_dec": torch.randn(WIDTH),
        }
        place = folder / "layers.3"
        place.mkdir()
        save_file(tensors, place / "sae.safetensors")
        (place / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "num_latents": NEURONS, "k": K}))

        def run(x: Tensor) -> Codes:
            p = torch.relu((x - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"])
            best = p.topk(K)
            z = torch.zeros_like(p).scatter(-1, best.indices, best.values)
            return Codes(z + off * (z > 0), z @ tensors["W_dec"] + tensors["b_dec"])

        return Made("plain", folder, WIDTH, run, hints or {})

    return SimpleNamespace(PACKAGE="json", make=make)


def test_a_project_that_agrees_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--number", "4"], {"made-up": sparsify_like()}) == 0
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if line.startswith("made-up")).split()
    assert row[:4] == ["made-up", "plain", "4", "0"]
    assert int(row[4]) > 200 and max(map(float, row[5:])) < 1e-5
    assert told.endswith("4 of 4 agree within 0.0001\n")


def test_a_project_that_does_not_agree_is_told_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--number", "1", "--seed", "7"], {"made-up": sparsify_like(off=0.25)}) == 1
    told = capsys.readouterr().out
    assert "made-up, seed 7, plain: off by 2.5e-01 in z" in told
    assert "0 of 1 agree" in told


def test_a_refusal_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--number", "1"], {"made-up": sparsify_like(hints={"top_k": K + 1})}) == 1
    assert f"the files say k = {K}, the hint top_k says {K + 1}" in capsys.readouterr().out


def test_where_no_project_is_installed_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    absent = SimpleNamespace(PACKAGE="no_such_package_here", make=None)
    assert main([], {"made-up": absent}) == 0
    assert (
        capsys.readouterr().out == "none of made-up is installed here, so there is nothing to compare with\n"
    )
    assert main(["--number", "1"], {"made-up": absent, "other": sparsify_like()}) == 0
    assert "made-up is not installed" in capsys.readouterr().out


def test_a_package_that_cannot_be_imported_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def make(draw: Random, folder: Path) -> Made:
        raise ImportError("it wants another numpy")

    assert main([], {"made-up": SimpleNamespace(PACKAGE="json", make=make)}) == 1
    assert "made-up is installed but cannot be imported (it wants another numpy)" in capsys.readouterr().out


def test_a_number_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--number", "0"]) == 2
    assert "--number is 0; give 1 or more" in capsys.readouterr().err


def test_every_module_of_a_project_is_asked() -> None:
    assert set(PEERS.values()) == {dictionary_learning, overcomplete, sae_lens, saev, sparsify}
    assert all(peer.PACKAGE for peer in PEERS.values())


def test_sizes_are_drawn_below_at_and_above_the_width() -> None:
    drawn = [sizes(Random(seed)) for seed in range(60)]
    assert {(neurons > width) - (neurons < width) for width, neurons in drawn} == {-1, 0, 1}
