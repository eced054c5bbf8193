"""Activation rules against naive loops, dense and sparse; their identity, and what they refuse."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule

N = 24
PER_NEURON = torch.linspace(-1, 1.5, N)
PER_NEURON[::5] = math.inf
RULES = (
    ActivationRule("relu"),
    ActivationRule("jumprelu", 0.7, 3),
    ActivationRule("jumprelu", -1.0, 3),
    ActivationRule("jumprelu", math.inf),
    ActivationRule("jumprelu", 0.5, inclusive=True),
    ActivationRule("jumprelu", -0.5, inclusive=True),
    ActivationRule("jumprelu", PER_NEURON),
    ActivationRule("jumprelu", PER_NEURON, inclusive=True),
    ActivationRule("topk", k=3),
    ActivationRule("topk", k=500),
    ActivationRule("topk", k=3, signed=True),
    ActivationRule("topk", k=500, signed=True),
    ActivationRule("abstopk", k=4),
    ActivationRule("abstopk", k=500),
    ActivationRule("groupmax", k=1),
    ActivationRule("groupmax", k=6),
    ActivationRule("groupmax", k=N),
)


def naive(rule: ActivationRule, row: list[float]) -> list[float]:
    """The activations of one vector, by the words of the rule's docstring."""
    best = {
        "topk": sorted(row if rule.signed else [max(p, 0.0) for p in row], reverse=True)[: rule.k],
        "abstopk": sorted(map(abs, row), reverse=True)[: rule.k],
    }.get(rule.kind, [])
    z = []
    for place, p in enumerate(row):
        bar = float(rule.threshold[place]) if rule.per_neuron else rule.threshold
        match rule.kind:
            case "relu":
                keep = p > 0
            case "jumprelu":
                keep = p > 0 and (p >= bar if rule.inclusive else p > bar)
            case "topk":
                keep = p in best
            case "abstopk":
                keep = abs(p) in best
            case "groupmax":
                size = len(row) // rule.k
                start = place // size * size
                keep = p > 0 and p == max(row[start : start + size])
        z.append(p if keep else 0.0)
    return z


@settings(max_examples=120, deadline=None)
@given(rule=st.sampled_from(RULES), rows=st.integers(0, 5), seed=st.integers(0, 99))
def test_dense_and_sparse_follow_the_words(rule: ActivationRule, rows: int, seed: int) -> None:
    p = torch.randn(rows, N, generator=torch.Generator().manual_seed(seed))
    expected = torch.tensor([naive(rule, row) for row in p.tolist()]).reshape(rows, N)
    assert torch.equal(rule(p), expected)
    assert torch.equal(rule(p.reshape(1, rows, N))[0], expected)
    codes = rule.sparse(p)
    dense = torch.zeros(rows, N)
    dense[codes.tokens, codes.neurons] = codes.values
    assert torch.equal(dense, expected)
    assert (codes.values != 0).all() and ((codes.tokens * N + codes.neurons).diff() > 0).all()
    assert codes.tokens.dtype == codes.neurons.dtype == torch.int64
    if not rule.negatives:
        assert (codes.values > 0).all()


def test_the_edge_of_the_threshold() -> None:
    p = torch.tensor([[0.5, 0.75, 0.0, -0.5]])
    assert ActivationRule("relu").sparse(p).neurons.tolist() == [0, 1]
    assert ActivationRule("jumprelu", 0.5)(p).tolist() == [[0.0, 0.75, 0.0, 0.0]]
    assert ActivationRule("jumprelu", 0.5, inclusive=True)(p).tolist() == [[0.5, 0.75, 0.0, 0.0]]
    assert ActivationRule("jumprelu", -0.5, inclusive=True).sparse(p).neurons.tolist() == [0, 1]
    each = torch.tensor([0.5, 0.8, 0.0, -1.0])
    for inclusive, first in ((False, 0.0), (True, 0.5)):
        rule = ActivationRule("jumprelu", each, inclusive=inclusive)
        assert rule(p).tolist() == [[first, 0.0, 0.0, 0.0]]
        assert rule.sparse(p).neurons.tolist() == [0] * inclusive


def test_ties_keep_k_of_them() -> None:
    p = torch.tensor([[1.0, 1.0, 1.0, -1.0]])
    assert int(ActivationRule("topk", k=2)(p).count_nonzero()) == 2
    assert int(ActivationRule("abstopk", k=2).sparse(p).values.numel()) == 2
    assert int(ActivationRule("groupmax", k=2)(p).count_nonzero()) == 2


