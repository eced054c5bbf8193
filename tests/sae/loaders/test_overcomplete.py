"""overcomplete: state dicts of the project itself, and its classes, encoders and dictionaries restated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from explorer.errors import SAEError, UnsafeFileError
from explorer.sae import SAE, load_sae

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
WIDTH, NEURONS, K = 6, 24, 4
State = dict[str, Tensor]
L2: dict[str, Any] = {"normalization": "l2"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dictionary(multiplier: float | None = 0.0) -> State:
    known = {"dictionary._weights": torch.randn(NEURONS, WIDTH)}
    return known if multiplier is None else known | {"dictionary.multiplier": torch.tensor(multiplier)}


def linear(prefix: str = "encoder.final_block.0") -> State:
    return {f"{prefix}.weight": torch.randn(NEURONS, WIDTH), f"{prefix}.bias": torch.randn(NEURONS)}


def batch_norm() -> nn.BatchNorm1d:
    """A trained batch norm of the code's width, in evaluation."""
    norm = nn.BatchNorm1d(NEURONS).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.copy_(torch.randn(NEURONS))
    norm.running_var.copy_(torch.rand(NEURONS) + 0.2)
    return norm


def saved(path: Path, tensors: State) -> Path:
    torch.save(tensors, path)
    return path


def agrees(sae: SAE, x: Tensor, z: Tensor, x_hat: Tensor) -> bool:
    found = sae.encode(x)
    return bool(
        (found - z).abs().max() < 1e-5 and (sae.decode(found) - x_hat).abs().max() < 1e-4 and (z > 0).any()
    )


def unit(rows: Tensor) -> Tensor:
    return rows / (rows.norm(dim=1, keepdim=True) + 1e-8)


def top_k(codes: Tensor) -> Tensor:
    kept = codes.topk(K, dim=-1)
    return torch.zeros_like(codes).scatter(-1, kept.indices, kept.values)


def plain(tensors: State, x: Tensor, prefix: str = "encoder.final_block.0") -> Tensor:
    return nn.functional.linear(x, tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"])


NORMALISED = {
    "l2": unit,
    "max_l2": lambda rows: rows / rows.norm(dim=1).max(),
    "l1": lambda rows: rows / (rows.abs().sum(1, keepdim=True) + 1e-8),
    "max_l1": lambda rows: rows / rows.abs().sum(1).max(),
    "identity": lambda rows: rows,
}


@pytest.mark.parametrize("multiplier", [None, 0.0, 0.7])
@pytest.mark.parametrize("kind", NORMALISED)
def test_dictionaries(tmp_path: Path, kind: str, multiplier: float | None) -> None:
    tensors, x = linear() | dictionary(multiplier), torch.randn(30, WIDTH)
    rows = NORMALISED[kind](tensors["dictionary._weights"]) * torch.tensor(multiplier or 0.0).exp()
    z = top_k(torch.relu(plain(tensors, x)))
    sae = load_sae(saved(tmp_path / "state_dict.pt", tensors), {"top_k": K, "normalization": kind})
    assert agrees(sae, x, z, z @ rows)
    assert sae.facts["class"] == "TopKSAE" and sae.facts["encoder"] == "linear"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in (linear() | dictionary()).items()}
    read = {name: tensor.float() for name, tensor in tensors.items()}
    x = torch.randn(30, WIDTH)
    z = torch.relu(plain(read, x))
    sae = load_sae(saved(tmp_path / "a.pt", tensors), {"cls": "SAE", **L2})
    assert agrees(sae, x, z, z @ unit(read["dictionary._weights"])) and sae.facts["class"] == "SAE"


