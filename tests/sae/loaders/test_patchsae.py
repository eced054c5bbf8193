"""PatchSAE: files of the project itself, and its pickle with other settings."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from explorer.errors import SAEError, UnsafeFileError
from explorer.sae import load_sae

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
WIDTH, FACTOR = 6, 4
NEURONS = WIDTH * FACTOR


def state(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (WIDTH, NEURONS), "b_enc": (NEURONS,), "W_dec": (NEURONS, WIDTH), "b_dec": (WIDTH,)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def settings(**others: object) -> dict[str, Any]:
    known = {
        "class_token": None,
        "model_name": "openai/clip-vit-base-patch16",
        "module_name": "resid",
        "block_layer": -2,
        "d_in": WIDTH,
        "d_sae": NEURONS,
        "expansion_factor": FACTOR,
        "gated_sae": None,
        "dtype": torch.float32,
        "device": torch.device("cuda"),
    }
    return known | others


def as_object(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], name: str = "ViTSAERunnerConfig"
) -> object:
    """An object of the project's class, which exists only while it is pickled."""
    kind = type(name, (), {"__module__": "src.sae_training.config"})
    for module in ("src", "src.sae_training", "src.sae_training.config"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    setattr(sys.modules["src.sae_training.config"], name, kind)
    made = kind()
    made.__dict__.update(fields)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("form", ["object", "Config", "dict"])
def test_all_its_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, dtype: torch.dtype
) -> None:
    tensors, fields = state(dtype), settings(dtype=dtype)
    whole = {
        "object": lambda: {"cfg": as_object(monkeypatch, fields), "state_dict": tensors},
        "Config": lambda: {"cfg": as_object(monkeypatch, fields, "Config"), "state_dict": tensors},
        "dict": lambda: {"config": fields, "state_dict": tensors},
    }[form]()
    path = tmp_path / "final_sparse_autoencoder.pt"
    torch.save(whole, path)
    monkeypatch.undo()
    sae = load_sae(path)
    known = {name: tensor.double() for name, tensor in tensors.items()}
    x = torch.randn(40, WIDTH).double()
    z = torch.relu((x - known["b_dec"]) @ known["W_enc"] + known["b_enc"])
    assert torch.allclose(sae.encode(x).double(), z, atol=1e-5)
    assert torch.allclose(sae(x).double(), z @ known["W_dec"] + known["b_dec"], atol=1e-5)
    assert sae.facts["model"] == "openai/clip-vit-base-patch16" and sae.model_id is None
    assert "src.sae_training.config" not in sys.modules


@pytest.mark.parametrize(
    ("fields", "block", "tokens"),
    [
        ({}, 10, "all"),
        ({"class_token": True}, 10, "cls"),
        ({"class_token": False, "block_layer": 7}, 7, "all"),
        ({"model_name": "openai/clip-vit-large-patch14-336"}, 22, "all"),
        ({"model_name": "someone/else"}, None, "all"),
        ({"block_layer": -13}, None, "all"),
        ({"module_name": "mlp", "block_layer": 3}, None, "all"),
        ({"d_sae": None}, 10, "all"),
    ],
)
def test_site_and_tokens(tmp_path: Path, fields: dict, block: int | None, tokens: str) -> None:
    torch.save({"config": settings(**fields), "state_dict": state()}, tmp_path / "out.pt")
    sae = load_sae(tmp_path)
    assert (sae.site_block, sae.tokens) == (block, tokens)


@pytest.mark.parametrize(
    ("fields", "change", "words"),
    [
        ({"gated_sae": True}, {}, r"it is gated"),
        ({}, {"r_mag": torch.zeros(NEURONS), "b_mag": torch.zeros(NEURONS)}, r"it is gated"),
        ({"d_in": 7}, {}, r"b_dec has the shape \[6\]; expected \[d = 7\]"),
        ({"d_sae": 25}, {}, r"b_enc has the shape \[24\]; expected \[F = 25\]"),
        ({"d_in": "six"}, {}, r"d_in is 'six'; expected a whole number"),
        ({"d_sae": None, "expansion_factor": None}, {}, r"expansion_factor is None"),
        ({}, {"W_dec": torch.zeros(WIDTH, NEURONS)}, r"W_dec has the shape \[6, 24\].*transposed"),
        ({}, {"W_enc": torch.full((WIDTH, NEURONS), torch.inf)}, r"W_enc has 144 values that are not finite"),
        ({}, {"more": torch.zeros(2)}, r"it has 'more'"),
    ],
)
def test_what_does_not_add_up(tmp_path: Path, fields: dict, change: dict, words: str) -> None:
    torch.save({"config": settings(**fields), "state_dict": state() | change}, tmp_path / "out.pt")
    with pytest.raises(SAEError, match=rf"out\.pt.*{words}"):
        load_sae(tmp_path)


def test_another_class_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.pt"
    torch.save({"cfg": as_object(monkeypatch, settings(), "Runner"), "state_dict": state()}, path)
    with pytest.raises(UnsafeFileError, match=r"out\.pt asks to import src\.sae_training\.config\.Runner"):
        load_sae(path)


@pytest.mark.parametrize("name", ["out", "dictconfig"])
def test_files_of_the_project_agree(name: str) -> None:
    folder = GOLDEN / f"patchsae-{name}"
    io = load_file(folder / "io.safetensors")
    for place in (folder, folder / "out.pt"):
        sae = load_sae(place)
        z = sae.encode(io["x"])
        assert (z - io["z"]).abs().max() < 1e-4 and (sae.decode(z) - io["x_hat"]).abs().max() < 1e-4
        assert (sae.site_block, sae.tokens) == (10, "all")
