"""Sweeps: on a linear toy whose flip points are known, and on a tiny model against the session itself."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_session import NEURONS, LinearSession
from PIL import Image

from explorer import Edit, Session, View
from explorer.analyze.alpha import AlphaSweep, alpha_sweep
from explorer.analyze.places import best_place, place_in
from explorer.errors import EditError
from explorer.sae import SAE, ActivationRule
from explorer.vlm import open_lvlm

ALPHAS = (-40.0, -20.0, -5.0, 0.0, 5.0, 20.0, 40.0)


@pytest.fixture
def toy() -> LinearSession:
    return LinearSession()


def strongest(toy: LinearSession) -> int:
    return toy.view.top(1)[0].neuron


# ---- the toy: everything is known ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["set", "add", "scale"])
@pytest.mark.parametrize("patches", ["active", None, "mask"])
def test_flip_points_of_a_linear_word_lie_where_its_score_is_zero(
    toy: LinearSession, mode: str, patches: str | None
) -> None:
    mask = np.array([[True, False, True], [False, True, True]])
    where = mask if patches == "mask" else patches
    z, tried = toy.dense(), 0
    for neuron in range(0, NEURONS, 4):
        reached = {"active": z[:, neuron] > 0, "mask": mask.ravel(), None: np.ones(6, bool)}[patches]
        pull = toy.weights["cake"].numpy() @ toy.sae.W_dec[neuron].numpy() * reached
        slope = float((pull * z[:, neuron]).sum() if mode == "scale" else pull.sum())
        start = {"set": -(pull * z[:, neuron]).sum(), "add": 0.0, "scale": -slope}[mode]
        sweep = alpha_sweep(toy, toy.view, neuron, ALPHAS, "cake", None, mode, where, tolerance=0.05)
        resting = {"set": z[reached, neuron].mean() if reached.any() else 0.0, "add": 0.0, "scale": 1.0}
        assert sweep.untouched.alpha == pytest.approx(resting[mode], abs=1e-6)
        for point in sweep.points:
            moved = 0.0 if point.untouched else start + slope * point.alpha
            assert point.log_prob == pytest.approx(-1.0 + moved, abs=1e-4)
            assert point.said == (0.5 + moved > 0) == ("cake" in point.caption)
        for flip in sweep.flips:
            tried += 1
            assert "cake" in flip.caption or flip.leaves
            assert abs(flip.alpha - flip.before) <= 0.05
            score = [0.5 + start + slope * alpha for alpha in (flip.before, flip.alpha)]
            if flip.before != sweep.untouched.alpha:
                assert (score[0] > 0) == flip.leaves != (score[1] > 0)
    assert tried >= 1


def test_several_neurons_move_together_and_one_given_twice_counts_once(toy: LinearSession) -> None:
    first, second = (found.neuron for found in toy.view.top(2))
    sweep = alpha_sweep(toy, toy.view, [first, second, first], ALPHAS, "fork")
    assert sweep.neurons == (first, second) and sweep.complete
    both = np.stack([toy.view.map(first), toy.view.map(second)])
    assert sweep.untouched.alpha == pytest.approx(both[both > 0].mean())
    for point in sweep.points:
        edits = [Edit(n, point.alpha, "set", "active") for n in (first, second)] * (not point.untouched)
        assert point.log_prob == pytest.approx(-1.0 + toy.moved(toy.view, edits, "fork"))
        assert point.caption == toy.answer(toy.view, edits=edits)


def test_batches_do_not_matter_and_narrowing_takes_few_answers(toy: LinearSession) -> None:
    def told(sweep: AlphaSweep) -> tuple:
        return sweep.points, sweep.flips, sweep.extra

    whole = alpha_sweep(toy, toy.view, strongest(toy), ALPHAS, "cake", tolerance=0.05)
    assert whole.flips and whole.extra <= 10 * len(whole.flips)
    assert max(toy.batches) == len(ALPHAS)
    toy.batches.clear()
    assert told(alpha_sweep(toy, toy.view, strongest(toy), ALPHAS[::-1], "cake", tolerance=0.05, batch=2))
    assert max(toy.batches) == 2
    for batch in (1, 3):
        assert told(
            alpha_sweep(toy, toy.view, strongest(toy), ALPHAS, "cake", tolerance=0.05, batch=batch)
        ) == told(whole)


def test_progress_counts_up_and_a_sweep_can_be_stopped(toy: LinearSession) -> None:
    heard: list[tuple[int, int]] = []
    whole = alpha_sweep(
        toy, toy.view, strongest(toy), ALPHAS, "cake", batch=2, progress=lambda *seen: heard.append(seen)
    )
    done = [seen[0] for seen in heard]
    assert done == sorted(done) and done[-1] == 2 * len(ALPHAS) + whole.extra
    assert all(done <= total for done, total in heard)

    cancel = threading.Event()
    part = alpha_sweep(
        toy,
        toy.view,
        strongest(toy),
        ALPHAS,
        "cake",
        batch=2,
        progress=lambda done, total: cancel.set() if done >= 4 else None,
        cancel=cancel,
    )
    assert not part.complete and part.untouched.caption == whole.untouched.caption
    assert len(part.points) < len(whole.points) and part.extra == 0
    cancel.set()
    none = alpha_sweep(toy, toy.view, strongest(toy), ALPHAS, "cake", cancel=cancel)
    assert not none.complete and [point.untouched for point in none.points] == [True]


def test_one_may_say_when_a_caption_says_the_word(toy: LinearSession) -> None:
    sweep = alpha_sweep(
        toy, toy.view, strongest(toy), ALPHAS, "cake", says=lambda text: "fork" in text, tolerance=1
    )
    assert all(point.said == ("fork" in point.caption) for point in sweep.points)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"neurons": NEURONS}, "no neuron 12: this SAE has 12"),
        ({"neurons": -1}, "no neuron -1"),
        ({"neurons": []}, "at least one neuron"),
        ({"neurons": True}, "no neuron True"),
        ({"alphas": []}, "no values were given"),
        ({"alphas": [1.0, float("nan")]}, "nan is not a finite number"),
        ({"alphas": [float("inf")]}, "inf is not a finite number"),
        ({"alphas": [1e9]}, "outside"),
        (
            {"patches": np.ones((3, 2), dtype=bool)},
            r"mask has the shape \(3, 2\), the picture's grid \(2, 3\)",
        ),
        ({"patches": np.ones((2, 3))}, "boolean mask"),
        ({"patches": "some"}, "unknown patches"),
        ({"mode": "double"}, "unknown edit mode"),
        ({"word": "  ,"}, "holds no word"),
        ({"tolerance": 0.0}, "above 0"),
        ({"tolerance": float("nan")}, "above 0"),
    ],
)
def test_wrong_arguments_are_refused_in_words(toy: LinearSession, arguments: dict, words: str) -> None:
    good = {"neurons": 1, "alphas": [0.0], "word": "cake"}
    with pytest.raises(EditError, match=words):
        alpha_sweep(toy, toy.view, **{**good, **arguments})


# ---- places ----------------------------------------------------------------------------------------


def test_runs_of_words_are_found_whatever_their_case(toy: LinearSession) -> None:
    answer = "A cake and a Fork and knife, a cake."
    run = place_in(toy.lvlm, answer, "fork and KNIFE")
    assert run.word.text == "Fork and knife" and (run.word.first, run.word.last) == (4, 7)
    assert answer[run.word.start : run.word.end] == "Fork and knife"
    assert [word.text for word in run.others] == ["cake", "cake"]
    assert place_in(toy.lvlm, answer, "cake", 1).word.start == 31
    with pytest.raises(EditError, match="does not say 'cake' 3 times"):
        place_in(toy.lvlm, answer, "cake", 2)
    with pytest.raises(EditError, match=r"does not say 'dog'; it has 'A', 'cake', 'and'"):
        place_in(toy.lvlm, answer, "dog")
    with pytest.raises(EditError, match="no words at all"):
        place_in(toy.lvlm, "", "dog")


def test_a_word_that_is_not_said_has_its_best_place(toy: LinearSession) -> None:
    place = best_place(toy, toy.view, "dog", None, "A table with cake.")
    assert (place.answer, place.said, place.word.first) == ("A table dog", False, 2)
    assert best_place(toy, toy.view, "dog", None, "").answer == "Dog"
    assert best_place(toy, toy.view, "Table", None, "A table with cake.").said
    sweep = alpha_sweep(toy, toy.view, strongest(toy), [0.0, 9.0], "dog")
    assert not sweep.place.said and not any(point.said for point in sweep.points) and not sweep.flips
    edits = [Edit(strongest(toy), 9.0, "set", "active")]
    assert sweep.points[-1].log_prob == pytest.approx(-1 + toy.moved(toy.view, edits, "dog"))


# ---- a tiny model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    draw = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(96, 32, generator=draw), dim=1)
    sae = SAE(rows.T, torch.zeros(96), rows, torch.zeros(32), ActivationRule("topk", k=6))
    return Session(open_lvlm(tiny_lvlm_folder), sae.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def view(session: Session) -> View:
    pixels = np.random.default_rng(0).integers(0, 256, (44, 70, 3), dtype=np.uint8)
    return session.look(Image.fromarray(pixels))


def test_a_sweep_says_what_the_session_says(session: Session, view: View) -> None:
    plain = session.answer(view, max_new_tokens=10)
    word = min(plain.split(), key=plain.split().count)
    flips = []
    for neuron in [found.neuron for found in view.top(2)]:
        sweep = alpha_sweep(
            session, view, neuron, [-60, 60], word, patches=None, max_new_tokens=10, tolerance=9, batch=2
        )
        assert sweep.untouched.caption == plain and sweep.untouched.said and sweep.place.word.text == word
        first, last = sweep.place.word.first, sweep.place.word.last
        for point in sweep.points:
            edits = () if point.untouched else (Edit(neuron, point.alpha),)
            assert point.caption == session.answer(view, edits=edits, max_new_tokens=10)
            tokens = session.log_probs([(view, edits)], session.lvlm.default_prompt, plain)[0]
            assert point.log_prob == pytest.approx(float(tokens[first:last].sum()), abs=1e-3)
        for flip in sweep.flips:
            text = session.answer(view, edits=[Edit(neuron, flip.alpha)], max_new_tokens=10)
            assert text == flip.caption and (word not in text.split()) == flip.leaves
        flips += sweep.flips
    assert flips


def test_the_best_place_is_the_likeliest_of_all(session: Session, view: View) -> None:
    plain = session.answer(view, max_new_tokens=6)
    absent = next(word for word in ("dog", "cat", "tree", "fork") if word not in plain.split())
    place = best_place(session, view, absent, None, plain)
    found = []
    for count in range(len(plain.split()) + 1):
        text = " ".join([*plain.split()[:count], absent])
        found.append((float(session.log_probs([(view, ())], "Describe the image.", text)[0, -1]), text))
    assert place.answer == max(found)[1] and not place.said
