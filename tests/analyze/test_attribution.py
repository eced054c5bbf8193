"""Attribution: on a linear toy where the guess is exact, and on a tiny model against naive oracles."""

from __future__ import annotations

import threading
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_session import COLS, NEURONS, ROWS, LinearSession
from PIL import Image

from explorer import Edit, Session, View
from explorer.analyze.attribution import Attribution, attribute
from explorer.errors import EditError
from explorer.sae import SAE, ActivationRule
from explorer.vlm import open_lvlm


@pytest.fixture
def toy() -> LinearSession:
    return LinearSession()


def contributions(toy: LinearSession, word: str) -> np.ndarray:
    """z (g . W_dec) of every neuron at every patch, [T, F], without sparsity."""
    return toy.dense() * (toy.weights[word].numpy() @ toy.sae.W_dec.numpy().T)


# ---- the toy: the guess is exact -------------------------------------------------------------------


def test_on_a_linear_word_the_guess_is_the_drop(toy: LinearSession) -> None:
    found = attribute(toy, toy.view, "cake", measure=100)
    truth = contributions(toy, "cake")
    firing = np.flatnonzero(truth.any(0))
    assert sorted(guess.neuron for guess in found.guesses) == firing.tolist()
    estimates = [guess.estimate for guess in found.guesses]
    assert estimates == sorted(estimates, reverse=True) and min(estimates) < 0 < max(estimates)
    assert np.allclose(found.map, truth.sum(1).reshape(ROWS, COLS), atol=1e-5)
    assert (found.score, found.value, found.complete) == (-1.0, 0.0, True)
    assert len(found.ranked) == len(firing)
    for effect in found.ranked:
        assert effect.measured == pytest.approx(effect.estimate, abs=1e-5)
        assert np.allclose(effect.map.ravel(), truth[:, effect.neuron], atol=1e-5)
        assert effect.map.dtype == np.float32 and not effect.always_on
        assert effect.activation == pytest.approx(toy.dense()[:, effect.neuron].mean(), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, -30.0])
def test_others_sums_what_the_other_words_lose(toy: LinearSession, value: float) -> None:
    found = attribute(toy, toy.view, "cake", value=value)
    for effect in found.ranked:
        edits = [Edit(effect.neuron, value, "set", "active")]
        moved = {word: toy.moved(toy.view, edits, word) for word in ("table", "cake", "fork")}
        assert effect.measured == pytest.approx(-moved.pop("cake"), abs=1e-5)
        assert effect.others == pytest.approx(sum(max(-m, 0) for m in moved.values()), abs=1e-5)


def test_rankings(toy: LinearSession) -> None:
    def measured(**options: object) -> list[int]:
        return [effect.neuron for effect in attribute(toy, toy.view, "cake", **options).ranked]

    effects = {e.neuron: e for e in attribute(toy, toy.view, "cake", measure=99, value=-9.0).ranked}
    by_guess = sorted(effects, key=lambda n: -effects[n].estimate)
    by_size = sorted(effects, key=lambda n: -abs(effects[n].estimate))
    assert measured(by="estimate", measure=4) == by_guess[:4]
    assert measured(by="estimate", measure=4, rank="size") == by_size[:4] != by_guess[:4]
    for by, key in (
        ("measured", lambda n: -effects[n].measured),
        ("selective", lambda n: 3 * effects[n].others - effects[n].measured),
    ):
        assert measured(by=by, measure=5, value=-9.0) == sorted(by_guess[:5], key=key)
    assert measured(leave_out=by_guess[:2], measure=3, by="estimate") == by_guess[2:5]


def test_always_on_neurons_are_marked_and_can_be_left_out() -> None:
    best = attribute(LinearSession(), LinearSession().view, "cake").ranked[0].neuron
    knowing = LinearSession(always=(best,))
    found = attribute(knowing, knowing.view, "cake")
    assert [effect.neuron for effect in found.ranked if effect.always_on] == [best]
    without = attribute(knowing, knowing.view, "cake", skip_always_on=True)
    assert best not in [effect.neuron for effect in without.ranked]
    assert best in [guess.neuron for guess in without.guesses]


