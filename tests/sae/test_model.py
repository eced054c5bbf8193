"""The SAE class and its file: rules, shapes, sparse codes, round trips, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule, SparseCodes, load_sae

RULES = (
    ActivationRule("relu"),
    ActivationRule("jumprelu", 0.7, 3),
    ActivationRule("jumprelu", -1.0, 3),
    ActivationRule("topk", k=3),
    ActivationRule("topk", k=500),
)


def make(rule: ActivationRule = RULES[1], width: int = 5, neurons: int = 24, seed: int = 0) -> SAE:
    g = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(neurons, width, generator=g)
    b_enc, b_dec = torch.randn(neurons, generator=g) * 0.3, torch.randn(width, generator=g)
    sizes = (neurons // 4, neurons // 4, neurons - 2 * (neurons // 4))
    return SAE(
        W_dec.T.contiguous(), b_enc, W_dec, b_dec, rule,
        group_sizes=sizes, site_block=4, model_id="tiny", facts={"steps": 7},
    )  # fmt: skip


def vectors(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rule", RULES)
def test_encode_follows_the_formulas(rule: ActivationRule) -> None:
    sae, x = make(rule), vectors(6, 5)
    p = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(sae.preactivations(x), p)
    z = torch.zeros_like(p)
    for t, row in enumerate(p.tolist()):
        largest = sorted(row, reverse=True)[: rule.k]
        for j, value in enumerate(row):
            kept = {
                "relu": value > 0,
                "jumprelu": value > max(0.0, rule.threshold),
                "topk": value > 0 and value in largest,
            }
            z[t, j] = value if kept[rule.kind] else 0.0
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae.decode(z), z @ sae.W_dec + sae.b_dec)
    torch.testing.assert_close(sae(x), sae.decode(z))


def test_the_product_may_be_taken_in_bfloat16() -> None:
    sae, x = make(), vectors(40, 5)
    for frozen in (False, True, True):  # the second time its matrix is kept
        sae.requires_grad_(not frozen)
        p = sae.preactivations(x, torch.bfloat16)
        product = (x - sae.b_dec).bfloat16() @ sae.W_enc.bfloat16()
        assert p.dtype == torch.float32 and torch.equal(p, product.float() + sae.b_enc)
        assert torch.equal(sae.encode(x, dtype=torch.bfloat16), sae.rule(p))
        assert 0 < float((p - sae.preactivations(x)).detach().abs().max()) < 0.1
    assert sae._encoder(torch.bfloat16) is sae._encoder(torch.bfloat16)
    assert sae.double()._encoder(torch.float16).dtype == torch.float16


def test_threshold_is_strict() -> None:
    eye = torch.eye(2)
    sae = SAE(eye, torch.zeros(2), eye, torch.zeros(2), ActivationRule("jumprelu", 0.5))
    assert sae.encode(torch.tensor([0.5, 0.75])).tolist() == [0.0, 0.75]


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(RULES), tokens=st.integers(0, 9), chunk=st.integers(1, 200), seed=st.integers(0, 99)
)
def test_sparse_codes_equal_dense_ones(rule: ActivationRule, tokens: int, chunk: int, seed: int) -> None:
    sae, x = make(rule, seed=seed), vectors(tokens, 5, seed=seed)
    codes = sae.encode_sparse(x, chunk=chunk)
    dense = torch.zeros(tokens, 24)
    dense[codes.tokens, codes.neurons] = codes.values
    torch.testing.assert_close(dense, sae.encode(x).detach())
    assert (codes.values > 0).all() and codes.values.dtype == torch.float32
    place = codes.tokens * 24 + codes.neurons
    assert (place.diff() > 0).all()


@settings(max_examples=30, deadline=None)
@given(rule=st.sampled_from(RULES), tokens=st.integers(0, 9), seed=st.integers(0, 99))
def test_sparse_decoding_equals_the_dense_one(rule: ActivationRule, tokens: int, seed: int) -> None:
    sae, x = make(rule, seed=seed), vectors(tokens, 5, seed=seed)
    decoded = sae.decode_sparse(sae.encode_sparse(x), tokens)
    torch.testing.assert_close(decoded, sae(x).detach(), atol=1e-4, rtol=1e-4)
    assert not decoded.requires_grad


def test_sparse_decoding_copes_with_silent_vectors_and_none_at_all() -> None:
    sae = make()
    codes = sae.encode_sparse(vectors(12, 5))
    keep = codes.tokens % 3 == 1
    some = SparseCodes(*(part[keep] for part in codes))
    dense = torch.zeros(12, 24)
    dense[some.tokens, some.neurons] = some.values
    torch.testing.assert_close(sae.decode_sparse(some, 12), sae.decode(dense).detach())
    none = SparseCodes(*(part[:0] for part in codes))
    torch.testing.assert_close(sae.decode_sparse(none, 3), sae.b_dec.detach().expand(3, 5))
    assert sae.decode_sparse(none, 0).shape == (0, 5)


@settings(max_examples=25, deadline=None)
@given(rule=st.sampled_from(RULES), groups=st.integers(0, 3), a=st.integers(1, 3), b=st.integers(1, 4))
def test_groups_are_prefixes_for_any_shape(rule: ActivationRule, groups: int, a: int, b: int) -> None:
    sae, x = make(rule), vectors(a, b, 5)
    end = (0, *sae.boundaries)[groups]
    z = sae.encode(x, groups=groups)
    assert z.shape == (a, b, 24)
    assert not z[..., end:].any()
    assert torch.equal(z[..., :end], sae.encode(x)[..., :end])
    flat = sae.encode(x.reshape(-1, 5), groups=groups).view(a, b, 24)
    torch.testing.assert_close(z, flat)
    if groups == 3:
        assert torch.equal(z, sae.encode(x))


def test_half_precision_input_is_computed_in_float32() -> None:
    sae, x = make(), vectors(4, 5).half()
    assert sae.encode(x).dtype == torch.float32
    torch.testing.assert_close(sae.encode(x), sae.encode(x.float()))


def test_direction_is_the_decoder_row() -> None:
    sae = make()
    z = torch.zeros(24)
    z[7] = 2.0
    torch.testing.assert_close(sae.decode(z) - sae.b_dec, 2 * sae.direction(7))
    for neuron in (-1, 24):
        with pytest.raises(SAEError, match=f"no neuron {neuron}: this SAE has 24"):
            sae.direction(neuron)


@settings(max_examples=15, deadline=None)
@given(
    rule=st.sampled_from(RULES), width=st.integers(1, 6), neurons=st.integers(4, 20), seed=st.integers(0, 9)
)
def test_save_and_load_give_the_same_sae(
    tmp_path_factory: pytest.TempPathFactory, rule: ActivationRule, width: int, neurons: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("sae") / "deep" / "sae.safetensors"
    sae = make(rule, width, neurons, seed)
    sae.save(path)
    again = load_sae(path)
    for name, tensor in sae.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert (again.rule, again.group_sizes, again.facts) == (rule, sae.group_sizes, {"steps": 7})
    assert (again.site_block, again.model_id, again.id) == (4, "tiny", sae.id)
    assert not any(p.requires_grad for p in again.parameters())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_half_storage_is_smaller_and_near(tmp_path: Path) -> None:
    sae = make(width=32, neurons=256)
    sae.save(tmp_path / "full.st")
    sae.save(tmp_path / "half.st", half=True)
    assert (tmp_path / "half.st").stat().st_size < 0.6 * (tmp_path / "full.st").stat().st_size
    near = load_sae(tmp_path / "half.st")
    assert near.W_dec.dtype == torch.float32
    torch.testing.assert_close(near.W_dec, sae.W_dec, atol=2e-3, rtol=1e-3)
    assert torch.equal(near.b_dec, sae.b_dec)
    assert near.id != sae.id and near.id == load_sae(tmp_path / "half.st").id


def test_the_id_follows_weights_and_rule() -> None:
    sae = make()
    first = sae.id
    assert len(first) == 64 and first.startswith(sae.short_id) and make().id == first
    assert make(replace(RULES[1], threshold=0.8)).id != first
    with torch.no_grad():
        sae.b_dec[0] += 1
    assert sae.id != first


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that must be refused, by a piece of the message they must give."""
    good = folder / "good.st"
    make().save(good)
    tensors, header = load_file(good), {"sae": json.dumps({"format_version": 1})}
    made: dict[str, Path] = {"no SAE file at": folder / "missing.st"}

    def keep(words: str, **changes: torch.Tensor) -> None:
        made[words] = folder / f"{len(made)}.st"
        save_file({**tensors, **changes}, made[words], metadata=header)

    keep("header is incomplete")
    keep("found the tensors W_dec, W_enc, b_dec, b_enc, extra; expected W_enc", extra=torch.zeros(1))
    keep(r"W_enc has the shape \[24, 5\]; expected \[5, 24\]", W_enc=torch.zeros(24, 5))
    keep(r"W_dec has the shape \[24, 4\]; expected \[24, 5\]", W_dec=torch.zeros(24, 4))
    keep(r"b_enc has the shape \[2, 12\]", b_enc=torch.zeros(2, 12))
    keep("b_dec has 1 values that are not finite", b_dec=torch.tensor([0, 0, float("nan"), 0, 0]))
    keep("W_dec has 120 values that are not finite", W_dec=torch.full((24, 5), float("inf")))
    keep("b_enc holds torch.int64", b_enc=torch.zeros(24, dtype=torch.int64))
    header["sae"] = json.dumps({"format_version": 99})
    keep("format version is 99")
    header["sae"] = "not json"
    keep("not JSON")
    header["sae"] = json.dumps(
        {"format_version": 1, "rule": {"kind": "gelu"}, "group_sizes": [24], "site_block": 1,
         "model_id": "m", "facts": {}}
    )  # fmt: skip
    keep("unknown activation rule 'gelu'")
    header["sae"] = header["sae"].replace("gelu", "relu").replace("[24]", "[25]")
    keep("groups .* do not add up to 24")
    header["sae"] = header["sae"].replace("[25]", "[-1, 25]")
    keep(r"groups \(-1, 25\) do not add up to 24")
    header.clear()
    keep("is of no known format: found the tensors W_dec")
    for size in (0, 7, 200, good.stat().st_size - 1):
        made[f"not a whole safetensors file {'.' * len(made)}"[:28]] = cut = folder / f"cut{size}.st"
        cut.write_bytes(good.read_bytes()[:size])
        with pytest.raises(SAEError, match="not a whole safetensors file"):
            load_sae(cut)
    return made


