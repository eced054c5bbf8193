"""Files of dictionary_learning and sae-for-vlm: those of their own code, and options in plain formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import load_sae

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
FOLDERS = sorted(folder.name for pattern in ("dictlearn-*", "saevlm-*") for folder in GOLDEN.glob(pattern))
CHECKPOINTS = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/checkpoints/ae_*.pt"))
D, F, K = 7, 30, 4
GROUPS = [5, 10, 15]
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)


def state(kind: str, dtype: torch.dtype = torch.float32, threshold: float = 0.8) -> dict[str, Tensor]:
    """Random tensors under the names of a class, matrices as the transposed views that the project writes."""
    draw = torch.Generator().manual_seed(CLASSES.index(kind))

    def of(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    linear = {"encoder.weight": of(D, F).T, "decoder.weight": of(D, F)}
    plain = {"W_enc": of(F, D).T, "b_enc": of(F), "W_dec": of(F, D), "b_dec": of(D)}
    counted = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}
    match kind:
        case "AutoEncoder":
            return {"bias": of(D), "encoder.bias": of(F), **linear}
        case "AutoEncoderNew":
            return {"encoder.bias": of(F), "decoder.bias": of(D), **linear}
        case "GatedAutoEncoder":
            biases = {"r_mag": of(F) / 3, "gate_bias": of(F), "mag_bias": of(F)}
            return {"decoder_bias": of(D), **biases, **linear}
        case "JumpReluAutoEncoder":
            return {**plain, "threshold": of(F)}
        case "MatryoshkaBatchTopKSAE":
            return {**plain, **counted, "group_sizes": torch.tensor(GROUPS)}
    return {"b_dec": of(D), "encoder.bias": of(F), **linear, **counted}


def restated(kind: str, t: dict[str, Tensor], x: Tensor, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """z and x_hat as the class defines them, in float64."""
    t = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in t.items()}
    x = x.double()
    if kind in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        encoder, decoder, b_enc, b_dec = t["W_enc"], t["W_dec"], t["b_enc"], t["b_dec"]
    else:
        encoder, decoder = t["encoder.weight"].T, t["decoder.weight"].T
        b_enc = t["encoder.bias"] if "encoder.bias" in t else torch.zeros(F).double()
        b_dec = next(t[name] for name in ("bias", "decoder.bias", "decoder_bias", "b_dec") if name in t)
    centred = x if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - b_dec
    p = centred @ encoder + b_enc
    match kind:
        case "GatedAutoEncoder":
            z = (p * t["r_mag"].exp() + t["mag_bias"]).clamp(min=0) * (p + t["gate_bias"] > 0)
        case "JumpReluAutoEncoder":
            z = (p * (p > t["threshold"])).clamp(min=0)
        case "AutoEncoderTopK":
            least = p.clamp(min=0).sort(dim=1, descending=True).values[:, [K - 1]]
            z = p.clamp(min=0) * (p >= least)
        case "BatchTopKSAE" | "MatryoshkaBatchTopKSAE":
            z = p.clamp(min=0) * (p.clamp(min=0) > t["threshold"])
        case _:
            z = p.clamp(min=0)
    x_hat = z @ decoder + b_dec
    scaled = z * decoder.norm(dim=1) if kind == "AutoEncoder" and normalize else z
    return scaled.float(), x_hat.float()


def written(folder: Path, tensors: Any, kind: str | None = None, name: str = "ae.pt", **more: object) -> Path:
    """A folder as the project's training leaves it; more: entries of the trainer's configuration."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / name)
    if kind is not None:
        trainer = {"dict_class": kind, "activation_dim": D, "dict_size": F, "k": K, **more}
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"io": "out"}}))
    return folder


def vectors() -> Tensor:
    return torch.randn(24, D, generator=torch.Generator().manual_seed(3)) * 2


def same(sae_of: Any, kind: str, tensors: dict[str, Tensor], normalize: bool = True) -> None:
    """Whether the SAE computes what the class does."""
    x = vectors()
    z, x_hat = restated(kind, tensors, x, normalize)
    assert z.count_nonzero() >= len(x)
    torch.testing.assert_close(sae_of.encode(x), z, atol=1e-4, rtol=0)
    torch.testing.assert_close(sae_of.decode(z), x_hat, atol=1e-4, rtol=0)


def test_goldens_are_there() -> None:
    assert len(FOLDERS) == 10 and len(CHECKPOINTS) == 11