def test_marked_patches_are_guessed_and_changed_alone(toy: LinearSession) -> None:
    mask = np.array([[True, False, False], [False, True, True]])
    truth = contributions(toy, "cake") * mask.ravel()[:, None]
    for value in (0.0, -8.0):
        found = attribute(toy, toy.view, "cake", patches=mask, measure=99, value=value)
        assert {e.neuron for e in found.ranked} == set(np.flatnonzero(truth.any(0)))
        assert np.allclose(found.map, truth.sum(1).reshape(ROWS, COLS), atol=1e-5)
        for effect in found.ranked:
            here = mask & (toy.view.map(effect.neuron) > 0)
            change = toy.moved(toy.view, [Edit(effect.neuron, value, "set", here)], "cake")
            assert effect.measured == pytest.approx(-change, abs=1e-5)
            assert effect.estimate == pytest.approx(truth[:, effect.neuron].sum(), abs=1e-5)
            assert effect.activation == pytest.approx(toy.view.map(effect.neuron)[mask].mean(), abs=1e-6)


def test_everywhere_reaches_patches_where_the_neuron_is_silent(toy: LinearSession) -> None:
    everywhere = attribute(toy, toy.view, "cake", patches=None, value=-30.0)
    for effect in everywhere.ranked:
        change = toy.moved(toy.view, [Edit(effect.neuron, -30.0)], "cake")
        assert effect.measured == pytest.approx(-change, abs=1e-4)


def test_a_common_removal_takes_the_neuron_that_then_does_most(toy: LinearSession) -> None:
    for by in ("measured", "selective"):
        found = attribute(toy, toy.view, "cake", joint=3, by=by)
        assert [len(drop.neurons) for drop in found.joint] == [1, 2, 3]
        assert found.joint[0].neurons == (found.ranked[0].neuron,)
        pool = [effect.neuron for effect in found.ranked[:8]]
        for smaller, larger in zip(found.joint, found.joint[1:], strict=False):
            assert larger.neurons[:-1] == smaller.neurons
            key = (lambda d: d.measured) if by == "measured" else (lambda d: d.measured - 3 * d.others)
            tried = [_drop(toy, (*smaller.neurons, n)) for n in pool if n not in smaller.neurons]
            assert key(larger) == pytest.approx(max(map(key, tried)), abs=1e-5)
    few = attribute(toy, toy.view, "cake", measure=2, joint=3)
    assert len(few.joint) == 2 and not attribute(toy, toy.view, "cake").joint
    linear = {effect.neuron: effect.measured for effect in found.ranked}
    best = max(combinations(pool, 3), key=lambda three: sum(linear[n] for n in three))
    assert set(attribute(toy, toy.view, "cake", joint=3).joint[-1].neurons) == set(best)


class _Known:
    def __init__(self, measured: float, others: float) -> None:
        self.measured, self.others = measured, others


def _drop(toy: LinearSession, neurons: tuple[int, ...]) -> _Known:
    edits = [Edit(n, 0.0, "set", "active") for n in neurons]
    lost = [-toy.moved(toy.view, edits, word) for word in ("cake", "table", "fork")]
    return _Known(lost[0], sum(max(one, 0) for one in lost[1:]))


def test_a_run_of_words_and_an_answer_of_ones_own(toy: LinearSession) -> None:
    found = attribute(toy, toy.view, "cake FORK", answer="A cake fork, a Table")
    assert found.place.word.text == "cake fork" and found.score == -2.0
    both = (contributions(toy, "cake") + contributions(toy, "fork")).sum(0)
    for effect in found.ranked:
        assert effect.estimate == pytest.approx(both[effect.neuron], abs=1e-5)
        assert effect.measured == pytest.approx(both[effect.neuron], abs=1e-5)
    second = attribute(toy, toy.view, "cake", answer="A cake, a cake", occurrence=1)
    assert second.place.word.first == 3


def test_batches_do_not_matter_and_the_prompt_is_passed_on(toy: LinearSession) -> None:
    def told(found: Attribution) -> list[tuple]:
        return [(e.neuron, round(e.measured, 6), round(e.others, 6)) for e in found.ranked] + [
            (drop.neurons, round(drop.measured, 6)) for drop in found.joint
        ]

    whole = told(attribute(toy, toy.view, "cake", joint=2, value=-5.0))
    for batch in (1, 2, 7):
        toy.batches.clear()
        found = attribute(toy, toy.view, "cake", "Why?", joint=2, value=-5.0, batch=batch)
        assert told(found) == whole and max(toy.batches) <= max(batch, 2)
    assert set(toy.prompts[-3:]) == {"Why?"} and "Describe." in toy.prompts


