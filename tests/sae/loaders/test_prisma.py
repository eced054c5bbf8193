"""ViT-Prisma checkpoints: those that its own code wrote, and its options restated here in plain formulas."""

from __future__ import annotations

import json
import math
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
FOLDERS = sorted(folder.name for folder in GOLDEN.glob("prisma-*"))
MODULE, CLASS = "vit_prisma.sae.config", "VisionModelSAERunnerConfig"


def made(gated: bool = False, d: int = 8, n: int = 24) -> dict[str, Tensor]:
    """Random tensors under ViT-Prisma's names."""
    draw = torch.Generator().manual_seed(d)
    shapes = {"W_enc": (d, n), "W_dec": (n, d), "b_enc": (n,), "b_dec": (d,)}
    shapes |= dict.fromkeys(("b_gate", "r_mag", "b_mag"), (n,)) if gated else {}
    return {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}


def settings(**more: object) -> dict[str, Any]:
    """The settings of ViT-Prisma that matter, and a few that do not."""
    config = {"model_class_name": "HookedViT", "model_name": "open-clip:laion/CLIP", "vit_model_cfg": None}
    config |= {"hook_point_layer": 9, "layer_subtype": "hook_resid_post", "hook_point_head_index": None}
    config |= {"architecture": "standard", "d_in": 8, "expansion_factor": 3, "is_transcoder": False}
    config |= {"activation_fn_str": "relu", "activation_fn_kwargs": {}, "normalize_activations": "none"}
    return config | {"cls_token_only": False, "use_patches_only": False, "l1_coefficient": 2e-4} | more


