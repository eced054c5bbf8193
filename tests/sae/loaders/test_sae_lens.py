"""SAELens checkpoints: those that its own code wrote, and every option restated here in plain formulas."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import ActivationRule, load_sae

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
FOLDERS = sorted(folder.name for folder in GOLDEN.glob("saelens-*"))
EPS = 1e-5

STANDARD, GATES = ("b_enc",), ("b_gate", "b_mag", "r_mag")
BATCH = ("b_enc", "topk_threshold")
ARCHITECTURES = {
    "standard": STANDARD,
    "gated": GATES,
    "jumprelu": ("b_enc", "threshold"),
    "topk": STANDARD,
    "abstopk": STANDARD,
    "batchtopk": BATCH,
    "matryoshka_batchtopk": BATCH,
}


def made(architecture: str, d: int = 9, n: int = 28, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors as an SAE of this architecture has them."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {"W_enc": torch.randn(d, n, generator=draw), "W_dec": torch.randn(n, d, generator=draw)}
    tensors["b_dec"] = torch.randn(d, generator=draw)
    for name in ARCHITECTURES[architecture]:
        tensors[name] = torch.randn(n, generator=draw)
    if "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].abs()
    if "topk_threshold" in tensors:
        tensors["topk_threshold"] = torch.tensor(1.7, dtype=torch.float64)
    return tensors


def settings(architecture: str, tensors: dict[str, Tensor], **more: object) -> dict[str, Any]:
    """A cfg.json of version 6."""
    d, n = tensors["W_enc"].shape
    metadata = {"sae_lens_version": "6.54.12", "model_name": "clip", "hook_name": "blocks.3.hook_resid_post"}
    config = {"d_in": d, "d_sae": n, "dtype": "float32", "device": "cuda", "architecture": architecture}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    if "topk" in architecture:
        config |= {"k": 4, "rescale_acts_by_decoder_norm": False}
    if "matryoshka" in architecture:
        config["matryoshka_widths"] = [n // 4, n // 2, n]
    return config | {"metadata": metadata} | more


def written(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Path:
    """A folder with the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors"
    )
    if config is not None:
        (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def restated(tensors: dict[str, Tensor], config: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """z and x_hat as SAELens defines them, vector by vector in float64."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    pairs = [one(weights, config, row.double()) for row in x]
    return tuple(torch.stack(column).float() for column in zip(*pairs, strict=True))


def one(t: dict[str, Tensor], config: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    kind, normalised = config["architecture"], config["normalize_activations"]
    factor, shift = 1.0, 0.0
    if normalised == "layer_norm":
        shift = x.mean()
        factor = ((x - shift).pow(2).sum() / (len(x) - 1)).sqrt()
        x = (x - shift) / (factor + EPS)
    if normalised == "constant_norm_rescale":
        factor = x.pow(2).sum().sqrt() / math.sqrt(len(x))
        x = x / factor
    if config["apply_b_dec_to_input"]:
        x = x - t["b_dec"]
    u = x @ t["W_enc"]
    norms = t["W_dec"].pow(2).sum(1).sqrt()
    norms = norms if config.get("rescale_acts_by_decoder_norm") else torch.ones_like(norms)
    if kind == "gated":
        z = (u + t["b_gate"] > 0) * (u * t["r_mag"].exp() + t["b_mag"]).clamp(min=0)
    else:
        p = (u + t["b_enc"]) * norms
        if kind == "standard":
            z = p.clamp(min=0)
        elif kind == "jumprelu":
            z = p.clamp(min=0) * (p > t["threshold"])
        elif kind in ("topk", "abstopk"):
            rank = p.abs() if kind == "abstopk" else p
            kept = rank >= rank.sort().values[-config["k"]]
            z = p * kept if kind == "abstopk" else p.clamp(min=0) * kept
        else:
            z = p.clamp(min=0) * (p > t["topk_threshold"])
    y = (z / norms) @ t["W_dec"] + t["b_dec"]
    return z, y * factor + shift


def vectors(d: int = 9, n: int = 24) -> Tensor:
    """The first one is so short that what is added to its deviation counts."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(5)) * 2 + 1
    x[0] *= 1e-3
    return x


def same(path: Path, tensors: dict[str, Tensor], config: dict[str, Any], x: Tensor) -> None:
    """Whether the file is read as SAELens would compute it."""
    sae = load_sae(path)
    z, x_hat = restated(tensors, config, x)
    assert z.count_nonzero() > len(x)
    torch.testing.assert_close(sae.encode(x), z, atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(sae.encode(x), x), x_hat, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:.*scaling_factor")
@pytest.mark.parametrize("name", FOLDERS)
def test_agrees_with_its_own_code(name: str) -> None:
    seen = load_file(GOLDEN / name / "io.safetensors")
    sae = load_sae(GOLDEN / name)
    torch.testing.assert_close(sae.encode(seen["x"]), seen["z"], atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(seen["z"], seen["x"]), seen["x_hat"], atol=1e-4, rtol=0)


def test_goldens_are_there() -> None:
    assert len(FOLDERS) == 20


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("normalised", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_with_each_input(
    tmp_path: Path, architecture: str, normalised: str, centred: bool
) -> None:
    tensors = made(architecture)
    config = settings(architecture, tensors, normalize_activations=normalised, apply_b_dec_to_input=centred)
    same(written(tmp_path, tensors, config), tensors, config, vectors())


@pytest.mark.parametrize("normalised", ["none", "layer_norm"])
@pytest.mark.parametrize("architecture", ["topk", "abstopk", "batchtopk", "matryoshka_batchtopk"])
def test_activations_are_rescaled_by_decoder_norms(
    tmp_path: Path, architecture: str, normalised: str
) -> None:
    tensors = made(architecture)
    more = {"rescale_acts_by_decoder_norm": True, "normalize_activations": normalised}
    config = settings(architecture, tensors, apply_b_dec_to_input=False, **more)
    same(written(tmp_path, tensors, config), tensors, config, vectors())


def test_a_decoder_row_of_zeros_never_fires_when_rescaled(tmp_path: Path) -> None:
    tensors = made("topk")
    tensors["W_dec"][3] = 0
    config = settings("topk", tensors, rescale_acts_by_decoder_norm=True)
    sae = load_sae(written(tmp_path, tensors, config))
    z = sae.encode(vectors())
    assert not z[:, 3].any() and torch.isfinite(sae.decode(z)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_weights_of_other_types(tmp_path: Path, architecture: str, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in made(architecture, 17, 50).items()}
    config = settings(architecture, tensors, dtype=str(dtype).removeprefix("torch."))
    same(written(tmp_path, tensors, config), tensors, config, vectors(17))


def test_a_checkpoint_of_jumprelu_training_may_hold_logarithms(tmp_path: Path) -> None:
    tensors = made("jumprelu")
    config = settings("jumprelu", tensors, jumprelu_bandwidth=0.05, l0_coefficient=1.0)
    stored = {name: tensor for name, tensor in tensors.items() if name != "threshold"}
    stored["log_threshold"] = tensors["threshold"].log()
    same(written(tmp_path, stored, config), tensors, config, vectors())


def test_infinite_and_negative_thresholds(tmp_path: Path) -> None:
    tensors = made("jumprelu")
    tensors["threshold"][:4] = math.inf
    tensors["threshold"][4:8] = -1
    config = settings("jumprelu", tensors)
    same(written(tmp_path, tensors, config), tensors, config, vectors())
    assert not load_sae(tmp_path).encode(vectors())[:, :4].any()


def test_thresholds_that_are_all_alike_are_one_number_if_it_is_finite(tmp_path: Path) -> None:
    tensors = made("jumprelu")
    for bar, kept in ((0.5, 0.5), (math.inf, torch.full((28,), math.inf))):
        tensors["threshold"][:] = bar
        sae = load_sae(written(tmp_path, tensors, settings("jumprelu", tensors)))
        assert sae.rule == ActivationRule("jumprelu", kept)


def test_groups_of_a_matryoshka_in_training_and_exported(tmp_path: Path) -> None:
    tensors = made("matryoshka_batchtopk")
    sae = load_sae(written(tmp_path / "a", tensors, settings("matryoshka_batchtopk", tensors)))
    assert sae.group_sizes == (7, 7, 14) and sae.rule.k == 4
    short = settings("matryoshka_batchtopk", tensors, matryoshka_widths=[5, 9])
    assert load_sae(written(tmp_path / "b", tensors, short)).group_sizes == (5, 4, 19)
    exported = made("jumprelu")
    config = settings("jumprelu", exported)
    details = {"k": 4.0, "matryoshka_widths": [7, 28]}
    config["metadata"] |= {
        "training_architecture": "matryoshka_batchtopk",
        "training_architecture_details": details,
    }
    sae = load_sae(written(tmp_path / "c", exported, config))
    assert sae.group_sizes == (7, 21) and sae.rule.k == 4
    assert sae.facts["trained_as"] == "matryoshka_batchtopk"


@pytest.mark.parametrize("widths", [[], [7, 7, 28], [0, 28], [7, 40], [7.5, 28], "7", None, [True, 28]])
def test_widths_that_do_not_nest(tmp_path: Path, widths: object) -> None:
    tensors = made("matryoshka_batchtopk")
    written(tmp_path, tensors, settings("matryoshka_batchtopk", tensors, matryoshka_widths=widths))
    with pytest.raises(SAEError, match="Matryoshka widths"):
        load_sae(tmp_path)


def test_a_fractional_mean_of_activations(tmp_path: Path) -> None:
    tensors = made("batchtopk")
    sae = load_sae(written(tmp_path, tensors, settings("batchtopk", tensors, k=4.5)))
    assert sae.rule.k == 0 and sae.rule.threshold == pytest.approx(1.7)


def legacy(tensors: dict[str, Tensor], **more: object) -> dict[str, Any]:
    """A cfg.json of a version before 6."""
    d, n = tensors["W_enc"].shape
    config = {"d_in": d, "d_sae": n, "dtype": "torch.float32", "device": "cuda", "activation_fn_str": "relu"}
    config |= {"model_name": "clip", "hook_point": "blocks.3.hook_resid_pre", "hook_point_layer": 3}
    return config | {"hook_point_head_index": None, "prepend_bos": False} | more


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, {}),
        ({"normalize_activations": False}, {}),
        ({"normalize_activations": None, "apply_b_dec_to_input": False}, {"apply_b_dec_to_input": False}),
        ({"normalize_activations": "layer_norm"}, {"normalize_activations": "layer_norm"}),
        (
            {"normalize_activations": "constant_norm_rescale"},
            {"normalize_activations": "constant_norm_rescale"},
        ),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}}, {"architecture": "topk", "k": 5}),
        (
            {"architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": 2}},
            {"architecture": "topk", "k": 2},
        ),
        ({"sae_lens_version": "5.10.3", "architecture": "standard"}, {}),
    ],
)
def test_settings_of_older_versions(tmp_path: Path, more: dict, told: dict) -> None:
    tensors = made("standard")
    path = written(tmp_path, tensors, legacy(tensors, **more))
    meant = {"architecture": "standard", "normalize_activations": "none", "apply_b_dec_to_input": True} | told
    same(path, tensors, meant, vectors())
    sae = load_sae(path)
    assert sae.site_block == 2 and sae.facts["hook"] == "blocks.3.hook_resid_pre"


