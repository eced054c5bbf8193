"""Checkpoints of sparsify and multimodal-sae: those of their own code, and options in plain formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import load_sae

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
FOLDERS = sorted(
    folder.name
    for pattern in ("sparsify-*", "mmsae-*")
    for folder in GOLDEN.glob(pattern)
    if folder.name != "sparsify-skip-transcoder"
)


def made(d: int = 10, n: int = 30, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random tensors under sparsify's names."""
    draw = torch.Generator().manual_seed(n)
    shapes = {"encoder.weight": (n, d), "encoder.bias": (n,), "W_dec": (n, d), "b_dec": (d,)}
    return {name: torch.randn(*shape, generator=draw).to(dtype) for name, shape in shapes.items()}


def settings(**more: object) -> dict[str, Any]:
    """A cfg.json of sparsify 1.x."""
    config = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": 30}
    config |= {"k": 6, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": 10}
    return config | more


def written(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Path:
    """A folder, named after a hook, with the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "sae.safetensors")
    if config is not None:
        (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def restated(tensors: dict[str, Tensor], x: Tensor, rule: str, k: int) -> tuple[Tensor, Tensor]:
    """z and x_hat as sparsify defines them, neuron by neuron in float64."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    p = torch.stack([(row - t["b_dec"]) @ t["encoder.weight"].T for row in x.double()]) + t["encoder.bias"]
    z = torch.zeros_like(p)
    for row, out in zip(p, z, strict=True):
        positive = row if rule == "signed" else row.clamp(min=0)
        if rule == "groupmax":
            size = len(row) // k
            places = [
                max(range(start, start + size), key=positive.__getitem__)
                for start in range(0, len(row), size)
            ]
        else:
            places = sorted(range(len(row)), key=lambda place, row=positive: -abs(row[place]))[:k]
        for place in places:
            out[place] = positive[place]
    return z.float(), (z @ t["W_dec"] + t["b_dec"]).float()


def vectors(d: int = 10) -> Tensor:
    return torch.randn(16, d, generator=torch.Generator().manual_seed(3)) * 2


def same(path: Path, tensors: dict[str, Tensor], rule: str = "topk", k: int = 6) -> None:
    """Whether the file is read as sparsify would compute it."""
    x = vectors(tensors["b_dec"].numel())
    sae, (z, x_hat) = load_sae(path), restated(tensors, x, rule, k)
    assert z.count_nonzero() >= len(x)
    torch.testing.assert_close(sae.encode(x), z, atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(z), x_hat, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FOLDERS)
def test_agrees_with_its_own_code(name: str) -> None:
    seen = load_file(GOLDEN / name / "io.safetensors")
    sae = load_sae(GOLDEN / name)
    torch.testing.assert_close(sae.encode(seen["x"]), seen["z"], atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(seen["z"]), seen["x_hat"], atol=1e-4, rtol=0)


def test_goldens_are_there() -> None:
    assert len(FOLDERS) == 8


def test_a_transcoder_is_refused() -> None:
    with pytest.raises(SAEError, match="transcode is true: a transcoder predicts"):
        load_sae(GOLDEN / "sparsify-skip-transcoder")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("activation", "k"), [("topk", 1), ("topk", 30), ("groupmax", 5), ("groupmax", 30)])
def test_activations_and_types(tmp_path: Path, activation: str, k: int, dtype: torch.dtype) -> None:
    tensors = made(dtype=dtype)
    same(written(tmp_path / "h.1", tensors, settings(activation=activation, k=k)), tensors, activation, k)


def test_signs_are_kept_where_the_settings_of_2024_say_so(tmp_path: Path) -> None:
    tensors = made()
    old = {"expansion_factor": 3, "normalize_decoder": True, "k": 6, "signed": True, "d_in": 10}
    same(written(tmp_path / "layer_3", tensors, old), tensors, "signed")
    assert load_sae(tmp_path).encode(vectors()).min() < 0
    with pytest.raises(SAEError, match="signed is true beside a newer setting"):
        load_sae(written(tmp_path / "layer_3", tensors, old | {"multi_topk": False}))


@pytest.mark.parametrize(
    "config",
    [
        settings(num_latents=0, expansion_factor=3),
        settings(normalize_decoder=False),
        settings(embed_skip=False, gram_lookup=False, lookup_max_order=4, gram_table_hash=None),
        {"k": 6, "d_in": 10, "expansion_factor": 3, "multi_topk": False, "signed": False},
        {"k": 6, "expansion_factor": 9},
    ],
)
def test_settings_that_change_nothing(tmp_path: Path, config: dict) -> None:
    tensors = made()
    same(written(tmp_path / "layers.0.mlp", tensors, config), tensors)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (settings(transcode=True), "transcode is true"),
        (settings(skip_connection=True), "skip_connection is true"),
        (settings(embed_skip=True), "embed_skip is true"),
        (settings(gram_lookup=True), "gram_lookup is true"),
        (settings(activation="lottery"), "the activation is 'lottery'; expected one of topk, groupmax"),
        (settings(k=0), "k is 0; expected a whole number from 1 to 30"),
        (settings(k=31), "k is 31"),
        (settings(k="6"), "k is '6'"),
        (settings(activation="groupmax", k=7), "cannot be split into k = 7"),
        (settings(num_latents=40), r"expected \[F = 40"),
        (settings(num_latents=0, expansion_factor=4), r"expected \[F = 40"),
        (settings(d_in=11), r"expected \[d = 11\]"),
        (settings(num_latents=-1), "num_latents is -1"),
        (settings(transcode="no"), "transcode is 'no'"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, config: dict, words: str) -> None:
    with pytest.raises(SAEError, match=words):
        load_sae(written(tmp_path / "layers.2", made(), config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W_dec": None}, "misses W_dec"),
        ({"W_dec": torch.zeros(10, 30)}, "is it transposed"),
        ({"W_skip": torch.zeros(10, 10)}, "it has W_skip"),
        ({"W_embed_skip": torch.zeros(10, 4)}, "it has W_embed_skip"),
        ({"log_threshold": torch.zeros(30)}, "has 'log_threshold'"),
        ({"encoder.bias": torch.full((30,), torch.nan)}, "not finite"),
        ({"encoder.weight": torch.zeros(30, 10, dtype=torch.int8)}, "int8"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, change: dict, words: str) -> None:
    tensors = {name: tensor for name, tensor in (made() | change).items() if tensor is not None}
    with pytest.raises(SAEError, match=words):
        load_sae(written(tmp_path / "layers.2", tensors, settings()))


def test_several_hooks_in_a_folder(tmp_path: Path) -> None:
    for hook, n in (("layers.2", 30), ("layers.10", 20)):
        written(tmp_path / hook, made(n=n), settings(num_latents=n))
    with pytest.raises(SAEError, match=r"layers\.10, layers\.2"):
        load_sae(tmp_path)
    same(tmp_path / "layers.10", made(n=20))
    same(tmp_path / "layers.10" / "sae.safetensors", made(n=20))


def test_a_whole_run_with_one_hook(tmp_path: Path) -> None:
    written(tmp_path / "layers.2", made(), settings())
    for name in ("state.pt", "rank_0_state.pt", "optimizer_0.pt", "lr_scheduler_0.pt"):
        torch.save({"fired": torch.zeros(30)}, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"model": "openai/clip", "sae": settings()}))
    same(tmp_path, made())
    assert load_sae(tmp_path).facts["model"] == "openai/clip"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_a_wrapped_model(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in made().items()}
    sae = load_sae(written(tmp_path / "layers.2", wrapped, settings()))
    assert sae.id == load_sae(written(tmp_path / "plain" / "layers.2", made(), settings())).id


def test_a_folder_named_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's name is the hook, also where the path does not spell it."""
    (tmp_path / "config.json").write_text(json.dumps({"model": "openai/clip"}))
    place = written(tmp_path / "encoder.layers.2", made(), settings())
    (place / "deeper").mkdir()
    for here, path in ((place, "."), (place, "sae.safetensors"), (place / "deeper", "..")):
        monkeypatch.chdir(here)
        sae = load_sae(path)
        assert (sae.site_block, sae.facts["hook"], sae.facts["model"]) == (2, place.name, "openai/clip")


def test_seeds_below_a_hook(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "openai/clip"}))
    for seed in (0, 1):
        written(tmp_path / "encoder.layers.2" / f"seed{seed}", made(), settings())
    with pytest.raises(SAEError, match=r"seed0, .*seed1"):
        load_sae(tmp_path)
    sae = load_sae(tmp_path / "encoder.layers.2" / "seed1")
    assert (sae.site_block, sae.facts["hook"], sae.facts["model"]) == (2, "encoder.layers.2", "openai/clip")