def test_batch_top_k_keeps_what_reaches_the_threshold(tmp_path: Path) -> None:
    tensors = linear() | dictionary()
    tensors["encoder.final_block.0.weight"][0] = 0
    tensors["encoder.final_block.0.bias"][0] = 0.5
    x = torch.randn(30, WIDTH)
    codes = torch.relu(plain(tensors, x))
    z = codes * (codes >= 0.5)
    path = saved(tmp_path / "a.pt", tensors)
    for hints in (
        {"running_threshold": 0.5, "top_k": 192, "cls": "BatchTopKSAE"},
        {"running_threshold": torch.tensor(0.5)},
        {"threshold": 0.5},
    ):
        sae = load_sae(path, {**hints, **L2})
        assert (sae.encode(x)[:, 0] == 0.5).all()
        assert agrees(sae, x, z, z @ unit(tensors["dictionary._weights"]))


def test_jump_stores_logarithms_and_some_neurons_may_never_fire(tmp_path: Path) -> None:
    logs = torch.randn(NEURONS) - 1
    logs[:2], logs[2] = torch.inf, -torch.inf
    tensors, x = linear() | dictionary() | {"thresholds": logs}, torch.randn(30, WIDTH)
    codes = torch.relu(plain(tensors, x))
    z = torch.where(codes < logs.exp(), torch.zeros(()), codes)
    sae = load_sae(saved(tmp_path / "a.pt", tensors), L2)
    assert agrees(sae, x, z, z @ unit(tensors["dictionary._weights"])) and sae.facts["class"] == "JumpSAE"
    assert (sae.encode(x)[:, :2] == 0).all() and (sae.encode(x)[:, 2] > 0).any()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_batch_norm_folds(tmp_path: Path, affine: bool, old: bool) -> None:
    first, second = ("encoder.0", "encoder.1") if old else ("encoder.final_block.0", "encoder.final_block.1")
    norm = batch_norm()
    if not affine:
        norm.weight.data.fill_(1)
        norm.bias.data.zero_()
    stored = {
        name: tensor for name, tensor in norm.state_dict().items() if affine or name not in ("weight", "bias")
    }
    tensors = linear(first) | {f"{second}.{name}": tensor for name, tensor in stored.items()} | dictionary()
    x = torch.randn(30, WIDTH)
    z = top_k(torch.relu(norm(plain(tensors, x, first)))).detach()
    hints = {"top_k": K, "encoder": "mlp_bn_1", "nb_concepts": NEURONS, "input_shape": WIDTH, **L2}
    sae = load_sae(saved(tmp_path / "a.pt", tensors), hints)
    assert agrees(sae, x, z, z @ unit(tensors["dictionary._weights"]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_tieable_encoders(tmp_path: Path, own: bool, bias: bool) -> None:
    known, x = dictionary(0.3), torch.randn(30, WIDTH)
    rows = unit(known["dictionary._weights"]) * torch.tensor(0.3).exp()
    weight = rows if not own else torch.randn(NEURONS, WIDTH)
    shift = torch.randn(NEURONS) if bias else torch.zeros(NEURONS)
    tensors = known | ({"encoder.bias": shift} if bias else {})
    if not own:
        tensors |= {name.replace("dictionary", "encoder.tied_to"): tensor for name, tensor in known.items()}
    else:
        tensors |= {"encoder.weight": weight}
    z = top_k(torch.relu(x @ weight.T + shift))
    sae = load_sae(saved(tmp_path / "a.pt", tensors), {"top_k": K, **L2})
    assert agrees(sae, x, z, z @ rows) and sae.facts["encoder"] == ("untied" if own else "tied")


@pytest.mark.parametrize("jump", [True, False])
def test_archetypal_dictionaries(tmp_path: Path, jump: bool) -> None:
    points, mixing, relax = torch.randn(9, WIDTH), torch.randn(NEURONS, 9), torch.randn(NEURONS, WIDTH)
    relax[3] = 0
    tensors = linear() | {"dictionary.C": points, "dictionary.W": mixing, "dictionary.Relax": relax}
    tensors |= {"dictionary.multiplier": torch.tensor(0.2)} | (
        {"thresholds": torch.zeros(NEURONS)} if jump else {}
    )
    convex = torch.relu(mixing) / (torch.relu(mixing).sum(1, keepdim=True) + 1e-8)
    moved = torch.stack([row * min(1.0, 0.5 / row.norm().item()) if row.any() else row for row in relax])
    rows = (convex @ points + moved) * torch.tensor(0.2).exp()
    x = torch.randn(30, WIDTH)
    codes = torch.relu(plain(tensors, x))
    z = codes * (codes >= 1) if jump else top_k(codes)
    path = saved(tmp_path / "a.pt", tensors)
    hints: dict[str, Any] = {} if jump else {"top_k": K}
    with pytest.raises(SAEError, match=r"a\.pt.*the hint delta is missing.*hints=\{\"delta\": 1\.0\}"):
        load_sae(path, hints)
    sae = load_sae(path, {"delta": 0.5, **hints})
    assert agrees(sae, x, z, z @ rows) and sae.facts["class"] == ("RAJumpSAE" if jump else "RATopKSAE")
    assert load_sae(saved(path, tensors | {"dictionary.Relax": relax * 0}), hints).n_neurons == NEURONS


def test_safetensors_hold_a_state_dict_too(tmp_path: Path) -> None:
    tensors = linear() | dictionary()
    save_file(tensors, tmp_path / "model.safetensors")
    assert load_sae(tmp_path, {"top_k": K, **L2}).n_neurons == NEURONS


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        ({}, r"the hint normalization is missing.*hints=\{\"normalization\": \"l2\"\}"),
        (L2, r"the hint top_k is missing.*running_threshold.*cls"),
        ({"top_k": 3}, r"the hint normalization is missing"),
        ({"normalization": "l3", "top_k": 3}, r"normalization is 'l3'.*l2, max_l2, l1, max_l1, identity"),
        ({"top_k": 0, **L2}, r"top_k is 0; expected a whole number from 1 to 24"),
        ({"top_k": 25, **L2}, r"top_k is 25"),
        ({"top_k": 3, "cls": "JumpSAE", **L2}, r"the hint cls is JumpSAE, but .* TopKSAE"),
        ({"top_k": 3, "cls": "Mystery", **L2}, r"the hint cls is 'Mystery'; expected one of SAE, TopKSAE"),
        ({"top_k": 3, "cls": "BatchTopKSAE", **L2}, r"the hint running_threshold is missing"),
        ({"running_threshold": -1, **L2}, r"running_threshold is -1; expected a number of 0 or more"),
        ({"running_threshold": "two", **L2}, r"running_threshold is 'two'; expected a number of 0 or more"),
        ({"top_k": 3, "encoder": "mlp_bn_1", **L2}, r"the hint encoder is 'mlp_bn_1', but .* 'linear'"),
        (
            {"top_k": 3, "use_multiplier": False, **L2},
            r"the hint use_multiplier is False, but .* scales by 2",
        ),
        ({"top_k": 3, "nb_concepts": 25, **L2}, r"\[24\]; expected \[F = 25\]"),
        ({"k": 3}, r"unknown hint 'k' for a file of overcomplete; known: top_k, normalization"),
    ],
)
def test_hints_that_are_missing_or_do_not_fit(tmp_path: Path, hints: dict, words: str) -> None:
    path = saved(tmp_path / "state_dict.pt", linear() | dictionary(0.6931472))
    with pytest.raises(SAEError, match=rf"state_dict\.pt.*{words}"):
        load_sae(path, hints)


