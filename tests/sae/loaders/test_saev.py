"""saev: files of the project itself, and every schema and activation written after its description."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import load_sae

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
WIDTH, NEURONS, K = 6, 24, 4
State = dict[str, Tensor]


def state(dtype: torch.dtype = torch.float32, seed: int = 0) -> State:
    """Random weights: about half of the neurons fire, all parts matter."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (WIDTH, NEURONS), "b_enc": (NEURONS,), "W_dec": (NEURONS, WIDTH), "b_dec": (WIDTH,)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def payload(kind: str, **params: object) -> dict[str, Any]:
    return {"cls": kind, "params": params}


def settings(activation: dict[str, Any] | None = None, **others: object) -> dict[str, Any]:
    known: dict[str, Any] = {"d_model": WIDTH, "d_sae": NEURONS, "normalize_w_dec": True, **others}
    return known | ({"activation": activation} if activation else {})


def old(**others: object) -> dict[str, Any]:
    return {"d_vit": WIDTH, "exp_factor": NEURONS // WIDTH, "n_reinit_samples": 0, "seed": 0, **others}


def header(schema: int, cfg: dict[str, Any], **others: object) -> dict[str, Any]:
    return {"schema": schema, "cfg": cfg, "commit": "unknown", "lib": "0.1.0", **others}


def write(path: Path, top: object, tensors: State) -> Path:
    """One line of JSON, a newline, the state dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write((json.dumps(top) + "\n").encode())
        torch.save(tensors, file)
    return path


def expected(
    tensors: State, x: Tensor, rule: Callable[[Tensor], Tensor], subtract: bool
) -> tuple[Tensor, Tensor]:
    """z and x_hat as the project's formulas say."""
    known = {name: tensor.double() for name, tensor in tensors.items()}
    x = x.double()
    z = rule((x - known["b_dec"] if subtract else x) @ known["W_enc"] + known["b_enc"])
    return z, z @ known["W_dec"] + known["b_dec"]


def raw_top_k(p: Tensor) -> Tensor:
    kept = p.topk(K, dim=-1)
    return torch.zeros_like(p).scatter(-1, kept.indices, kept.values)


def above(threshold: float) -> Callable[[Tensor], Tensor]:
    return lambda p: torch.where(p > max(threshold, 0), p, torch.zeros_like(p))


TOP_K, BATCH = payload("TopK", top_k=K), payload("BatchTopK", top_k=K, momentum=0.1)
FACTOR = {"d_model": WIDTH, "exp_factor": 4, "activation": payload("Relu")}
SPARSE = payload("Relu", key="relu", sparsity=payload("L1Sparsity", coeff=1e-4))
CASES = {  # header, stored threshold, activation, whether b_dec is subtracted
    "no schema": (old(sparsity_coeff=4e-4, ghost_grads=False), None, torch.relu, True),
    "1 Relu": (header(1, old(), cls="Relu"), None, torch.relu, True),
    "1 TopK": (header(1, old(top_k=K), cls="TopK"), None, raw_top_k, True),
    "1 nested": (header(1, old(activation=TOP_K), cls="SparseAutoencoderConfig"), None, raw_top_k, False),
    "1 bare": (header(1, old(), cls="SparseAutoencoderConfig"), None, torch.relu, False),
    "1 without a class": (header(1, old(activation=TOP_K)), None, raw_top_k, False),
    "2 Relu": (header(2, old(activation=payload("Relu"))), None, torch.relu, False),
    "2 BatchTopK": (header(2, old(activation=BATCH)), None, raw_top_k, False),
    "3 TopK": (header(3, settings(TOP_K)), None, raw_top_k, False),
    "3 factor": (header(3, FACTOR), None, torch.relu, False),
    "4 BatchTopK": (header(4, settings(BATCH)), 0.7, above(0.7), False),
    "5 Relu": (header(5, settings(SPARSE)), None, torch.relu, False),
    "5 TopK": (header(5, settings(TOP_K)), None, raw_top_k, False),
    "5 untrained": (header(5, settings(BATCH)), 0.0, above(0), False),
    "5 below": (header(5, settings(BATCH)), -1.0, above(-1), False),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.*the training took")
def test_every_schema_and_activation(tmp_path: Path, case: str, dtype: torch.dtype) -> None:
    top, threshold, rule, subtract = CASES[case]
    tensors = state(dtype)
    stored = tensors if threshold is None else tensors | {"activation.threshold": torch.tensor(threshold)}
    sae = load_sae(write(tmp_path / "sae.pt", top, stored))
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1)) * 2
    z, x_hat = expected(tensors, x, rule, subtract)
    found = sae.encode(x)
    assert (z != 0).any() and torch.allclose(found.double(), z, atol=1e-5)
    assert torch.allclose(sae.decode(found).double(), x_hat, atol=1e-5)
    assert torch.allclose(sae.decode_sparse(sae.encode_sparse(x), len(x)).double(), x_hat, atol=1e-5)
    assert sae.facts["b_dec_subtracted"] is subtract and sae.facts["format"] == "saev"