def test_it_tells_how_far_it_is_and_can_be_stopped(toy: LinearSession) -> None:
    heard: list[tuple[int, int]] = []
    attribute(toy, toy.view, "cake", measure=5, batch=3, progress=lambda *seen: heard.append(seen))
    assert [done for done, _ in heard] == [2, 5] and heard[-1][1] == 5
    cancel = threading.Event()
    part = attribute(toy, toy.view, "cake", batch=3, joint=2, progress=lambda *_: cancel.set(), cancel=cancel)
    assert not part.complete and len(part.ranked) == 2 and not part.joint and len(part.guesses) > 2
    assert attribute(toy, toy.view, "cake", cancel=cancel).ranked == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"word": "dog"}, r"'A table, cake, fork.' does not say 'dog'; it has 'A', 'table', 'cake', 'fork'"),
        ({"word": ""}, "holds no word"),
        ({"occurrence": 1}, "2 times"),
        ({"measure": 0}, "measure 0"),
        ({"joint": -1}, "joint -1"),
        ({"value": float("nan")}, "nan"),
        ({"rank": "best"}, "unknown ranking 'best'; use one of support, size"),
        ({"by": "luck"}, "unknown ranking 'luck'; use one of measured, selective, estimate"),
        ({"leave_out": [NEURONS]}, "no neuron 12: this SAE has 12"),
        ({"patches": np.ones((3, 2), dtype=bool)}, r"in one of bool and shape \(3, 2\)"),
        ({"patches": np.zeros((2, 3), dtype=bool)}, r"mark some patches in a \(2, 3\) boolean mask, not 0"),
        ({"patches": np.ones((2, 3))}, "float64"),
        ({"patches": "here"}, "unknown patches 'here'"),
    ],
)
def test_wrong_arguments_are_refused_in_words(toy: LinearSession, arguments: dict, words: str) -> None:
    with pytest.raises(EditError, match=words):
        attribute(toy, toy.view, **{"word": "cake", **arguments})
    assert not toy.batches


def test_patches_where_nothing_fires_are_refused(toy: LinearSession) -> None:
    hushed = toy.view.codes._replace(tokens=torch.zeros_like(toy.view.codes.tokens))
    object.__setattr__(toy.view, "codes", hushed)
    mask = np.array([[False, True, True], [True, True, True]])
    with pytest.raises(EditError, match="no neuron fires at the 5 patches"):
        attribute(toy, toy.view, "cake", patches=mask)


# ---- a tiny model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    draw = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(96, 32, generator=draw), dim=1)
    sae = SAE(rows.T, torch.zeros(96), rows, torch.zeros(32), ActivationRule("topk", k=6), site_block=1)
    return Session(open_lvlm(tiny_lvlm_folder), sae.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def view(session: Session) -> View:
    pixels = np.random.default_rng(0).integers(0, 256, (44, 70, 3), dtype=np.uint8)
    return session.look(Image.fromarray(pixels))


ANSWER = "the red dog beside a cake"


def log_prob(session: Session, view: View, edits: tuple[Edit, ...]) -> float:
    """Of the third word, one picture at a time."""
    return float(session.log_probs([(view, edits)], "Describe the image.", ANSWER)[0, 2])


def test_guesses_are_finite_differences_and_drops_are_what_the_session_says(
    session: Session, view: View
) -> None:
    found = attribute(session, view, "dog", answer=ANSWER, measure=12, rank="size", joint=2)
    base = log_prob(session, view, ())
    assert found.score == pytest.approx(base, abs=1e-4)
    for effect in found.ranked:
        step = 0.01
        slope = [
            log_prob(session, view, (Edit(effect.neuron, 1 + sign * step, "scale", "active"),))
            for sign in (1, -1)
        ]
        assert effect.estimate == pytest.approx((slope[0] - slope[1]) / (2 * step), rel=0.05, abs=2e-3)
        edits = (Edit(effect.neuron, 0.0, "set", "active"),)
        assert effect.measured == pytest.approx(base - log_prob(session, view, edits), abs=1e-4)
        assert effect.map.sum() == pytest.approx(effect.estimate, abs=1e-5)
    for drop in found.joint:
        edits = tuple(Edit(n, 0.0, "set", "active") for n in drop.neurons)
        assert drop.measured == pytest.approx(base - log_prob(session, view, edits), abs=1e-4)


def test_batches_of_a_model_do_not_matter(session: Session, view: View) -> None:
    one, many = (
        attribute(session, view, "dog", answer=ANSWER, value=-3.0, measure=9, batch=batch)
        for batch in (2, 32)
    )
    assert [e.neuron for e in one.ranked] == [e.neuron for e in many.ranked]
    assert np.allclose([e.measured for e in one.ranked], [e.measured for e in many.ranked], atol=1e-4)
    assert [e.neuron for e in attribute(session, view, session.answer(view).split()[0]).ranked]