def test_bad_files_are_refused_in_plain_words(tmp_path: Path) -> None:
    for words, path in bad_files(tmp_path).items():
        with pytest.raises(SAEError, match=words):
            load_sae(path)


def test_weights_that_cannot_be_stored_are_refused(tmp_path: Path) -> None:
    sae = make()
    with torch.no_grad():
        sae.W_enc[0, 0] = 1e6
    with pytest.raises(SAEError, match=r"W_enc has 1 values that are not finite \(torch.float16\)"):
        sae.save(tmp_path / "sae.st", half=True)
    assert not list(tmp_path.iterdir())


def test_vectors_that_do_not_fit_are_refused() -> None:
    sae = make()
    with pytest.raises(SAEError, match=r"width 5; it was given the shape \[2, 4\]"):
        sae.encode(torch.zeros(2, 4))
    with pytest.raises(SAEError, match=r"neurons: 24; it was given the shape \[2, 5\]"):
        sae.decode(torch.zeros(2, 5))
    with pytest.raises(SAEError, match=r"takes vectors \[T, 5\]"):
        sae.encode_sparse(torch.zeros(2, 3, 5))
    with pytest.raises(SAEError, match="has 3 groups, not 4"):
        sae.encode(torch.zeros(5), groups=4)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "gelu"}, "unknown activation rule 'gelu'"),
        ({"kind": "topk"}, "k = 0 does not fit"),
        ({"kind": "jumprelu", "threshold": float("nan")}, "not finite"),
        ({"kind": "jumprelu", "threshold": "0.5"}, "not a number"),
        ({"k": 2.5}, "k = 2.5 does not fit"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, object], words: str) -> None:
    with pytest.raises(SAEError, match=words):
        ActivationRule(**rule)
