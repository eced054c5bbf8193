"""SAEs that scale each vector: their formulas, whose scale decoding gives back, and their file."""

from __future__ import annotations

import copy
import json
import math
import pickle
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule, Scaling, SparseCodes, load_sae
from explorer.sae.quality import evaluate, unexplained

D, N = 6, 20
SCALINGS = (
    Scaling(),
    Scaling("layer_norm"),
    Scaling("layer_norm", eps=0.3),
    Scaling("layer_norm", eps=1e-5, ddof=0),
    Scaling("constant_norm"),
    Scaling("constant_norm", norm=2.5),
)
THRESHOLDS = torch.linspace(-0.5, 0.9, N)
RULES = (
    ActivationRule("relu"),
    ActivationRule("jumprelu", 0.4, 3),
    ActivationRule("jumprelu", THRESHOLDS, inclusive=True),
    ActivationRule("topk", k=4),
    ActivationRule("topk", k=4, signed=True),
    ActivationRule("abstopk", k=4),
    ActivationRule("groupmax", k=5),
)


def make(scaling: Scaling, rule: ActivationRule = RULES[0], seed: int = 0) -> SAE:
    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(*shape, generator=g) for shape in ((D, N), (N,), (N, D), (D,))]
    return SAE(*weights, rule, group_sizes=(5, 15), scaling=scaling).eval().requires_grad_(False)