def test_top_k_keeps_values_below_zero(tmp_path: Path) -> None:
    tensors = state()
    tensors["b_enc"] = tensors["b_enc"] - 100
    sae = load_sae(write(tmp_path / "sae.pt", header(5, settings(payload("TopK", top_k=K))), tensors))
    z = sae.encode(torch.randn(7, WIDTH))
    assert (z < 0).sum(-1).eq(K).all() and (z > 0).sum() == 0


def test_a_k_above_the_neurons_keeps_all_as_new_files_mean_it(tmp_path: Path) -> None:
    many = settings(payload("TopK", top_k=NEURONS + 9))
    sae = load_sae(write(tmp_path / "new.pt", header(5, many), state()))
    assert sae.encode(torch.randn(3, WIDTH)).ne(0).all()
    with pytest.raises(SAEError, match=r"top_k is 33; expected a whole number from 1 to 24"):
        load_sae(write(tmp_path / "old.pt", header(2, old(activation=payload("TopK", top_k=33))), state()))


def test_a_hint_says_whether_the_first_schema_subtracts(tmp_path: Path) -> None:
    tensors, x = state(), torch.randn(20, WIDTH)
    path = write(tmp_path / "sae.pt", header(1, old(), cls="Relu"), tensors)
    sae = load_sae(path, {"subtract_b_dec": False})
    z, x_hat = expected(tensors, x, torch.relu, False)
    assert torch.allclose(sae.encode(x).double(), z, atol=1e-5)
    assert torch.allclose(sae(x).double(), x_hat, atol=1e-5)
    with pytest.raises(SAEError, match=r"subtract_b_dec is 'no'; expected true or false"):
        load_sae(path, {"subtract_b_dec": "no"})


def test_a_batch_top_k_without_threshold_needs_one(tmp_path: Path) -> None:
    tensors, x = state(), torch.randn(20, WIDTH)
    path = write(tmp_path / "sae.pt", header(1, old(top_k=K), cls="BatchTopK"), tensors)
    with pytest.raises(
        SAEError, match=r"sae\.pt.*BatchTopK of schema 1 without activation\.threshold.*hints="
    ):
        load_sae(path)
    z, _ = expected(tensors, x, above(0.4), True)
    assert torch.allclose(load_sae(path, {"threshold": 0.4}).encode(x).double(), z, atol=1e-5)
    with pytest.raises(SAEError, match=r"the hint threshold is 'high'; expected a number"):
        load_sae(path, {"threshold": "high"})


