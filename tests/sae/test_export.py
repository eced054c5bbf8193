"""SAEs in SAELens' format: read back, and by a plain restatement of SAELens' own formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule, Scaling, load_sae
from explorer.sae.export import to_saelens
from index.__main__ import main

WIDTH, NEURONS = 6, 20
RULES = [
    ActivationRule("relu"),
    ActivationRule("jumprelu", 0.7, k=3),
    ActivationRule("jumprelu", -1.0),
    ActivationRule("jumprelu", torch.linspace(-1, 2, NEURONS).where(torch.arange(NEURONS) != 4, torch.inf)),
    ActivationRule("topk", k=3),
    ActivationRule("abstopk", k=3),
]
SCALINGS = [Scaling(), Scaling("layer_norm", eps=1e-5, ddof=1), Scaling("constant_norm")]


def made(rule: ActivationRule, scaling: Scaling | None = None, seed: int = 0, **more: object) -> SAE:
    dice = torch.Generator().manual_seed(seed)
    shapes = ((WIDTH, NEURONS), (NEURONS,), (NEURONS, WIDTH), (WIDTH,))
    weights = [torch.randn(shape, generator=dice) for shape in shapes]
    return SAE(*weights, rule=rule, scaling=scaling or Scaling(), **more).eval().requires_grad_(False)


def by_their_formulas(folder: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations and reconstructions as SAELens computes them, of what lies in the folder."""
    cfg, w = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
    assert cfg["apply_b_dec_to_input"] and cfg["reshape_activations"] == "none"
    sae_in, back = x, lambda y: y
    if cfg["normalize_activations"] == "layer_norm":
        mu = x.mean(-1, keepdim=True)
        std = (x - mu).std(-1, keepdim=True)
        sae_in, back = (x - mu) / (std + 1e-5), lambda y: y * std + mu
    elif cfg["normalize_activations"] == "constant_norm_rescale":
        coefficient = cfg["d_in"] ** 0.5 / x.norm(dim=-1, keepdim=True)
        sae_in, back = x * coefficient, lambda y: y / coefficient
    hidden = (sae_in - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    if cfg["architecture"] == "standard":
        acts = hidden.relu()
    elif cfg["architecture"] == "jumprelu":
        acts = hidden.relu() * (hidden > w["threshold"])
    else:
        ranked = hidden.abs() if cfg["architecture"] == "abstopk" else hidden.relu()
        kept = ranked.topk(cfg["k"], dim=-1).indices
        values = (hidden if cfg["architecture"] == "abstopk" else ranked).gather(-1, kept)
        acts = torch.zeros_like(hidden).scatter(-1, kept, values)
    return acts, back(acts @ w["W_dec"] + w["b_dec"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rule=st.sampled_from(RULES), scaling=st.sampled_from(SCALINGS))
def test_saelens_would_compute_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rule: ActivationRule, scaling: Scaling
) -> None:
    folder = tmp_path_factory.mktemp("export") / "out"
    sae = made(rule, scaling, seed)
    to_saelens(sae, folder)
    x = 2 * torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(seed + 1))
    z = sae.encode(x)
    theirs, x_hat = by_their_formulas(folder, x)
    torch.testing.assert_close(theirs, z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x_hat, sae.decode(z, x), atol=1e-4, rtol=1e-5)
    again = load_sae(folder)
    torch.testing.assert_close(again.encode(x), z, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.decode(z, x), sae.decode(z, x), atol=1e-6, rtol=0)


def test_a_threshold_that_counts_stays_exact(tmp_path: Path) -> None:
    """p >= t of one project is p > the number before t of the other."""
    eye, zero = torch.eye(3), torch.zeros(3)
    sae = SAE(eye, zero, eye, zero, ActivationRule("jumprelu", 0.1, inclusive=True))
    to_saelens(sae, tmp_path / "out")
    bar = torch.tensor(0.1)
    below = torch.nextafter(bar, torch.tensor(0.0))
    x = torch.stack([bar, below, -bar])
    assert load_sae(tmp_path / "out").encode(x).tolist() == sae.encode(x).tolist() == [float(bar), 0, 0]


def test_what_is_known_of_the_sae_goes_along(tmp_path: Path) -> None:
    sae = made(
        ActivationRule("jumprelu", 0.7, k=3),
        group_sizes=(5, 15),
        site_block=22,
        model_id="llava-1.5-7b-hf@0123456789ab",
        facts={"tokens": "patches", "trained_on": "noise", "quality": {"l0": 3.0}, "torch": "2"},
    )
    to_saelens(sae, tmp_path)
    again = load_sae(tmp_path)
    assert (again.group_sizes, again.site_block, again.rule.k) == ((5, 15), 22, 3)
    assert again.facts["model"] == "llava-1.5-7b-hf"
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert cfg["metadata"]["tokens"] == "patches" and cfg["metadata"]["quality"] == {"l0": 3.0}
    assert cfg["metadata"]["model_id"] == "llava-1.5-7b-hf@0123456789ab"
    assert (cfg["d_in"], cfg["d_sae"], cfg["architecture"]) == (WIDTH, NEURONS, "jumprelu")


@pytest.mark.parametrize(
    ("rule", "scaling", "words"),
    [
        (ActivationRule("groupmax", k=4), Scaling(), "no activation rule like 'groupmax'"),
        (ActivationRule("topk", k=4, signed=True), Scaling(), "no activation rule like 'signed topk'"),
        (ActivationRule("relu"), Scaling("layer_norm", eps=1e-3), "cannot scale vectors by .*eps"),
        (ActivationRule("relu"), Scaling("layer_norm", eps=1e-5, ddof=0), "cannot scale vectors by"),
        (ActivationRule("relu"), Scaling("constant_norm", norm=5.0), "cannot scale vectors by"),
    ],
)
def test_what_saelens_does_not_know_is_refused(
    tmp_path: Path, rule: ActivationRule, scaling: Scaling, words: str
) -> None:
    with pytest.raises(SAEError, match=words):
        to_saelens(made(rule, scaling), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_norm_that_is_sqrt_d_is_theirs(tmp_path: Path) -> None:
    to_saelens(made(ActivationRule("relu"), Scaling("constant_norm", norm=math.sqrt(WIDTH))), tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["normalize_activations"] == "constant_norm_rescale"


def test_places_that_are_taken_or_cannot_be_written(tmp_path: Path) -> None:
    sae = made(ActivationRule("relu"))
    (tmp_path / "file").touch()
    with pytest.raises(SAEError, match="file is a file; name a folder"):
        to_saelens(sae, tmp_path / "file")
    with pytest.raises(SAEError, match="cannot write in /proc/nowhere"):
        to_saelens(sae, "/proc/nowhere")
    to_saelens(sae, tmp_path / "out")
    with pytest.raises(SAEError, match=r"holds sae_weights.safetensors and cfg.json already"):
        to_saelens(sae, tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sae = made(ActivationRule("jumprelu", 0.7))
    sae.save(tmp_path / "sae.safetensors")
    words = ["export-sae", str(tmp_path / "sae.safetensors"), str(tmp_path / "out"), "--to", "saelens"]
    assert main(words) == 0
    assert "sae_weights.safetensors and cfg.json, 20 neurons of width 6" in capsys.readouterr().out
    assert main(words) == 1 and "already; name a new folder" in capsys.readouterr().err
    assert main(["export-sae", str(tmp_path / "none"), str(tmp_path / "b")]) == 1