def vectors(*shape: int, seed: int = 1) -> Tensor:
    """Vectors of very different lengths, with means that are not 0."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g) * 10 ** torch.randn(*shape[:-1], 1, generator=g) + 1


def restated(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """z and x_hat of the vectors [T, d], one by one, in float64; the rule is taken from the SAE."""
    scaling, found = sae.scaling, []
    W_enc, b_enc, W_dec, b_dec = (t.double() for t in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))
    for row in x.double():
        values = row.tolist()
        mean = sum(values) / D
        square = sum((value - mean) ** 2 for value in values)
        match scaling.kind:
            case "none":
                take, give, offset = row, 1.0, 0.0
            case "layer_norm":
                std = math.sqrt(square / (D - scaling.ddof))
                take, give, offset = (row - mean) / (std + scaling.eps), std, mean
            case "constant_norm":
                ratio = math.sqrt(sum(v * v for v in values)) / (scaling.norm or math.sqrt(D))
                take, give, offset = row / ratio, ratio, 0.0
        z = sae.rule(((take - b_dec) @ W_enc + b_enc).float()[None])[0]
        found.append((z, ((z.double() @ W_dec + b_dec) * give + offset).float()))
    return torch.stack([z for z, _ in found]), torch.stack([x_hat for _, x_hat in found])


def near(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    scaling=st.sampled_from(SCALINGS),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
    tokens=st.integers(1, 7),
    chunk=st.integers(1, 80),
)
def test_encoding_and_decoding_follow_the_formulas(
    scaling: Scaling, rule: ActivationRule, seed: int, tokens: int, chunk: int
) -> None:
    sae, x = make(scaling, rule, seed), vectors(tokens, D, seed=seed)
    z, x_hat = restated(sae, x)
    near(sae.encode(x), z)
    near(sae.decode(sae.encode(x)), x_hat)
    near(sae.decode(z, x), x_hat)
    near(sae(x), x_hat)
    near(sae.decode(z[None], x[None])[0], x_hat)
    codes = sae.encode_sparse(x, chunk=chunk)
    dense = torch.zeros(tokens, N)
    dense[codes.tokens, codes.neurons] = codes.values
    near(dense, z)
    near(sae.decode_sparse(codes, tokens), x_hat)
    near(sae.decode_sparse(codes, tokens, x), x_hat)


@settings(max_examples=60, deadline=None)
@given(scaling=st.sampled_from(SCALINGS), rule=st.sampled_from(RULES), seed=st.integers(0, 99))
def test_a_change_is_what_it_makes_of_the_reconstruction(
    scaling: Scaling, rule: ActivationRule, seed: int
) -> None:
    sae, x = make(scaling, rule, seed), vectors(5, D, seed=seed)
    z = sae.encode(x)
    after = z.clone()
    after[1, 3], after[4] = -2.0, after[4] * 3
    token, neuron = (after - z).nonzero(as_tuple=True)
    change = SparseCodes(token, neuron, (after - z)[token, neuron])
    moved = sae.decode_change(change, 5, sae.scale(x))
    expected = sae.decode(after, x) - sae.decode(z, x)
    torch.testing.assert_close(moved, expected, atol=1e-3, rtol=1e-3)


def test_vectors_without_length_or_spread_stay_finite() -> None:
    still = torch.stack([torch.zeros(D), torch.full((D,), 3.0)])
    for scaling in SCALINGS:
        sae = make(scaling)
        assert torch.isfinite(sae.encode(still)).all() and torch.isfinite(sae(still)).all()
    assert not make(Scaling("layer_norm")).scaling.apply(still)[0].any()
    near(make(Scaling("layer_norm"))(still)[1], still[1])


def test_each_thread_keeps_the_scale_of_what_it_encoded_last() -> None:
    sae, x, other = make(SCALINGS[1]), vectors(3, D), vectors(3, D, seed=8)
    z, found = sae.encode(x), []
    thread = threading.Thread(target=lambda: found.append(sae.decode(sae.encode(other))))
    thread.start()
    thread.join()
    near(sae.decode(z), restated(sae, x)[1])
    near(found[0], restated(sae, other)[1])


def test_decoding_without_a_fitting_scale_is_refused() -> None:
    sae, x = make(SCALINGS[1]), vectors(3, D)
    with pytest.raises(
        SAEError, match=r"activations of vectors \[3\] needs the vectors .*: pass them as x \(nothing"
    ):
        sae.decode(torch.zeros(3, N))
    sae.encode(x)
    with pytest.raises(SAEError, match=r"of vectors \[2\] needs .* \(found \[3\] of them\)"):
        sae.decode(torch.zeros(2, N))
    with pytest.raises(SAEError, match="pass them as x"):
        sae.decode_sparse(sae.encode_sparse(x), 4)
    codes = sae.encode_sparse(x)
    for scale in (None, sae.scale(x[:2])):
        with pytest.raises(SAEError, match=r"needs scale=sae.scale\(vectors\)"):
            sae.decode_change(codes, 3, scale)
    for again in (copy.deepcopy(sae), pickle.loads(pickle.dumps(sae)), copy.deepcopy(sae).float()):
        with pytest.raises(SAEError, match="nothing was encoded"):
            again.decode(torch.zeros(3, N))
    plain = make(Scaling())
    assert plain.scale(x) is None and plain.decode(torch.zeros(9, N)).shape == (9, D)
    with pytest.raises(SAEError, match="takes vectors of width 6"):
        sae.scale(torch.zeros(3, N))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_file_keeps_rule_and_scaling(tmp_path: Path, scaling: Scaling, rule: ActivationRule) -> None:
    sae, path = make(scaling, rule), tmp_path / "sae.safetensors"
    sae.save(path)
    again = load_sae(path)
    assert (again.rule, again.scaling, again.id, again.group_sizes) == (rule, scaling, sae.id, (5, 15))
    x = vectors(4, D)
    assert torch.equal(again.encode(x), sae.encode(x)) and torch.equal(again(x), sae(x))
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["sae"])
    first = not scaling and rule in (RULES[0], RULES[1], RULES[3])
    assert header["format_version"] == (1 if first else 2)
    if first:
        assert list(header) == ["format_version", "rule", "group_sizes", "site_block", "model_id", "facts"]
        assert list(header["rule"]) == ["kind", "threshold", "k"]


def test_ids_tell_scalings_apart() -> None:
    assert len({make(scaling).id for scaling in SCALINGS}) == len(SCALINGS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "batch_norm"}, "unknown scaling of the input 'batch_norm'; use one of none, layer_norm"),
        ({"kind": "layer_norm", "eps": -1.0}, "eps = -1.0 of the input's scaling"),
        ({"kind": "layer_norm", "ddof": 2}, "ddof = 2"),
        ({"kind": "constant_norm", "norm": math.nan}, "norm = nan"),
    ],
)
def test_scalings_that_make_no_sense_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(SAEError, match=words):
        Scaling(**given)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_quality_is_that_of_the_reconstruction(scaling: Scaling, rule: ActivationRule) -> None:
    sae, x = make(scaling, rule), vectors(12, D)
    found, spread = evaluate(sae, x, chunk=3 * N), (x - x.mean(0)).square().sum()
    for groups, figure in enumerate(found.prefixes, start=1):
        error = x - sae.decode(sae.encode(x, groups=groups), x)
        assert figure == pytest.approx(float(1 - error.square().sum() / spread), rel=1e-3, abs=1e-3)
    assert found.l0 == pytest.approx(float(sae.encode(x).count_nonzero(1).float().mean()))
    pictures = x.view(3, 4, D)
    expected = [
        float((one - sae(one)).square().sum() / (one - one.mean(0)).square().sum()) for one in pictures
    ]
    assert unexplained(sae, pictures, sae.encode_sparse(x)) == pytest.approx(expected, rel=1e-3, abs=1e-3)