def split(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    """weights.pt with the tensors alone, and config.json beside it."""
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def whole(path: Path, tensors: dict[str, Tensor], config: dict[str, Any], name: str = CLASS) -> Path:
    """One file with the tensors and the settings as an object of ViT-Prisma's class, which is gone again."""
    module = types.ModuleType(MODULE)
    kind = type(name, (), {"__module__": MODULE})
    setattr(module, name, kind)
    record = kind()
    record.__dict__.update(config)
    packages = {
        "vit_prisma": types.ModuleType("vit_prisma"),
        "vit_prisma.sae": types.ModuleType("vit_prisma.sae"),
    }
    sys.modules.update(packages | {MODULE: module})
    try:
        torch.save({"cfg": record, "state_dict": tensors}, path)
    finally:
        for loaded in (*packages, MODULE):
            del sys.modules[loaded]
    return path


def restated(t: dict[str, Tensor], config: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """z and x_hat as ViT-Prisma defines them, in float64: normalise, then take b_dec off."""
    t, x = {name: tensor.double() for name, tensor in t.items()}, x.double()
    factor, shift = torch.ones(len(x), 1), torch.zeros(len(x), 1)
    if config["normalize_activations"] == "layer_norm":
        shift = x.mean(1, keepdim=True)
        factor = ((x - shift).pow(2).sum(1, keepdim=True) / (x.shape[1] - 1)).sqrt()
        x = (x - shift) / (factor + 1e-5)
    if config["normalize_activations"] == "constant_norm_rescale":
        factor = x.pow(2).sum(1, keepdim=True).sqrt() / math.sqrt(x.shape[1])
        x = x / factor
    u = (x - t["b_dec"]) @ t["W_enc"]
    if config["architecture"] == "gated":
        z = (u + t["b_gate"] > 0) * ((x - t["b_dec"]) @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]).clamp(
            min=0
        )
    else:
        p = u + t["b_enc"]
        kept = torch.ones_like(p)
        if config["activation_fn_str"] == "topk":
            kept = p >= p.sort(dim=1).values[:, -config["activation_fn_kwargs"]["k"]][:, None]
        z = p.clamp(min=0) * kept
    return z.float(), ((z @ t["W_dec"] + t["b_dec"]) * factor + shift).float()


def vectors(d: int = 8) -> Tensor:
    """The first one is so short that what is added to its deviation counts."""
    x = torch.randn(20, d, generator=torch.Generator().manual_seed(11)) * 2 - 1
    x[0] *= 1e-3
    return x


def same(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Whether the file is read as ViT-Prisma would compute it."""
    x = vectors(tensors["b_dec"].numel())
    sae, (z, x_hat) = load_sae(path), restated(tensors, config, x)
    assert z.count_nonzero() > len(x)
    torch.testing.assert_close(sae.encode(x), z, atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(sae.encode(x), x), x_hat, atol=1e-4, rtol=0)
    kind = "Gated" if config["architecture"] == "gated" else "Standard"
    assert sae.facts["class"] == f"{kind}SparseAutoencoder"


@pytest.mark.parametrize("name", FOLDERS)
def test_agrees_with_its_own_code(name: str) -> None:
    seen = load_file(GOLDEN / name / "io.safetensors")
    sae = load_sae(GOLDEN / name)
    torch.testing.assert_close(sae.encode(seen["x"]), seen["z"], atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(seen["z"], seen["x"]), seen["x_hat"], atol=1e-4, rtol=0)
    assert sae.facts["hook"] == "blocks.9.ln2.hook_normalized" and sae.site_block is None
    assert sae.tokens == "all"


def test_goldens_are_there() -> None:
    assert len(FOLDERS) == 7


@pytest.mark.parametrize(
    "normalised", ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in", None]
)
@pytest.mark.parametrize("kind", ["relu", "topk", "gated"])
def test_each_kind_with_each_input(tmp_path: Path, kind: str, normalised: str | None) -> None:
    tensors = made(kind == "gated")
    config = settings(normalize_activations=normalised)
    config |= {"architecture": "gated"} if kind == "gated" else {}
    config |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}} if kind == "topk" else {}
    same(split(tmp_path / "split", tensors, config), tensors, config)
    same(whole(tmp_path / "n_images_13.pt", tensors, config), tensors, config)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in made().items()}
    same(split(tmp_path / "split", tensors, settings()), tensors, settings())


def test_settings_in_the_file_come_before_those_beside_it(tmp_path: Path) -> None:
    tensors = made()
    (tmp_path / "config.json").write_text(json.dumps(settings(normalize_activations="layer_norm")))
    more = {"device": torch.device("cpu"), "dtype": torch.float32, "d_sae": 24, "hook_point": "blocks.9.x"}
    same(whole(tmp_path / "weights.pt", tensors, settings(**more)), tensors, settings())


def test_settings_as_older_versions_wrote_them(tmp_path: Path) -> None:
    tensors = made()
    config = settings(
        architecture="vanilla",
        device={"__type__": "torch.device", "value": "cuda"},
        dtype={"__type__": "torch.dtype", "value": "torch.float32"},
        expansion_factor=3.0,
        hook_point_layer=[9],
        activation_fn_kwargs=None,
        d_sae=24,
        total_training_tokens=65_000_000,
    )
    path = split(tmp_path / "split", tensors, config)
    same(path, tensors, settings())
    assert load_sae(path).site_block == 9
    del config["activation_fn_kwargs"], config["use_patches_only"], config["architecture"]
    same(split(tmp_path / "split", tensors, config), tensors, settings())


def test_sparsity_beside_the_weights_is_left_alone(tmp_path: Path) -> None:
    tensors = made()
    whole(tmp_path / "n_images_13.pt", tensors, settings())
    torch.save(torch.zeros(24), tmp_path / "n_images_13_log_feature_sparsity.pt")
    same(tmp_path, tensors, settings())
    whole(tmp_path / "n_images_26.pt", tensors, settings())
    with pytest.raises(SAEError, match=r"n_images_13\.pt, n_images_26\.pt"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"cls_token_only": True}, "cls"),
        ({"use_patches_only": True}, "patches"),
        ({}, "all"),
    ],
)
def test_tokens(tmp_path: Path, more: dict, tokens: str) -> None:
    assert load_sae(split(tmp_path / "split", made(), settings(**more))).tokens == tokens


def test_tokens_that_are_not_said(tmp_path: Path) -> None:
    config = settings()
    del config["cls_token_only"]
    assert load_sae(split(tmp_path / "split", made(), config)).tokens is None
    patches = split(tmp_path / "patches", made(), config | {"use_patches_only": True})
    assert load_sae(patches).tokens == "patches"
    del config["use_patches_only"]
    assert load_sae(split(tmp_path / "neither", made(), config)).tokens is None


@pytest.mark.parametrize(
    ("more", "hook", "block"),
    [
        ({}, "blocks.9.hook_resid_post", 9),
        ({"layer_subtype": "hook_resid_pre"}, "blocks.9.hook_resid_pre", 8),
        ({"layer_subtype": "hook_resid_pre", "hook_point_layer": 0}, "blocks.0.hook_resid_pre", None),
        ({"layer_subtype": "hook_mlp_out"}, "blocks.9.hook_mlp_out", None),
        ({"hook_point_head_index": 3}, "blocks.9.hook_resid_post", None),
        ({"hook_point_layer": [8, 9]}, None, None),
    ],
)
def test_place(tmp_path: Path, more: dict, hook: str | None, block: int | None) -> None:
    sae = load_sae(split(tmp_path / "split", made(), settings(**more)))
    assert (sae.facts["hook"], sae.site_block) == (hook, block)
    assert sae.facts["model"] == "open-clip:laion/CLIP" and sae.model_id is None
    json.dumps(sae.facts)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"is_transcoder": True}, "is_transcoder is true: a transcoder predicts"),
        ({"architecture": "jumprelu"}, "the architecture is 'jumprelu'"),
        ({"activation_fn_str": "tanh-relu"}, "activation function is 'tanh-relu'"),
        ({"activation_fn_str": "topk"}, "k is missing"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 25}}, "k is 25; .* 1 to 24"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2, "postact_fn": "gelu"}}, "postact_fn"),
        ({"activation_fn_kwargs": 3}, "activation_fn_kwargs is 3"),
        ({"normalize_activations": "zscore"}, "normalize_activations is 'zscore'; expected one of none"),
        ({"expansion_factor": 4}, r"expected \[F = 32\]"),
        ({"expansion_factor": math.nan}, "expansion_factor is nan; expected a number above 0"),
        ({"expansion_factor": 1e308}, "expansion_factor is 1e.308; expected a number above 0"),
        ({"expansion_factor": 10**400}, "expansion_factor is 1000"),
        ({"expansion_factor": True}, "expansion_factor is True"),
        ({"d_in": 9, "expansion_factor": None}, r"expected \[d = 9\]"),
        ({"d_in": None}, "d_in is None"),
        ({"cls_token_only": True, "use_patches_only": True}, "both cls_token_only and use_patches_only"),
        ({"cls_token_only": "no"}, "cls_token_only is 'no'"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, more: dict, words: str) -> None:
    with pytest.raises(SAEError, match=words):
        load_sae(split(tmp_path / "split", made(), settings(**more)))


def test_a_normalisation_that_is_not_said_is_not_guessed(tmp_path: Path) -> None:
    config = settings()
    del config["normalize_activations"]
    path = split(tmp_path / "split", made(), config)
    with pytest.raises(SAEError, match="do not say normalize_activations: pass what was used"):
        load_sae(path)
    said = load_sae(path, {"normalize_activations": "layer_norm"})
    assert said.id == load_sae(split(tmp_path / "b", made(), settings(normalize_activations="layer_norm"))).id
    other = split(tmp_path / "c", made(), settings(normalize_activations="none"))
    assert load_sae(other, {"normalize_activations": "layer_norm"}).scaling.kind == "none"


@pytest.mark.parametrize(
    ("gated", "change", "words"),
    [
        (False, {"b_enc": None}, "misses b_enc"),
        (False, {"W_dec": torch.zeros(8, 24)}, "is it transposed"),
        (False, {"b_dec": torch.full((8,), torch.inf)}, "not finite"),
        (False, {"W_skip": torch.zeros(8, 8)}, "has 'W_skip'"),
        (True, {"r_mag": None}, "misses r_mag"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, gated: bool, change: dict, words: str) -> None:
    tensors = {name: tensor for name, tensor in (made(gated) | change).items() if tensor is not None}
    with pytest.raises(SAEError, match=words):
        load_sae(split(tmp_path / "split", tensors, settings(architecture="gated" if gated else "standard")))


def test_a_gated_sae_with_topk_is_refused(tmp_path: Path) -> None:
    config = settings(architecture="gated", activation_fn_str="topk", activation_fn_kwargs={"k": 3})
    with pytest.raises(SAEError, match="gated SAE is 'topk'"):
        load_sae(split(tmp_path / "split", made(True), config))


def test_no_other_class_is_let_in(tmp_path: Path) -> None:
    path = whole(tmp_path / "weights.pt", made(), settings(), "OtherConfig")
    with pytest.raises(UnsafeFileError, match=r"vit_prisma\.sae\.config\.OtherConfig"):
        load_sae(path)