def test_the_training_settings_beside_it_name_layer_and_tokens(tmp_path: Path) -> None:
    write(tmp_path / "run" / "checkpoint" / "sae.pt", header(5, settings(payload("Relu"))), state())
    config = tmp_path / "run" / "checkpoint" / "config.json"
    data: dict[str, Any] = {
        "layer": 10,
        "tokens": "content",
        "scale_norm": False,
        "metadata": {"ckpt": "ViT-B-16/openai"},
    }
    config.write_text(json.dumps({"train_data": data, "lr": 1e-4}))
    sae = load_sae(tmp_path / "run")
    assert (sae.site_block, sae.tokens, sae.facts["model"]) == (10, "patches", "ViT-B-16/openai")
    config.write_text(json.dumps({"data": {"layer": -2, "patches": "cls"}}))
    sae = load_sae(tmp_path / "run" / "checkpoint" / "sae.pt")
    assert (sae.site_block, sae.tokens, sae.facts["hook"]) == (None, "cls", "layer -2")
    config.write_text(json.dumps({"data": {"layer": 0, "metadata": {"ckpt": None, "vit_ckpt": "B-32"}}}))
    sae = load_sae(tmp_path / "run")
    assert (sae.site_block, sae.tokens, sae.facts["model"]) == (0, None, "B-32")
    config.unlink()
    sae = load_sae(tmp_path / "run" / "checkpoint")
    assert (sae.site_block, sae.tokens, sae.facts["hook"], sae.model_id) == (None, None, None, None)


@pytest.mark.parametrize("subtract", [True, False])
def test_hints_give_the_figures_that_vectors_were_scaled_by(tmp_path: Path, subtract: bool) -> None:
    tensors, x = state(), torch.randn(30, WIDTH) * 5 + 3
    top = old() if subtract else header(2, old(activation=payload("Relu")))
    path = write(tmp_path / "sae.pt", top, tensors)
    mean, norm = torch.randn(WIDTH), 2.5
    z, x_hat = expected(tensors, (x - mean) / norm, torch.relu, subtract)
    for given in (mean, mean.tolist(), mean.numpy()):
        sae = load_sae(path, {"scale_mean": given, "scale_norm": norm})
        assert torch.allclose(sae.encode(x).double(), z, atol=1e-4) and "warning" not in sae.facts
        assert torch.allclose(sae(x).double(), x_hat * norm + mean, atol=1e-4)


@pytest.mark.parametrize(
    ("top", "data", "warned"),
    [
        (old(), None, True),
        (old(), {"scale_mean": True, "scale_norm": True}, True),
        (old(), {"scale_mean": "mean.pt", "scale_norm": False}, True),
        (old(), {"scale_mean": False, "scale_norm": False}, False),
        (header(1, old(), cls="Relu"), None, False),
        (header(1, old(), cls="Relu"), {"scale_mean": True}, True),
        (header(5, settings(payload("Relu"))), {"scale_norm": False}, False),
        (header(5, settings(payload("Relu"))), {"scale_norm": True}, True),
    ],
)
def test_it_warns_where_such_figures_are_missing(
    tmp_path: Path, top: object, data: dict | None, warned: bool
) -> None:
    path = write(tmp_path / "sae.pt", top, state())
    if data is not None:
        (tmp_path / "config.json").write_text(json.dumps({"data": {"layer": 3, **data}}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sae = load_sae(path)
        quiet = load_sae(path, {"prescaled": True})
    assert len(caught) == warned and ("warning" in sae.facts) is warned and "warning" not in quiet.facts
    assert not warned or "pass both as hints" in str(caught[0].message)


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        ({"scale_norm": 0}, r"scale_norm is 0; expected a number above 0"),
        ({"scale_norm": True}, r"scale_norm is True"),
        ({"scale_mean": [1.0, 2.0]}, r"scale_mean has the shape \[2\]; expected 6 finite numbers"),
        ({"scale_mean": [torch.nan] * 6}, r"expected 6 finite numbers"),
        ({"scale_mean": "mean.pt"}, r"scale_mean is no list of numbers .*; expected 6"),
        ({"prescaled": 1}, r"prescaled is 1; expected true or false"),
    ],
)
def test_figures_that_do_not_fit(tmp_path: Path, hints: dict, words: str) -> None:
    with pytest.raises(SAEError, match=rf"sae\.pt.*{words}"):
        load_sae(write(tmp_path / "sae.pt", old(), state()), hints)


