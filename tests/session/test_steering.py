"""The session as a steering engine: noise, contrast, arms, measuring, and sliders moved at once."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import Edit, Session, View
from explorer.errors import EditError, StoreError
from explorer.session import Draw
from explorer.session.view import KEPT
from explorer.steer import Contrast, Decoding, RangeEdit, noisy_pixels
from explorer.vlm import open_lvlm
from tests.session.test_session import NEURONS, FakeStore, make_sae, picture


class KnowingStore(FakeStore):
    """A store that knows which neurons are always on."""

    always: tuple[int, ...] = (4, 7)

    def always_on(self, min_frequency: float) -> list[int]:
        return list(self.always) if min_frequency == 1.0 else [4, 7, 9]


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    return Session(open_lvlm(tiny_lvlm_folder), make_sae(), KnowingStore())


@pytest.fixture
def view(session: Session) -> View:
    return session.look(picture())


class Passes:
    """Counts the forward passes of the tower's first block and of the language model."""

    def __init__(self, session: Session) -> None:
        self.tower = self.text = self.pictures = 0
        self._blocks, self._text = session.lvlm.vision_blocks, session.lvlm.model.model.language_model

    def __enter__(self) -> Passes:
        def tower(_module: object, args: tuple, *_: object) -> None:
            self.tower += 1
            self.pictures += len(args[0])

        def text(*_: object) -> None:
            self.text += 1

        self._handles = [
            self._blocks[0].register_forward_pre_hook(tower),
            self._text.register_forward_pre_hook(text),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


# ---- noise and contrast -----------------------------------------------------------------------------


def test_looking_with_contrasts_takes_one_pass_of_the_tower_and_steering_none(session: Session) -> None:
    contrasts = [Contrast(), Contrast(strength=2.0), Contrast(step=300, seed=1)]
    with Passes(session) as passes:
        view = session.look(picture(), contrasts)
        assert (passes.tower, passes.pictures) == (1, 3)  # the picture, and two draws: strength draws nothing
        for contrast in contrasts:
            session.answer(view, contrast=contrast, max_new_tokens=4)
        assert passes.tower == 1
    plain = session.look(picture())
    assert torch.allclose(plain.hidden, view.hidden, atol=1e-5)
    with Passes(session) as passes:
        later = session.noisy_many(plain, [(500, 0), (300, 1), (500, 0)])
        assert (passes.tower, passes.pictures) == (1, 2)
    for draw, noisy in zip([Draw(500), Draw(300, 1), Draw(500)], later, strict=True):
        assert torch.allclose(noisy.hidden, view.noise.get(draw).hidden, atol=1e-4)


def test_noise_is_the_towers_view_of_the_noisy_pixels(session: Session, view: View) -> None:
    noisy = session.noisy(view, 700, 3)
    pixels = noisy_pixels(view.prepared.pixel_values, 700, 3)
    hidden = session.lvlm.tower(pixels, session.block)[0]
    assert torch.allclose(noisy.hidden, hidden, atol=1e-5)
    z = session.sae.encode(hidden[1:])
    tokens, neurons = noisy.codes.tokens, noisy.codes.neurons
    assert torch.allclose(noisy.codes.values, z[tokens, neurons], atol=1e-5)
    assert len(tokens) == int((z > 0).sum())
    for draws in range(KEPT + 4):
        session.noisy(view, draws)
    assert view.noise.get(Draw(700, 3)) is None and view.noise.get(Draw(KEPT + 3)) is not None
    with pytest.raises(EditError, match="999"):
        session.noisy(view, 1000)


def test_contrast_steers_by_equation_six(session: Session, view: View) -> None:
    noisy = session.noisy(view, 500)
    z, other = (session.sae.encode(hidden[1:]) for hidden in (view.hidden, noisy.hidden))
    change = z - other
    change[:, [4, 7]] = 0
    for strength in (1.0, -0.5):
        seen = session.steered(view, contrast=Contrast(strength=strength))
        expected = view.hidden[1:] + strength * change @ session.sae.W_dec
        assert torch.allclose(seen.hidden[1:], expected, atol=1e-4)
        assert torch.equal(seen.hidden[0], view.hidden[0])
        moved = (expected - view.hidden[1:]).norm() / view.hidden[1:].norm()
        assert seen.gauges.change == pytest.approx(float(moved), rel=1e-3)
        assert seen.gauges.error_kept == pytest.approx(1, abs=1e-4)
    replaced = session.steered(view, contrast=Contrast(), replace=True)
    assert torch.allclose(replaced.hidden[1:], session.sae.decode(z + change), atol=1e-4)
    assert replaced.gauges.error_kept == pytest.approx(0, abs=1e-4)
    assert session.steered(view, contrast=Contrast(strength=0.0)).hidden is view.hidden
    wide = session.steered(view, contrast=Contrast(min_frequency=0.9)).hidden
    change[:, 9] = 0
    assert torch.allclose(wide[1:], view.hidden[1:] + change @ session.sae.W_dec, atol=1e-4)


def test_a_contrast_needs_a_store_or_no_suppression(session: Session, view: View) -> None:
    bare = Session(session.lvlm, session.sae)
    with pytest.raises(StoreError, match="suppress_always_on=False"):
        bare.answer(view, contrast=Contrast())
    assert bare.answer(view, contrast=Contrast(suppress_always_on=False), max_new_tokens=3)


def test_arms_stand_side_by_side(session: Session, view: View) -> None:
    edits = [Edit(3, 60.0), Edit(9, -40.0, "add", "active")]
    arms = session.arms(view, edits=edits, contrast=Contrast(), max_new_tokens=8)
    assert arms.untouched.text == session.lvlm.answer_plain(view.image, session.lvlm.default_prompt, 8)
    assert arms.reconstruction.text == session.answer(view, replace=True, max_new_tokens=8)
    assert arms.steered.text == session.answer(view, edits=edits, contrast=Contrast(), max_new_tokens=8)
    assert len({arm.text for arm in arms}) == 3
    assert arms.untouched.gauges.change == 0 and arms.untouched.gauges.error_kept == 1
    assert arms.reconstruction.gauges.error_kept == pytest.approx(0, abs=1e-4)
    assert arms.reconstruction.gauges.change > 0 and arms.steered.gauges.change > 0


@pytest.mark.parametrize("method", ["vcd", "m3id", "icd", "pai", "vaf"])
def test_every_decoding_answers_alone_and_with_contrast(session: Session, view: View, method: str) -> None:
    plain = session.answer(view, max_new_tokens=12)
    decoding = Decoding(method, alpha=3.0)
    alone = session.answer(view, decoding=decoding, max_new_tokens=12)
    both = session.answer(view, decoding=decoding, contrast=Contrast(strength=4.0), max_new_tokens=12)
    assert alone and both and both != alone
    assert session.answer(view, decoding=decoding, max_new_tokens=12) == alone
    assert session.answer(view, max_new_tokens=12) == plain
    sampled = {
        seed: session.answer(view, decoding=Decoding(method, temperature=1.5, seed=seed), max_new_tokens=12)
        for seed in (0, 1, 2)
    }
    assert len(set(sampled.values())) > 1
    again = session.answer(view, decoding=Decoding(method, temperature=1.5, seed=1), max_new_tokens=12)
    assert again == sampled[1]


def test_what_is_no_intervention_is_refused_at_once(session: Session, view: View) -> None:
    for wrong in (
        {"decoding": "vcd"},
        {"contrast": 0.5},
        {"edits": [3]},
        {"contrast": Contrast, "edits": ()},
    ):
        with pytest.raises(EditError, match=r"use \w+\(...\)"):
            session.steps(view, **wrong)


# ---- measuring --------------------------------------------------------------------------------------


def test_log_probs_are_those_of_the_answer_under_each_edit(session: Session, view: View) -> None:
    asked = [(view, [Edit(neuron, 40.0)]) for neuron in range(5)] + [(view, [])]
    prompt, answer = session.lvlm.default_prompt, "a red dog and the cat"
    together = session.log_probs(asked, prompt, answer, batch=4)
    tokens = session.lvlm.answer_tokens(answer)
    assert together.shape == (6, len(tokens)) and bool((together < 0).all())
    for row, (seen, edits) in enumerate(asked):
        features = session.lvlm.features(session.steered(seen, edits).hidden, session.block)
        words = session.lvlm.next_words(features[None], prompt, answer)[0]
        expected = [float(words[place, token]) for place, token in enumerate(tokens)]
        assert together[row].tolist() == pytest.approx(expected, abs=1e-4)
    assert session.log_probs([], prompt, answer).shape == (0, len(tokens))


def test_gradients_and_attention_lie_over_the_patches(session: Session, view: View) -> None:
    prompt, answer = session.lvlm.default_prompt, "a red dog"
    words = session.lvlm.answer_words(answer)
    found = session.word_gradients(view, prompt, answer, words)
    assert found.gradients.shape == (3, 16, 32) and found.log_probs.shape == (3,)
    direction, step = torch.randn(16, 32, generator=torch.Generator().manual_seed(0)), 1e-2
    ends = []
    for sign in (1, -1):
        hidden = view.hidden.clone()
        hidden[1:] += sign * step * direction
        features = session.lvlm.features(hidden, session.block)
        rows = session.lvlm.next_words(features[None], prompt, answer)[0]
        ends.append([float(rows[w.first, session.lvlm.answer_tokens(answer)[w.first]]) for w in words])
    slopes = (np.array(ends[0]) - np.array(ends[1])) / (2 * step)
    assert (found.gradients * direction).sum((1, 2)).tolist() == pytest.approx(slopes, rel=0.05, abs=0.02)
    attention = session.word_attention(view, prompt, answer, words)
    assert attention.shape == (3, 16) and bool((attention >= 0).all()) and bool((attention.sum(1) < 1).all())
    weights = attention.mean(0).reshape(4, 4).numpy()
    top = view.top(5, "weighted", weights)
    z = session.sae.encode(view.hidden[1:]).numpy()
    pooled = (weights.ravel() / weights.sum()) @ z
    assert [a.neuron for a in top] == np.argsort(-pooled, kind="stable")[:5].tolist()


@pytest.mark.parametrize(
    "bad", [None, np.ones((2, 2)), np.zeros((4, 4)), -np.ones((4, 4)), np.full((4, 4), np.nan)]
)
def test_weights_that_are_none_are_refused(view: View, bad: np.ndarray | None) -> None:
    with pytest.raises(EditError, match=r"shape \(4, 4\)"):
        view.top(3, "weighted", bad)


# ---- visitors ---------------------------------------------------------------------------------------


def test_sixteen_visitors_at_once_get_what_each_would_get_alone(session: Session) -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True

    def moves(number: int) -> list[dict]:
        """The slider of one visitor on its way."""
        where = [None, "active", mask][number % 3]
        ways = [
            {"edits": [Edit(number, 15.0 * step, "set", where), Edit(number + 40, -20.0)]}
            for step in range(3)
        ]
        ways[1]["contrast"] = Contrast(step=400 + number)
        ways[2]["decoding"] = Decoding("vcd", temperature=float(number % 2), seed=number)
        ways.append({"edits": [RangeEdit(number, 0.0, 9.0, "scale", factor=-4.0)], "replace": True})
        return ways

    def visit(number: int, visitor: object) -> list[str]:
        view = session.look(picture(number % 5))
        return [session.answer(view, **way, max_new_tokens=8, visitor=visitor) for way in moves(number)]

    alone = [visit(number, None) for number in range(16)]
    assert len({text for texts in alone for text in texts}) > 16
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(visit, range(16), [f"visitor {n}" for n in range(16)]))
    assert together == alone
    assert not session._newest._events and not session._line.busy