def test_equality_and_hash_look_into_tensors() -> None:
    assert len({*RULES}) == len(RULES) and all(rule == replace(rule) for rule in RULES)
    other = PER_NEURON.clone()
    other[1] += 1e-3
    assert ActivationRule("jumprelu", PER_NEURON.clone()) == ActivationRule("jumprelu", PER_NEURON)
    assert ActivationRule("jumprelu", other) != ActivationRule("jumprelu", PER_NEURON)
    every_other = PER_NEURON.repeat_interleave(2)[::2]
    assert ActivationRule("jumprelu", every_other) == ActivationRule("jumprelu", PER_NEURON)
    assert ActivationRule("relu") != "relu"


def made(rule: ActivationRule) -> SAE:
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=g) for shape in ((5, N), (N,), (N, 5), (5,))]
    return SAE(*weights, rule)


@pytest.mark.parametrize(
    "rule", [ActivationRule("relu"), ActivationRule("jumprelu", 0.5, 3), ActivationRule("topk", k=2)]
)
def test_the_id_of_the_first_rules_is_what_it_was(rule: ActivationRule) -> None:
    """Stores name SAEs by it: the header of kind, threshold and k, and the four weights."""
    sae = made(rule)
    said = [5, N, {"kind": rule.kind, "threshold": rule.threshold, "k": rule.k}]
    digest = hashlib.sha256(json.dumps(said).encode())
    for tensor in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec):
        digest.update(tensor.detach().numpy().tobytes())
    assert sae.id == digest.hexdigest()


def test_ids_tell_rules_apart() -> None:
    assert len({made(rule).id for rule in RULES}) == len(RULES)


def test_thresholds_move_with_the_weights() -> None:
    sae = made(ActivationRule("jumprelu", PER_NEURON.double()))
    assert sae.rule.threshold.dtype == torch.float32
    moved = copy.deepcopy(sae).to("meta")
    assert moved.rule.threshold.device.type == "meta" and sae.rule.threshold.device.type == "cpu"
    assert pickle.loads(pickle.dumps(sae)).id == copy.deepcopy(sae).id == sae.id


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "jumprelu", "threshold": torch.tensor([0.1, math.nan])}, "1 of the 2 thresholds are NaN"),
        ({"kind": "jumprelu", "threshold": -math.inf}, "not finite"),
        (
            {"kind": "relu", "threshold": torch.zeros(2)},
            "belong to the activation rule 'jumprelu', not 'relu'",
        ),
        ({"kind": "jumprelu", "threshold": torch.zeros(2, 2)}, r"shape \[2, 2\]; expected floats \[F\]"),
        ({"kind": "jumprelu", "threshold": torch.zeros(2).long()}, "torch.int64"),
        ({"kind": "gelu"}, "unknown activation rule 'gelu'; use one of relu, jumprelu, topk"),
        ({"kind": "jumprelu", "threshold": "high"}, "the threshold 'high' is not a number"),
        ({"kind": "jumprelu", "threshold": True}, "the threshold True is not a number"),
        ({"kind": "topk", "k": True}, "k = True does not fit"),
        ({"kind": "topk", "k": 2.0}, "k = 2.0 does not fit"),
        ({"kind": "relu", "k": -1}, "k = -1 does not fit"),
        ({"kind": "abstopk"}, "k = 0 does not fit"),
        ({"kind": "groupmax"}, "k = 0 does not fit"),
        ({"kind": "relu", "inclusive": True}, "inclusive = True does not fit the activation rule 'relu'"),
        ({"kind": "abstopk", "k": 2, "signed": True}, "signed = True does not fit"),
        ({"kind": "topk", "k": 2, "signed": "yes"}, "signed = 'yes' does not fit"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, object], words: str) -> None:
    with pytest.raises(SAEError, match=words):
        ActivationRule(**rule)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            ActivationRule("jumprelu", torch.zeros(N - 1)),
            r"thresholds have the shape \[23\]; expected \[24\]",
        ),
        (ActivationRule("groupmax", k=5), "24 neurons cannot be split into k = 5 equal groups"),
        (ActivationRule("groupmax", k=48), "cannot be split"),
    ],
)
def test_rules_that_do_not_fit_the_neurons_are_refused(rule: ActivationRule, words: str) -> None:
    with pytest.raises(SAEError, match=words):
        made(rule)


def test_no_dense_activations_beyond_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse codes of many vectors: the largest dense piece is counted where the rule is called."""
    largest = [0]
    whole = ActivationRule.sparse

    def counted(self: ActivationRule, p: Tensor) -> object:
        largest[0] = max(largest[0], p.numel())
        return whole(self, p)

    monkeypatch.setattr(ActivationRule, "sparse", counted)
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(1))
    for rule in RULES:
        sae = made(rule)
        codes = sae.encode_sparse(x, chunk=10 * N)
        assert 0 < largest[0] <= 10 * N
        torch.testing.assert_close(codes.values, sae.encode_sparse(x).values)
        largest[0] = 0