def tied(rows: Tensor) -> State:
    return {"encoder.tied_to._weights": rows, "encoder.tied_to.multiplier": torch.zeros(())}


BIAS, ROWS = "encoder.final_block.0.bias", "dictionary._weights"
WRONG: list[tuple[State, str]] = [  # what is added to a good state dict, what the message says
    ({"encoder.mlp_blocks.0.0.weight": torch.ones(6, 6)}, r"hidden layers \(mlp_bn_3"),
    ({"encoder.attention_blocks.0.norm1.weight": torch.ones(6)}, r"its encoder has attention"),
    ({"encoder.resnet_blocks.0.conv1.weight": torch.ones(6)}, r"its encoder has convolutions"),
    ({"encoder.final_block.1.weight": torch.ones(24)}, r"layer norm \(mlp_ln_1\)"),
    ({"Q": torch.ones(4)}, r"it is a QSAE"),
    ({ROWS: torch.ones(6, 24)}, r"\[6, 24\]; expected \[F = 24, d\].*transposed"),
    ({"extra": torch.ones(2)}, r"it has 'extra'"),
    ({"thresholds": torch.full((24,), torch.nan)}, r"thresholds has 24 values that are NaN"),
    ({"thresholds": torch.ones(24)}, r"the hint top_k does not fit: it is a JumpSAE"),
    ({"dictionary.multiplier": torch.tensor(torch.inf)}, r"multiplier has 1 values"),
    (
        {"dictionary.multiplier": torch.tensor(800.0)},
        r"W_dec, in our form, has 144 values that are not finite",
    ),
    ({BIAS: torch.ones(24).int()}, r"bias holds torch\.int32"),
    (tied(torch.ones(24, 6)), r"it has 'encoder\.final_block\.0\.weight'"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_what_is_not_linear_or_does_not_add_up(tmp_path: Path, change: State, words: str) -> None:
    path = saved(tmp_path / "state_dict.pt", linear() | dictionary() | change)
    with pytest.raises(SAEError, match=rf"(?s)state_dict\.pt.*{words}"):
        load_sae(path, {"top_k": 3, **L2})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, r"it has no encoder: it is MpSAE or OMPSAE.*dictionary\._weights"),
        ({"encoder.final_block.0.weight": torch.ones(24, 6)}, r"misses encoder\.final_block\.0\.bias"),
        (tied(torch.ones(24, 6)), r"tied to another dictionary than its own"),
    ],
)
def test_encoders_that_are_missing_or_of_another_dictionary(
    tmp_path: Path, change: State, words: str
) -> None:
    path = saved(tmp_path / "state_dict.pt", dictionary() | change)
    with pytest.raises(SAEError, match=rf"(?s)state_dict\.pt.*{words}"):
        load_sae(path, {"top_k": 3, **L2})


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    norm = batch_norm()
    norm.running_var[0] = -1
    tensors = linear() | {
        f"encoder.final_block.1.{name}": tensor for name, tensor in norm.state_dict().items()
    }
    with pytest.raises(SAEError, match=r"running_var has negative values; expected variances"):
        load_sae(saved(tmp_path / "a.pt", tensors | dictionary()), {"top_k": 3, **L2})