def test_weights_alone_ask_for_k(tmp_path: Path) -> None:
    path = written(tmp_path / "layers.2", made(), None)
    with pytest.raises(SAEError, match="do not say k; pass it as the hint top_k"):
        load_sae(path)
    z, _ = restated(made(), vectors(), "topk", 6)
    torch.testing.assert_close(load_sae(path, {"top_k": 6}).encode(vectors()), z, atol=1e-4, rtol=0)
    with pytest.raises(SAEError, match="k is 99"):
        load_sae(path, {"top_k": 99})


@pytest.mark.parametrize(
    ("hook", "block"),
    [
        ("layers.2", 2),
        ("encoder.layers.2", 2),
        ("vision_tower.vision_model.encoder.layers.2", 2),
        ("visual.transformer.resblocks.2", 2),
        ("encoder.layer.2", 2),
        ("model.visual.blocks.2", 2),
        ("model.layers.2", None),
        ("model.model.layers.2", None),
        ("transformer.resblocks.2", None),
        ("qformer.encoder.layer.2", None),
        ("language_model.model.layers.2", None),
        ("model.language_model.layers.2", None),
        ("text_model.encoder.layers.2", None),
        ("layers.2.mlp", None),
        ("embed_tokens", None),
    ],
)
def test_the_folder_names_the_place(tmp_path: Path, hook: str, block: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "openai/clip", "sae": {}}))
    sae = load_sae(written(tmp_path / hook, made(), settings()))
    assert (sae.site_block, sae.facts["hook"], sae.facts["model"]) == (block, hook, "openai/clip")
    assert sae.facts["format"] == "sparsify" and sae.facts["class"] == "SparseCoder"
    assert sae.model_id is None and sae.tokens is None


def test_a_commit_names_no_place(tmp_path: Path) -> None:
    """As the folder of a repository is called in the hub's cache."""
    assert load_sae(written(tmp_path / ("0123456789" * 4), made(), settings())).facts["hook"] is None


def test_multimodal_sae_is_told_apart(tmp_path: Path) -> None:
    config = {
        "expansion_factor": 3,
        "k": 6,
        "num_latents": 0,
        "multi_topk": False,
        "signed": False,
        "d_in": 10,
    }
    sae = load_sae(written(tmp_path / "model.layers.24", made(), config))
    assert sae.facts["project"] == "EvolvingLMMs-Lab/multimodal-sae" and sae.facts["class"] == "Sae"