@pytest.mark.parametrize("name", FOLDERS)
def test_agrees_with_its_own_code(name: str) -> None:
    seen, sae = load_file(GOLDEN / name / "io.safetensors"), load_sae(GOLDEN / name)
    torch.testing.assert_close(sae.encode(seen["x"]), seen["z"], atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(seen["z"]), seen["x_hat"], atol=1e-4, rtol=0)
    if "z_no_normalize_decoder" in seen:
        raw = load_sae(GOLDEN / name, {"normalize_decoder": False})
        torch.testing.assert_close(raw.encode(seen["x"]), seen["z_no_normalize_decoder"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_find_their_configuration_one_folder_up(name: str) -> None:
    seen = load_file(GOLDEN / name.split("/")[0] / "io.safetensors")
    wanted = "z_ckpt0" if name.endswith("ae_0.pt") else "z_ckpt"
    sae = load_sae(GOLDEN / name)
    if wanted in seen:
        torch.testing.assert_close(sae.encode(seen["x"]), seen[wanted], atol=1e-4, rtol=0)
    else:
        assert (
            name == "dictlearn-batchtopk-backup/checkpoints/ae_11.pt" and sae.facts["class"] == "BatchTopKSAE"
        )


def test_what_the_files_say_of_themselves() -> None:
    sae = load_sae(GOLDEN / "dictlearn-batchtopk")
    assert sae.facts == {
        "format": "dictionary_learning",
        "project": "saprmarks/dictionary_learning",
        "class": "BatchTopKSAE",
        "model": "openai/clip-vit-large-patch14-336",
        "hook": "resid_post, layer 7",
        "trainer": "BatchTopKTrainer",
    }
    assert (sae.site_block, sae.model_id, sae.tokens, sae.rule.k) == (7, None, None, 3)
    other = load_sae(GOLDEN / "saevlm-matroyshka")
    assert other.facts["format"] == "sae-for-vlm" and other.facts["class"] == "MatroyshkaBatchTopKSAE"
    assert other.site_block is None and other.group_sizes == (2, 7, 31)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", CLASSES)
def test_classes_and_types(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    tensors = state(kind, dtype)
    sae = load_sae(written(tmp_path / "trainer_0", tensors, kind))
    same(sae, kind, tensors)
    assert sae.W_enc.dtype == torch.float32 and sae.n_neurons == F and sae.width == D
    assert sae.group_sizes == (tuple(GROUPS) if kind.startswith("Matryoshka") else (F,))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_an_interrupted_run_is_scaled_to_raw_vectors(tmp_path: Path, kind: str, threshold: float) -> None:
    """The state dict in it holds biases for x / factor; the peer's own scale_biases is restated here."""
    factor, tensors = 2.5, state(kind, threshold=threshold)
    scaled = {
        name: tensor
        if tensor.ndim > 1 or name in ("r_mag", "k", "group_sizes") or (tensor.ndim == 0 and tensor < 0)
        else tensor * factor
        for name, tensor in tensors.items()
    }
    kept = {"step": 3, "ae": tensors, "optimizer": {"state": {}}, "norm_factor": factor}
    kept["config"] = {"dict_class": kind, "k": K}
    for config in (None, kind):
        same(load_sae(written(tmp_path / "run", kept, config)), kind, scaled)
    del kept["norm_factor"]
    torch.save(kept, tmp_path / "run" / "ae.pt")
    with pytest.raises(SAEError, match=r"interrupted run that does not say its norm_factor: pass hints"):
        load_sae(tmp_path / "run")
    same(load_sae(tmp_path / "run", {"norm_factor": factor}), kind, scaled)
    torch.save(kept | {"norm_factor": 10**400}, tmp_path / "run" / "ae.pt")
    with pytest.raises(SAEError, match=r"norm_factor is 10000.*; expected a number above 0"):
        load_sae(tmp_path / "run")


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
@pytest.mark.parametrize("threshold", [-1.0, float("inf")])
def test_unusual_thresholds_are_legitimate(tmp_path: Path, kind: str, threshold: float) -> None:
    tensors, x = state(kind, threshold=threshold), vectors()
    sae = load_sae(written(tmp_path, tensors, kind))
    torch.testing.assert_close(sae.encode(x), restated(kind, tensors, x)[0], atol=1e-4, rtol=0)
    codes = sae.encode_sparse(x)
    assert len(codes.values) == int(sae.encode(x).count_nonzero())
    if threshold > 0 and kind != "AutoEncoderTopK":
        assert not len(codes.values)
    sae.save(tmp_path / "kept.safetensors")
    assert torch.equal(load_sae(tmp_path / "kept.safetensors").encode(x), sae.encode(x))


def test_jumprelu_thresholds_may_be_infinite(tmp_path: Path) -> None:
    tensors = state("JumpReluAutoEncoder")
    tensors["threshold"][::3] = float("inf")
    sae = load_sae(written(tmp_path, tensors, "JumpReluAutoEncoder"))
    same(sae, "JumpReluAutoEncoder", tensors)
    assert not sae.encode(vectors())[:, ::3].any()


def test_hints_stand_for_what_no_file_says(tmp_path: Path) -> None:
    folder, x = written(tmp_path, state("AutoEncoderTopK")), vectors()
    with pytest.raises(SAEError, match=r"fit AutoEncoderTopK and BatchTopKSAE.*'dict_class'"):
        load_sae(folder)
    same(load_sae(folder, {"dict_class": "AutoEncoderTopK"}), "AutoEncoderTopK", state("AutoEncoderTopK"))
    same(load_sae(folder / "ae.pt", {"dict_class": "BatchTopKSAE"}), "BatchTopKSAE", state("AutoEncoderTopK"))
    jump = state("JumpReluAutoEncoder")
    subtracting = load_sae(written(tmp_path, jump, "JumpReluAutoEncoder"), {"apply_b_dec_to_input": True})
    p = (x - jump["b_dec"]) @ jump["W_enc"] + jump["b_enc"]
    expected = (p * (p > jump["threshold"])).relu()
    torch.testing.assert_close(subtracting.encode(x), expected, atol=1e-4, rtol=0)
    raw = load_sae(written(tmp_path, state("AutoEncoder"), "AutoEncoder"), {"normalize_decoder": False})
    same(raw, "AutoEncoder", state("AutoEncoder"), normalize=False)


@pytest.mark.parametrize(
    "kind", ["AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "MatryoshkaBatchTopKSAE"]
)
def test_names_of_tensors_tell_the_class_where_no_configuration_does(tmp_path: Path, kind: str) -> None:
    same(load_sae(written(tmp_path, state(kind), name="mine.pt")), kind, state(kind))


def test_jumprelu_is_known_by_its_name_alone_only_as_ae_pt(tmp_path: Path) -> None:
    kind = "JumpReluAutoEncoder"
    same(load_sae(written(tmp_path / "a", state(kind), name="ae_100.pt")), kind, state(kind))
    with pytest.raises(SAEError):
        load_sae(written(tmp_path / "b", state(kind), name="mine.pt"))


def test_files_without_k_take_it_from_the_configuration(tmp_path: Path) -> None:
    tensors = state("AutoEncoderTopK")
    del tensors["k"], tensors["threshold"]
    same(load_sae(written(tmp_path, tensors, "AutoEncoderTopK")), "AutoEncoderTopK", tensors)
    with pytest.raises(SAEError, match=r"neither the weights nor a config.json say k"):
        load_sae(written(tmp_path, tensors, "AutoEncoderTopK", k=None))
    hinted = load_sae(tmp_path, {"k": K})
    same(hinted, "AutoEncoderTopK", tensors)


def test_an_annealed_k_needs_a_word(tmp_path: Path) -> None:
    folder = written(tmp_path, state("AutoEncoderTopK"), "AutoEncoderTopK", k=9)
    with pytest.raises(SAEError, match="weights say k = 4, the configuration k = 9"):
        load_sae(folder)
    same(load_sae(folder, {"k": K}), "AutoEncoderTopK", state("AutoEncoderTopK"))


@pytest.mark.parametrize(
    ("layer", "hook", "side", "block"),
    [
        (7, "resid_post", "out", 7),
        (7, "resid_post_layer_7", "out", 7),
        (7, "resid_pre_layer_7", "out", 6),
        (7, "resid_post_layer_3", "out", None),
        (7, "resid_post_norm", "out", None),
        (7, "resid_pre", "out", 6),
        (0, "resid_pre", "out", None),
        (7, "resid_post", "in", 6),
        (7, "mlp_out", "out", None),
        ("", "", "out", None),
        (None, "resid_post", "out", None),
    ],
)
def test_the_site(tmp_path: Path, layer: object, hook: str, side: str, block: int | None) -> None:
    folder = written(tmp_path, state("AutoEncoder"), "AutoEncoder", layer=layer, submodule_name=hook)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"buffer": {"io": side}}))
    assert load_sae(folder).site_block == block


def broken(kind: str, **changes: object) -> dict[str, Any]:
    """The tensors of a class with some replaced, or taken out (None)."""
    return {name: value for name, value in (state(kind) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("kind", "tensors", "words"),
    [
        ("IdentityDict", state("AutoEncoder"), "a IdentityDict is no autoencoder of one site"),
        ("CrossCoder", state("AutoEncoder"), "no autoencoder of one site"),
        ("MysteryAutoEncoder", state("AutoEncoder"), "unknown dict_class 'MysteryAutoEncoder'"),
        ("AutoEncoder", state("GatedAutoEncoder"), "it misses bias, encoder.bias; found the"),
        ("AutoEncoder", broken("AutoEncoder", extra=torch.zeros(2)), "it has 'extra'"),
        ("BatchTopKSAE", broken("BatchTopKSAE", threshold=None), "it misses threshold"),
        (
            "BatchTopKSAE",
            broken("BatchTopKSAE", threshold=torch.tensor(float("nan"))),
            "threshold has 1 values that are NaN",
        ),
        (
            "AutoEncoder",
            broken("AutoEncoder", **{"decoder.weight": torch.zeros(F, D)}),
            r"decoder.weight has the shape \[30, 7\]; expected \[d = 7, F = 30\] \(is it transposed\?\)",
        ),
        ("AutoEncoder", broken("AutoEncoder", bias=torch.full((D,), float("inf"))), "bias has 7 values that"),
        ("AutoEncoder", broken("AutoEncoder", bias=torch.zeros(D).long()), "bias holds torch.int64"),
        ("AutoEncoderTopK", broken("AutoEncoderTopK", k=torch.tensor(31)), "k is 31; expected .* to 30"),
        ("AutoEncoderTopK", broken("AutoEncoderTopK", k=torch.tensor(0)), "k is 0; expected a whole number"),
        ("AutoEncoderTopK", broken("AutoEncoderTopK", k=torch.tensor(2.5)), "expected a whole number from 1"),
        ("AutoEncoderTopK", broken("AutoEncoderTopK", k=torch.tensor([3, 4])), "k is tensor"),
        (
            "MatryoshkaBatchTopKSAE",
            broken("MatryoshkaBatchTopKSAE", group_sizes=torch.tensor([5, 10, 16])),
            r"group_sizes \(5, 10, 16\) sum to 31; expected sizes above 0 that sum to 30",
        ),
        (
            "MatryoshkaBatchTopKSAE",
            broken("MatryoshkaBatchTopKSAE", group_sizes=None),
            "group_sizes is nothing; expected whole numbers",
        ),
        (
            "MatryoshkaBatchTopKSAE",
            broken("MatryoshkaBatchTopKSAE", group_sizes=torch.tensor(30)),
            r"group_sizes is torch.int64 of shape \[\]; expected whole numbers \[groups\]",
        ),
        (
            "GatedAutoEncoder",
            broken("GatedAutoEncoder", r_mag=torch.full((F,), 100.0)),
            r"exp\(r_mag\) has 30 values that are not finite",
        ),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_refused(tmp_path: Path, kind: str, tensors: dict, words: str) -> None:
    with pytest.raises(SAEError, match=words) as refused:
        load_sae(written(tmp_path, tensors, kind))
    assert str(tmp_path / "ae.pt") in str(refused.value)


def test_a_configuration_of_other_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SAEError, match=r"bias has the shape \[7\]; expected \[d = 8\]"):
        load_sae(written(tmp_path, state("AutoEncoder"), "AutoEncoder", activation_dim=8))
    nested = "MatryoshkaBatchTopKSAE"
    with pytest.raises(SAEError, match=r"\[5, 10, 15\] in the weights and \[5, 25\] in the configuration"):
        load_sae(written(tmp_path / "nested", state(nested), nested, group_sizes=[5, 25]))


def test_transcoders_and_strange_hints_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, state("AutoEncoder"), "AutoEncoder")
    with pytest.raises(
        SAEError, match="unknown hint 'top_k' for a file of dictionary_learning; known: dict_class"
    ):
        load_sae(folder, {"top_k": 3})
    with pytest.raises(
        SAEError, match="configuration says dict_class 'AutoEncoder', the hint 'BatchTopKSAE'"
    ):
        load_sae(folder, {"dict_class": "BatchTopKSAE"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"buffer": {"io": "in_and_out"}}))
    with pytest.raises(SAEError, match="a transcoder, no SAE"):
        load_sae(folder)