@pytest.mark.parametrize("architecture", ["gated", "jumprelu"])
def test_older_settings_of_other_architectures(tmp_path: Path, architecture: str) -> None:
    tensors = made(architecture)
    path = written(tmp_path, tensors, legacy(tensors, architecture=architecture))
    meant = {"architecture": architecture, "normalize_activations": "none", "apply_b_dec_to_input": True}
    same(path, tensors, meant, vectors())


@pytest.mark.parametrize("key", ["finetuning_scaling_factor", "uses_scaling_factor"])
def test_scaling_factor_of_older_versions(tmp_path: Path, key: str) -> None:
    tensors = made("standard")
    meant = {"architecture": "standard", "normalize_activations": "none", "apply_b_dec_to_input": True}
    ones = tensors | {"scaling_factor": torch.ones(28)}
    same(written(tmp_path / "ones", ones, legacy(tensors, **{key: False})), tensors, meant, vectors())
    tuned = tensors | {"scaling_factor": torch.linspace(0.5, 2, 28)}
    with pytest.raises(SAEError, match="scaling_factor is not 1 but finetuning_scaling_factor is not true"):
        load_sae(written(tmp_path / "false", tuned, legacy(tensors, **{key: False})))
    sae = load_sae(written(tmp_path / "true", tuned, legacy(tensors, **{key: True})))
    z, _ = restated(tensors, meant, vectors())
    x_hat = (z * tuned["scaling_factor"]) @ tensors["W_dec"] + tensors["b_dec"]
    torch.testing.assert_close(sae.encode(vectors()), z, atol=1e-4, rtol=0)
    torch.testing.assert_close(sae.decode(z), x_hat, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation function is 'tanh-relu'"),
        ({"activation_fn_str": "topk"}, "do not say k"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": [3]}, "activation_fn_kwargs is"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3, "signed": True}}, "signed"),
        ({"architecture": "gated", "activation_fn_str": "topk"}, "'topk' in the architecture 'gated'"),
        ({"hook_point": "blocks.3.attn.hook_z"}, "reshape_activations is 'hook_z'"),
    ],
)
def test_older_settings_that_are_refused(tmp_path: Path, more: dict, words: str) -> None:
    tensors = made("standard")
    with pytest.raises(SAEError, match=words):
        load_sae(written(tmp_path, tensors, legacy(tensors, **more)))


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("transcoder", "predicts the output"),
        ("skip_transcoder", "predicts the output"),
        ("jumprelu_transcoder", "predicts the output"),
        ("jumprelu_skip_transcoder", "predicts the output"),
        ("temporal", "attends to earlier tokens"),
        ("matching_pursuit", "step by step"),
        ("quantum_relu", "'quantum_relu' is not known; expected one of standard, gated"),
        (None, "None is not known"),
        (7, "architecture is 7; expected text"),
    ],
)
def test_architectures_that_are_refused_by_name(tmp_path: Path, architecture: object, words: str) -> None:
    tensors = made("standard")
    with pytest.raises(SAEError, match=words):
        load_sae(written(tmp_path, tensors, settings("standard", tensors) | {"architecture": architecture}))