def test_sixteen_visitors_may_share_one_picture(session: Session, view: View) -> None:
    asked = [[Edit(number, 50.0)] for number in range(16)]
    alone = [session.answer(session.look(picture()), edits=edits, max_new_tokens=8) for edits in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda edits: session.answer(view, edits=edits, max_new_tokens=8), asked))
    assert together == alone


def test_a_newer_move_ends_the_one_that_runs(session: Session, view: View) -> None:
    older = session.stream(view, max_new_tokens=150, visitor="ann")
    other = session.stream(view, max_new_tokens=6, visitor="bob")
    texts = [next(older), next(older)]
    assert next(other)
    newer = session.stream(view, edits=[Edit(1, 60.0)], max_new_tokens=6, visitor="ann")
    texts += older
    assert len(texts) == 2
    assert list(newer)[-1] == session.answer(view, edits=[Edit(1, 60.0)], max_new_tokens=6)
    assert list(other)[-1] == session.answer(view, max_new_tokens=6)


def test_a_newer_move_replaces_one_that_has_not_started(session: Session, view: View) -> None:
    results: list[tuple[str, str]] = []

    def move(name: str, value: float) -> None:
        results.append((name, session.answer(view, edits=[Edit(2, value)], max_new_tokens=5, visitor="ann")))

    with Passes(session) as passes, session.turn("holder"):
        threads = []
        for number, name in enumerate(("first", "second", "last")):
            threads.append(threading.Thread(target=move, args=(name, 30.0 * number)))
            threads[-1].start()
            for _ in range(500):
                if len(session._line._waiting) == 1 and (name == "first" or len(results) == number):
                    break
                threading.Event().wait(0.01)
        assert results == [("first", ""), ("second", "")] and passes.text == 0
    for thread in threads:
        thread.join(20)
    assert results[2] == ("last", session.answer(view, edits=[Edit(2, 60.0)], max_new_tokens=5))


def test_nobody_waits_for_a_long_answer_to_end(session: Session, view: View) -> None:
    long = session.stream(view, max_new_tokens=200, visitor="ann")
    next(long)
    assert session.answer(view, "the red dog", max_new_tokens=5, visitor="bob")
    assert next(long)
    long.close()


def test_a_cancelled_generation_frees_its_memory(session: Session) -> None:
    view = session.look(picture(8))
    kept = weakref.ref(view.memory)
    steps = session.steps(view, max_new_tokens=60)
    next(steps), next(steps)
    steps.close()
    before = view.memory.nbytes
    for seed in range(6):
        steps = session.steps(view, edits=[Edit(seed, 70.0)], max_new_tokens=60)
        next(steps)
        steps.close()
    assert view.memory.nbytes <= 2 * max(before, 1)
    del view, steps
    gc.collect()
    assert kept() is None


def test_an_unchanged_answer_costs_one_pass(session: Session, view: View) -> None:
    first = list(session.steps(view, max_new_tokens=20))
    again = list(session.steps(view, edits=[Edit(NEURONS - 1, 1e-6, "add")], max_new_tokens=20))
    assert again[-1].tokens == first[-1].tokens and first[-1].passes >= 20
    assert [step.passes for step in again] == [1]