GOLDENS: dict[str, dict[str, Any]] = {
    "topk": {"top_k": 3, **L2},
    "topk-maxl2": {"top_k": 3, "normalization": "max_l2"},
    "topk-mlpbn": {"top_k": 3, **L2},
    "topk-multiplier": {"top_k": 3, **L2},
    "batchtopk": {"running_threshold": 2.4551782608032227, **L2},
    "jump": L2,
}


@pytest.mark.parametrize("name", GOLDENS)
def test_files_of_the_project_agree(name: str) -> None:
    folder = GOLDEN / f"overcomplete-{name}"
    io = load_file(folder / "io.safetensors")
    for place in (folder, folder / "state_dict.pt"):
        sae = load_sae(place, GOLDENS[name])
        z = sae.encode(io["x"])
        assert (z - io["z"]).abs().max() < 1e-4 and (sae.decode(z) - io["x_hat"]).abs().max() < 1e-4


def test_a_whole_model_is_refused_and_the_message_says_what_to_save() -> None:
    with pytest.raises(
        UnsafeFileError, match=r"model\.pth asks to import overcomplete.*torch\.save\(sae\.state_dict\(\)"
    ):
        load_sae(GOLDEN / "overcomplete-topk" / "model.pth", {"top_k": 3, **L2})