@pytest.mark.parametrize(
    ("architecture", "more", "words"),
    [
        ("topk", {"k": None}, "do not say k; .*top_k"),
        ("topk", {"k": 0}, "k is 0; expected a whole number from 1 to 28"),
        ("topk", {"k": 29}, "k is 29"),
        ("topk", {"k": 2.5}, "k is 2.5"),
        ("topk", {"k": True}, "k is True"),
        ("topk", {"rescale_acts_by_decoder_norm": "yes"}, "rescale_acts_by_decoder_norm is 'yes'"),
        ("standard", {"d_sae": 30}, r"expected \[F = 30\]"),
        ("standard", {"d_in": "9"}, "d_in is '9'"),
        ("standard", {"apply_b_dec_to_input": 2}, "apply_b_dec_to_input is 2"),
        (
            "standard",
            {"normalize_activations": "zscore"},
            "normalize_activations is 'zscore'; expected one of",
        ),
        ("standard", {"reshape_activations": "hook_z"}, "attention heads"),
        ("standard", {"metadata": [1]}, "metadata is"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, architecture: str, more: dict, words: str) -> None:
    tensors = made(architecture)
    with pytest.raises(SAEError, match=words):
        load_sae(written(tmp_path, tensors, settings(architecture, tensors, **more)))


@pytest.mark.parametrize(
    ("architecture", "change", "words"),
    [
        ("standard", {"b_enc": None}, "misses b_enc"),
        ("jumprelu", {"threshold": None}, "misses threshold"),
        ("gated", {"r_mag": None}, "misses r_mag"),
        ("gated", {"r_mag": torch.full((28,), 100.0)}, r"exp\(r_mag\)"),
        ("batchtopk", {"topk_threshold": None}, "misses topk_threshold"),
        ("standard", {"W_skip": torch.zeros(9, 9)}, "it has W_skip: a transcoder"),
        ("standard", {"other": torch.zeros(3)}, "has 'other'"),
        ("standard", {"W_dec": torch.zeros(9, 28)}, "is it transposed"),
        ("standard", {"b_dec": torch.full((9,), math.inf)}, "b_dec has 9 values that are not finite"),
        ("jumprelu", {"threshold": torch.full((28,), math.nan)}, "threshold has 28 values that are NaN"),
        ("standard", {"W_enc": torch.zeros(9, 28, dtype=torch.int64)}, "int64"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, architecture: str, change: dict, words: str) -> None:
    tensors = made(architecture)
    config = settings(architecture, tensors)
    changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    with pytest.raises(SAEError, match=words):
        load_sae(written(tmp_path, changed, config))


def test_k_as_a_hint_where_the_settings_lack_it(tmp_path: Path) -> None:
    tensors = made("topk")
    config = settings("topk", tensors)
    written(tmp_path, tensors, {key: value for key, value in config.items() if key != "k"})
    z, _ = restated(tensors, config, vectors())
    torch.testing.assert_close(load_sae(tmp_path, {"top_k": 4}).encode(vectors()), z, atol=1e-4, rtol=0)
    with pytest.raises(SAEError, match="k is 0"):
        load_sae(tmp_path, {"top_k": 0})
    written(tmp_path, tensors, config)
    load_sae(tmp_path, {"top_k": 4})
    with pytest.raises(SAEError, match="the files say k = 4, the hint top_k says 5"):
        load_sae(tmp_path, {"top_k": 5})
    written(tmp_path, made("standard"), settings("standard", made("standard")))
    with pytest.raises(SAEError, match="top_k does not fit the architecture 'standard'"):
        load_sae(tmp_path, {"top_k": 4})


def test_without_settings_it_says_what_is_missing(tmp_path: Path) -> None:
    written(tmp_path, made("standard"), None)
    with pytest.raises(SAEError, match=r"no cfg\.json beside"):
        load_sae(tmp_path)


def test_the_weight_file_alone_under_another_name(tmp_path: Path) -> None:
    tensors = made("standard")
    written(tmp_path, tensors, settings("standard", tensors))
    moved = (tmp_path / "sae_weights.safetensors").rename(tmp_path / "layer_3.safetensors")
    same(moved, tensors, settings("standard", tensors), vectors())


def test_factor_of_the_mean_length_is_asked_for(tmp_path: Path) -> None:
    for architecture, rescaled in (("standard", False), ("jumprelu", False), ("batchtopk", True)):
        tensors = made(architecture)
        more = {"normalize_activations": "expected_average_only_in"}
        more |= {"rescale_acts_by_decoder_norm": True} if rescaled else {}
        config = settings(architecture, tensors, **more)
        path = written(tmp_path / architecture, tensors, config)
        with pytest.warns(UserWarning, match="pass it as the hint scaling_factor"):
            assert "scaling_factor" in load_sae(path).facts["warning"]
        for place in ("hint", "beside"):
            if place == "beside":
                (path / "activation_scaler.json").write_text(
                    '{"scaling_factor": 0.5, "has_whitening": false}'
                )
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                sae = load_sae(path, {"scaling_factor": 0.5} if place == "hint" else None)
            scaled = settings(architecture, tensors, rescale_acts_by_decoder_norm=rescaled)
            z, x_hat = restated(tensors, scaled, vectors() * 0.5)
            z = (
                z * 2 if rescaled else z
            )  # as SAELens folds it: decoder rows of length 1 for the vectors as they are
            torch.testing.assert_close(sae.encode(vectors()), z, atol=1e-4, rtol=0)
            torch.testing.assert_close(sae.decode(z), x_hat * 2, atol=1e-4, rtol=0)
            assert "warning" not in sae.facts and sae.facts["scaling_factor"] == 0.5
            assert sae.rule.k == (4 if rescaled else 0)


@pytest.mark.parametrize("factor", [0, -1, math.inf, math.nan, 10**400, "2", True])
def test_a_factor_that_is_none(tmp_path: Path, factor: object) -> None:
    tensors = made("standard")
    written(
        tmp_path, tensors, settings("standard", tensors, normalize_activations="expected_average_only_in")
    )
    with pytest.raises(SAEError, match="expected a number above 0"):
        load_sae(tmp_path, {"scaling_factor": factor})


def test_a_factor_where_none_belongs(tmp_path: Path) -> None:
    tensors = made("standard")
    written(tmp_path, tensors, settings("standard", tensors))
    with pytest.raises(SAEError, match="takes vectors as they are"):
        load_sae(tmp_path, {"scaling_factor": 2.0})
    with pytest.raises(SAEError, match="unknown hint 'factor'"):
        load_sae(tmp_path, {"factor": 2.0})


def test_a_damaged_scaler_is_named(tmp_path: Path) -> None:
    tensors = made("standard")
    written(
        tmp_path, tensors, settings("standard", tensors, normalize_activations="expected_average_only_in")
    )
    for content, words in (
        ("{}", "does not hold a scaling_factor"),
        ("[]", "holds a JSON list"),
        ("{", "JSON"),
    ):
        (tmp_path / "activation_scaler.json").write_text(content)
        with pytest.raises(SAEError, match=rf"activation_scaler\.json.* {words}"):
            load_sae(tmp_path)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "gated", "topk"])
def test_whitening_beside_a_checkpoint_of_training(tmp_path: Path, architecture: str, centred: bool) -> None:
    tensors = made(architecture)
    draw = torch.Generator().manual_seed(8)
    mean = torch.randn(9, generator=draw, dtype=torch.float64)
    matrix = torch.eye(9, dtype=torch.float64) + 0.2 * torch.randn(9, 9, generator=draw, dtype=torch.float64)
    inverse = torch.linalg.inv(matrix).contiguous()
    config = settings(architecture, tensors, apply_b_dec_to_input=centred)
    config |= {"rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    path = written(tmp_path, tensors, config | {"normalize_activations": "covariance_whitening"})
    with pytest.warns(UserWarning, match=r"activation_whitening\.safetensors belongs beside"):
        load_sae(path)
    stored = {"mean": mean, "matrix": matrix, "inverse_matrix": inverse}
    save_file(stored, path / "activation_whitening.safetensors")
    sae = load_sae(path)
    z, y = restated(tensors, config, (vectors().double() - mean) @ matrix)
    torch.testing.assert_close(sae.encode(vectors()), z, atol=1e-4, rtol=0)
    x_hat = (y.double() @ inverse + mean).float()
    torch.testing.assert_close(sae.decode(sae.encode(vectors())), x_hat, atol=1e-4, rtol=0)
    save_file(stored | {"mean": mean[:3]}, path / "activation_whitening.safetensors")
    with pytest.raises(SAEError, match="mean has the shape"):
        load_sae(path)


def test_what_it_tells_of_itself(tmp_path: Path) -> None:
    tensors = made("jumprelu")
    config = settings("jumprelu", tensors)
    config["metadata"] |= {"training_architecture": "batchtopk", "hook_head_index": None}
    sae = load_sae(written(tmp_path / "a", tensors, config))
    assert sae.site_block == 3 and sae.model_id is None and sae.tokens is None
    told = {"format": "SAELens", "class": "JumpReLUSAE", "model": "clip", "hook": "blocks.3.hook_resid_post"}
    assert told.items() <= sae.facts.items() and sae.facts["trained_as"] == "batchtopk"
    json.dumps(sae.facts)
    config["metadata"]["hook_head_index"] = 2
    assert load_sae(written(tmp_path / "b", tensors, config)).site_block is None


def test_several_checkpoints_below_a_folder(tmp_path: Path) -> None:
    tensors = made("standard")
    for name in ("layer_3", "layer_4"):
        written(tmp_path / name, tensors, settings("standard", tensors))
    with pytest.raises(SAEError, match="layer_3, layer_4"):
        load_sae(tmp_path)
    same(tmp_path / "layer_4", tensors, settings("standard", tensors), vectors())