@pytest.mark.parametrize(
    ("top", "words"),
    [
        (header(6, settings(payload("Relu"))), r"schema is 6; expected none, or one of 1, 2, 3, 4, 5"),
        (header(True, settings(payload("Relu"))), r"schema is True"),
        ({"schema": "5", "cfg": {}}, r"schema is '5'"),
        ({"schema": 5, "cls": "x"}, r"its header has no object 'cfg'; found schema, cls"),
        (header(5, settings()), r"cfg has no object 'activation'"),
        (
            header(5, settings(payload("Swish"))),
            r"the activation is 'Swish'; expected one of Relu, TopK, BatchTopK",
        ),
        (header(5, settings({"cls": "Relu"})), r"cfg.activation has no object 'params'"),
        (
            header(4, settings(payload("AbsBatchTopK", top_k=3))),
            r"AbsBatchTopK, which looks at a whole batch",
        ),
        (header(1, old(), cls="JumpRelu"), r"the activation is 'JumpRelu'"),
        (header(5, settings(payload("TopK", top_k=-3))), r"top_k is -3; expected a whole number from 1"),
        (header(5, settings(payload("TopK"))), r"top_k is missing"),
        (header(5, settings(payload("Relu"), d_sae=32)), r"\[24\]; expected \[F = 32\]"),
        (header(5, settings(payload("Relu"), d_model="6")), r"d_model is '6'; expected a whole number"),
        (header(5, {"d_sae": 24, "activation": payload("Relu")}), r"d_vit is missing"),
        ([1, 2], r"looks like something that begins with"),
    ],
)
def test_headers_that_do_not_add_up(tmp_path: Path, top: object, words: str) -> None:
    with pytest.raises(SAEError, match=rf"(?s)sae\.pt.*{words}"):
        load_sae(write(tmp_path / "sae.pt", top, state()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W_dec": torch.zeros(WIDTH, NEURONS)}, r"W_dec has the shape \[6, 24\].*transposed"),
        ({"W_enc": torch.zeros(NEURONS, WIDTH)}, r"W_enc has the shape \[24, 6\].*transposed"),
        ({"activation.threshold": torch.tensor(1.0)}, r"it has 'activation.threshold'"),
        ({"W_skip": torch.zeros(WIDTH, WIDTH)}, r"it has 'W_skip'"),
        ({"b_enc": torch.full((NEURONS,), torch.nan)}, r"b_enc has 24 values that are not finite"),
        ({"b_dec": torch.ones(WIDTH, dtype=torch.int64)}, r"b_dec holds torch.int64; expected floating"),
    ],
)
def test_tensors_that_do_not_add_up(tmp_path: Path, change: State, words: str) -> None:
    path = write(tmp_path / "sae.pt", header(5, settings(payload("Relu"))), state() | change)
    with pytest.raises(SAEError, match=rf"sae\.pt.*{words}"):
        load_sae(path)


@pytest.mark.parametrize(
    "name",
    [
        "batchtopk",
        "batchtopk-untrained",
        "legacy-noschema",
        "legacy-schema1",
        "matryoshka",
        "relu",
        "relu-freenorm",
        "topk",
    ],
)
@pytest.mark.filterwarnings("ignore:.*the training took")
def test_files_of_the_project_agree(name: str) -> None:
    folder = GOLDEN / f"saev-{name}"
    io = load_file(folder / "io.safetensors")
    for place in (folder, folder / "checkpoint", folder / "checkpoint" / "sae.pt"):
        sae = load_sae(place)
        z = sae.encode(io["x"])
        assert (z - io["z"]).abs().max() < 1e-4 and (sae.decode(z) - io["x_hat"]).abs().max() < 1e-4
