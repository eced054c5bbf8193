"""Decoding methods: their formulas against naive ones, their branches, and that sampling is what it says."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explorer.errors import EditError
from explorer.steer import Decoding, cfg_scores, m3id_scores, vcd_scores, warped
from explorer.steer.scores import sampled
from explorer.vlm.base import Asked, AttentionEdit

VOCABULARY = 12
FEATURES, NOISY = torch.zeros(4, 3), torch.ones(4, 3)

logits = st.lists(st.floats(-20, 20, width=32), min_size=VOCABULARY, max_size=VOCABULARY)
alphas, betas = st.floats(0, 3), st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.999])


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(x - max(row)) for x in row)) + max(row)
    return [x - total for x in row]


def cut(scores: list[float], own: list[float], beta: float) -> list[float]:
    """Naively, on probabilities: those below beta times the largest are out."""
    shares = [math.exp(x) for x in log_softmax(own)]
    return [
        score if share >= beta * max(shares) else -math.inf
        for score, share in zip(scores, shares, strict=True)
    ]


def close(found: Tensor, expected: list[float], own: list[float], beta: float) -> None:
    edge = [
        beta > 0 and abs(x - max(own) - math.log(beta)) < 1e-4 for x in own
    ]  # rounding decides who stays there
    for mine, theirs, rounding in zip(found.tolist(), expected, edge, strict=True):
        assert rounding or mine == pytest.approx(theirs, rel=1e-4, abs=1e-3)


@settings(deadline=None, max_examples=60)
@given(logits, logits, alphas, betas)
def test_vcd(own: list, other: list, alpha: float, beta: float) -> None:
    found = vcd_scores(torch.tensor(own), torch.tensor(other), alpha, beta)
    expected = [(1 + alpha) * mine - alpha * theirs for mine, theirs in zip(own, other, strict=True)]
    close(found, cut(expected, own, beta), own, beta)


@settings(deadline=None, max_examples=60)
@given(logits, logits, st.integers(0, 120), betas)
def test_m3id(own: list, other: list, place: int, beta: float) -> None:
    found = m3id_scores(torch.tensor(own), torch.tensor(other), place, 0.02, beta)
    gamma = math.exp(-0.02 * place)
    mine, theirs = log_softmax(own), log_softmax(other)
    shift = [a + (a - b) * (1 - gamma) / gamma for a, b in zip(mine, theirs, strict=True)]
    expected = cut(shift, own, beta)
    top = max(expected)  # log-probabilities and logits differ by a constant
    close(found - found.max(), [x - top for x in expected], own, beta)


@settings(deadline=None, max_examples=60)
@given(logits, logits, alphas, betas)
def test_guidance(own: list, other: list, gamma: float, beta: float) -> None:
    mine, theirs = log_softmax(own), log_softmax(other)
    expected = [gamma * (a - b) + b for a, b in zip(mine, theirs, strict=True)]
    close(
        cfg_scores(torch.tensor(own), torch.tensor(other), gamma, beta), cut(expected, own, beta), own, beta
    )


def test_the_likeliest_token_always_stays_and_the_cutoff_is_on_raw_logits() -> None:
    own, other = torch.tensor([2.0, 1.9, -1.0, -9.0]), torch.tensor([9.0, 0.0, -9.0, -30.0])
    found = vcd_scores(own, other, 1.0, 0.1)
    assert found.tolist() == pytest.approx([-5.0, 3.8, -math.inf, -math.inf])
    assert vcd_scores(own, other, 1.0, 1.0).isfinite().tolist() == [True, False, False, False]
    assert vcd_scores(own, other, 1.0, 0.0).isfinite().all()
    banned = torch.tensor([1.0, -math.inf, 0.5, 0.0])
    assert not vcd_scores(banned, banned, 1.0, 0.0).isnan().any()


def test_m3id_adds_nothing_at_first_and_stays_finite() -> None:
    own, other = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(m3id_scores(own, other, 0, beta=0.0), own)
    assert m3id_scores(own, other, 100_000, beta=0.0).isfinite().all()


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(-12, 12), min_size=VOCABULARY, max_size=VOCABULARY, unique=True),
    st.sampled_from([0.25, 0.7, 1.0, 3.0]),
    st.integers(0, VOCABULARY + 3),
    st.sampled_from([1e-6, 0.3, 0.77, 0.95, 1.0]),
)
def test_warped(numbers: list, temperature: float, top_k: int, top_p: float) -> None:
    scores = [number / temperature for number in numbers]
    ranked = sorted(range(VOCABULARY), key=lambda token: -scores[token])[: top_k or None]
    total, together, stay = sum(math.exp(scores[token]) for token in ranked), 0.0, set()
    for token in ranked:
        if not stay or together < top_p or top_p == 1.0:
            stay.add(token)
        together += math.exp(scores[token]) / total
    found = warped(torch.tensor(numbers).float(), temperature, top_k, top_p).tolist()
    expected = [score if token in stay else -math.inf for token, score in enumerate(scores)]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(temperature=1.0),
        Decoding(temperature=0.6),
        Decoding(temperature=2.0, top_k=4),
        Decoding(temperature=1.0, top_p=0.8),
        Decoding("vcd", temperature=1.0, top_k=5, beta=0.05),
    ],
)
def test_sampling_follows_the_softmax(decoding: Decoding) -> None:
    branches = list(torch.randn(2, 8, generator=torch.Generator().manual_seed(2)))
    shares = warped(
        decoding.scores(branches, 0), decoding.temperature, decoding.top_k, decoding.top_p
    ).softmax(-1)
    drawn, draws = Counter(), 3000
    for seed in range(draws // 3):
        choose = Decoding(**{**decoding.__dict__, "seed": seed}).choose()
        drawn.update(choose(branches, place) for place in range(3))
    possible = [token for token in range(8) if shares[token] > 0]
    assert set(drawn) <= set(possible)
    off = sum((drawn[t] - draws * float(shares[t])) ** 2 / (draws * float(shares[t])) for t in possible)
    assert off < 28, "chi-square, at most 7 degrees of freedom: 1 in 5000"


def test_sampling_is_a_function_of_scores_seed_and_place() -> None:
    scores = torch.randn(500, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    draws = [sampled(scores, 5, place) for place in range(40)]
    assert torch.equal(torch.get_rng_state(), state), "torch's own randomness is left alone"
    assert draws[::-1] == [sampled(scores, 5, place) for place in reversed(range(40))]
    assert len(set(draws)) > 20 and draws != [sampled(scores, 6, place) for place in range(40)]
    assert draws != [sampled(scores, 5 + place, 0) for place in range(40)]
    nearly = [sampled(scores + 1e-4 * torch.rand(500), 5, place) for place in range(40)]
    assert sum(a != b for a, b in zip(draws, nearly, strict=True)) <= 1, "small changes mostly draw the same"
    only = torch.full((9,), -math.inf)
    only[4] = -300.0
    assert sampled(only, 0, 0) == 4


def test_places_do_not_repeat_one_another() -> None:
    """The noise of one place must not be that of the next, shifted or the same."""
    scores = torch.zeros(1000)
    draws = [sampled(scores, 0, place) for place in range(200)]
    assert len(set(draws)) > 150
    assert len({b - a for a, b in pairwise(draws)}) > 150


METHODS = ("plain", "vcd", "m3id", "icd", "pai", "vaf")


def asked(decoding: Decoding, layers: int = 32) -> list[Asked]:
    return decoding.asked("What is it?", FEATURES, NOISY, layers)


@pytest.mark.parametrize("method", METHODS)
def test_the_first_branch_is_the_question_about_the_given_picture(method: str) -> None:
    first, *others = asked(Decoding(method))
    assert first.prompt == "What is it?" and first.features is FEATURES and first.preface == ""
    assert len(others) == (method in ("vcd", "m3id", "icd", "pai"))
    assert all(other.attention is None and other.prompt == first.prompt for other in others)


def test_what_each_method_contrasts_with() -> None:
    assert asked(Decoding("vcd"))[1].features is NOISY
    assert asked(Decoding("m3id"))[1].features is None and asked(Decoding("pai"))[1].features is None
    instructed = asked(Decoding("icd"))[1]
    assert instructed.features is FEATURES and instructed.preface.startswith("You are a confused objects det")
    assert asked(Decoding("icd", disturbance="Guess."))[1].preface == "Guess."


def test_attention_is_that_of_the_papers() -> None:
    assert asked(Decoding("pai"))[0].attention == AttentionEdit((2, 32), "answer", image_gain=0.2)
    assert asked(Decoding("vaf"))[0].attention == AttentionEdit(
        (9, 15), "text", image_factor=1.15, system_factor=0.95
    )
    for method in ("plain", "vcd", "m3id", "icd"):
        assert asked(Decoding(method))[0].attention is None
    own = Decoding("pai", alpha=0.5, layers=(1, 3)).attention(4)
    assert own == AttentionEdit((1, 3), "answer", image_gain=0.5)


@pytest.mark.parametrize(
    ("layers", "pai", "vaf"),
    [
        (1, (0, 1), (0, 1)),
        (2, (1, 2), (1, 2)),
        (4, (2, 4), (1, 2)),
        (24, (2, 24), (7, 11)),
        (40, (2, 32), (11, 19)),
    ],
)
def test_models_of_other_depths(layers: int, pai: tuple[int, int], vaf: tuple[int, int]) -> None:
    assert Decoding("pai").attention(layers).layers == pai
    assert Decoding("vaf").attention(layers).layers == vaf


@settings(deadline=None)
@given(st.integers(1, 200), st.sampled_from(["pai", "vaf"]))
def test_layers_always_exist(layers: int, method: str) -> None:
    first, end = Decoding(method).attention(layers).layers
    assert 0 <= first < end <= layers


@pytest.mark.parametrize("method", METHODS)
def test_greedy_choice_is_the_largest_score(method: str) -> None:
    branches = list(torch.randn(2, 30, generator=torch.Generator().manual_seed(3)))
    choose = Decoding(method).choose()
    if method in ("plain", "vaf"):
        assert choose is None
        return
    expected = {
        "vcd": vcd_scores(*branches, 1.0, 0.1),
        "icd": vcd_scores(*branches, 1.0, 0.1),
        "m3id": m3id_scores(*branches, 9, 0.02, 0.1),
        "pai": cfg_scores(*branches, 1.1, 0.1),
    }[method]
    assert choose(branches, 9) == int(expected.argmax())


@pytest.mark.parametrize("method", METHODS)
def test_sampling_works_for_every_method_and_almost_none_is_greedy(method: str) -> None:
    decoding = Decoding(method, temperature=1e-6, seed=4)
    branches = list(torch.randn(len(asked(decoding)), 30, generator=torch.Generator().manual_seed(3)))
    assert decoding.choose()(branches, 2) == int(decoding.scores(branches, 2).argmax())


def test_only_vcd_needs_the_noisy_picture() -> None:
    assert [method for method in METHODS if Decoding(method).needs_noisy] == ["vcd"]
    with pytest.raises(EditError, match="'vcd' needs the features of the noisy picture"):
        Decoding("vcd").asked("What?", FEATURES)
    for method in ("pai", "vaf"):
        with pytest.raises(
            EditError, match=f"'{method}' needs to know how many layers the language model has"
        ):
            Decoding(method).asked("What?", FEATURES)
    assert len(Decoding("icd").asked("What?", FEATURES)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "opera"}, "unknown decoding 'opera'; use one of plain, vcd, m3id, icd, pai, vaf"),
        ({"alpha": -0.1}, "alpha must be a finite number from 0 up to 100, not -0.1"),
        ({"alpha": float("nan")}, "alpha must be .* not nan"),
        ({"beta": 1.1}, "beta must be a finite number from 0 up to 1, not 1.1"),
        ({"temperature": -1}, "temperature must be a finite number from 0 up to 100, not -1"),
        ({"temperature": math.inf}, "temperature must be .* not inf"),
        ({"top_k": -1}, "top_k must be a whole number from 0, not -1"),
        ({"top_k": 1.5}, r"top_k must be a whole number from 0, not 1\.5"),
        ({"top_p": 0.0}, "top_p must be a finite number above 0 up to 1, not 0.0"),
        ({"top_p": True}, "top_p must be .* not True"),
        ({"seed": -1}, "the seed must be a whole number from 0 to 4294967295, not -1"),
        ({"step": 1000}, "the noise step must be a whole number from 0 to 999, not 1000"),
        ({"noise_seed": None}, "the noise seed must be .* not None"),
        ({"decay": -0.02}, "decay must be"),
        ({"gamma": "1"}, "gamma must be .* not '1'"),
        ({"image_factor": math.nan}, "image_factor must be"),
        ({"system_factor": -1.0}, "system_factor must be"),
        ({"method": "icd", "disturbance": " "}, "the disturbance ' ' is no instruction"),
        ({"disturbance": None}, "the disturbance None is no instruction"),
        ({"layers": (3, 3)}, "layers 3 to 3 are none"),
        ({"layers": (-1, 3)}, "a layer must be a whole number from 0, not -1"),
        ({"layers": 3}, r"layers must be two numbers, .* not 3"),
        ({"layers": (1, 2, 3)}, r"layers must be two numbers, .* not \(1, 2, 3\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(EditError, match=words):
        Decoding(**arguments)


def test_layers_beyond_the_model_are_refused() -> None:
    with pytest.raises(EditError, match="layers 9 to 15 go beyond the 4 of this language model"):
        Decoding("vaf", layers=(9, 15)).asked("What?", FEATURES, layers=4)
