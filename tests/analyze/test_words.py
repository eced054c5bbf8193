"""Word maps: attention and gradient against loops, effect against edits one by one, and what a map says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.analyze.words import attended, attended_top, attributed, word_map, zeroed
from explorer.errors import EditError
from explorer.records import Edit
from explorer.sae import SAE, ActivationRule, load_sae
from explorer.session import Session, View
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.vlm import AnswerWord, open_lvlm
from explorer.world import draw
from explorer.world.concepts import INDEX

NEURONS, PATCHES = 96, 16
PROMPT, ANSWER = "Describe the image.", "a big cake with the fork beside a green bowl"


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    seeded = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(NEURONS, 32, generator=seeded), dim=1)
    sae = SAE(rows.T, torch.zeros(NEURONS), rows, torch.zeros(32), ActivationRule("topk", k=6))
    return Session(open_lvlm(tiny_lvlm_folder), sae.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def view(session: Session) -> View:
    pixels = np.random.default_rng(3).integers(0, 256, (44, 70, 3), dtype=np.uint8)
    return session.look(Image.fromarray(pixels))


@pytest.fixture(scope="module")
def words(session: Session) -> list[AnswerWord]:
    return session.lvlm.answer_words(ANSWER)


@pytest.fixture(scope="module")
def embedded() -> Session:
    """The model and SAE that ship, without a store."""
    return Session(open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE))


def dense(session: Session, view: View) -> np.ndarray:
    return session.sae.encode(view.hidden[1:]).numpy().astype(np.float64)


def firing(view: View) -> np.ndarray:
    return np.unique(view.codes.neurons.numpy())


# ---- the three measures -----------------------------------------------------------------------------


@pytest.mark.parametrize("neurons", [[5, 90, 2, 33], list(range(NEURONS)), [95]])
def test_attention_and_gradient_are_their_sums_over_patches(
    session: Session, view: View, neurons: list[int]
) -> None:
    dice = np.random.default_rng(0)
    weights, gradients = dice.random((3, PATCHES)), dice.normal(size=(3, PATCHES, 32))
    z, rows = dense(session, view), session.sae.W_dec.numpy()
    looked, slopes = np.zeros((3, len(neurons))), np.zeros((3, len(neurons)))
    for w in range(3):
        for place, neuron in enumerate(neurons):
            for t in range(PATCHES):
                looked[w, place] += weights[w, t] * z[t, neuron]
                slopes[w, place] += z[t, neuron] * (gradients[w, t] @ rows[neuron])
    chosen = np.array(neurons)
    got = attended(view.codes, torch.from_numpy(weights), chosen)
    assert got.dtype == np.float32 and np.allclose(got, looked, atol=1e-4)
    tensor = torch.from_numpy(gradients).float()
    got = attributed(view.codes, tensor, session.sae.W_dec, chosen)
    assert got.dtype == np.float32 and np.allclose(got, slopes, atol=1e-4)


def test_effect_is_the_fall_of_each_words_log_probability(
    session: Session, view: View, words: list[AnswerWord]
) -> None:
    neurons = firing(view)[:5]
    got = zeroed(session, view, PROMPT, ANSWER, words, neurons, batch=3)
    assert got.shape == (len(words), 5) and got.dtype == np.float32
    before = session.log_probs([(view, ())], PROMPT, ANSWER)[0]
    for place, neuron in enumerate(neurons):
        after = session.log_probs([(view, [Edit(int(neuron), 0.0, "set")])], PROMPT, ANSWER)[0]
        falls = [float((before - after)[word.first : word.last].sum()) for word in words]
        assert np.allclose(got[:, place], falls, atol=1e-4)
    assert np.abs(got).max() > 1e-3


def test_gradient_foretells_the_effect_of_a_small_step(
    session: Session, view: View, words: list[AnswerWord]
) -> None:
    neurons, step = firing(view)[:8], 1e-3
    slopes = session.word_gradients(view, PROMPT, ANSWER, words).gradients
    guessed = attributed(view.codes, slopes, session.sae.W_dec, neurons)
    before = session.log_probs([(view, ())], PROMPT, ANSWER)[0].double()
    for place, neuron in enumerate(neurons):
        less = session.log_probs([(view, [Edit(int(neuron), 1 - step, "scale")])], PROMPT, ANSWER)[0].double()
        falls = [float((before - less)[word.first : word.last].sum()) / step for word in words]
        assert np.allclose(guessed[:, place], falls, atol=0.02 * np.abs(guessed).max())


# ---- the map ----------------------------------------------------------------------------------------


def test_a_map_holds_the_three_measures_of_its_neurons(
    session: Session, view: View, words: list[AnswerWord]
) -> None:
    found = word_map(session, view, PROMPT, ANSWER, limit=12, batch=4)
    assert (found.prompt, found.answer, found.words) == (PROMPT, ANSWER, tuple(words))
    assert 1 <= len(found.neurons) <= 12 and found.firing == found.measured == len(firing(view))
    neurons = np.array(found.neurons)
    attention = session.word_attention(view, PROMPT, ANSWER, words)
    weights = attention / attention.sum(1, keepdim=True)
    slopes = session.word_gradients(view, PROMPT, ANSWER, words)
    assert np.allclose(found.attention, weights.numpy() @ dense(session, view)[:, neurons], atol=1e-4)
    assert np.array_equal(
        found.gradient, attributed(view.codes, slopes.gradients, session.sae.W_dec, neurons)
    )
    assert np.allclose(found.effect, zeroed(session, view, PROMPT, ANSWER, words, neurons), atol=1e-4)
    assert np.allclose(found.log_probs, slopes.log_probs) and not found.always_on.any()
    assert found.clusters.tolist() == sorted(found.clusters.tolist()) and len(found.agreement) == len(words)
    assert {gap.neuron for gap in found.gaps} <= set(range(len(neurons))) and len(found.gaps) == 12


def test_the_best_neuron_of_every_word_is_in_the_map(session: Session, view: View) -> None:
    everyone = word_map(session, view, PROMPT, ANSWER, neurons=firing(view).tolist())
    assert sorted(everyone.neurons) == firing(view).tolist()
    few = word_map(session, view, PROMPT, ANSWER, limit=40)
    for values in (everyone.attention, everyone.gradient, everyone.effect):
        assert {everyone.neurons[i] for i in np.abs(values).argmax(axis=1)} <= set(few.neurons)


def test_only_the_tried_neurons_are_measured(
    session: Session, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, own = [], session.log_probs
    monkeypatch.setattr(
        session,
        "log_probs",
        lambda asked, *args, **more: measured.append(len(asked)) or own(asked, *args, **more),
    )
    found = word_map(session, view, PROMPT, ANSWER, tried=9, limit=5, batch=4)
    assert found.measured == 9 and sum(measured) == 10 and len(found.neurons) == 5


def test_always_on_neurons_are_marked_and_own_words_and_answers_are_default(
    session: Session, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = firing(view)[1]
    monkeypatch.setattr(session, "store", SimpleNamespace(always_on=lambda share: [int(marked)]))
    neurons = firing(view)[:3].tolist()
    found = word_map(session, view, neurons=[*neurons, neurons[0]])
    assert sorted(found.neurons) == neurons
    assert [n for n, always in zip(found.neurons, found.always_on, strict=True) if always] == [marked]
    assert found.prompt == session.lvlm.default_prompt and found.answer == session.answer(view)
    assert [word.text for word in found.words] == found.answer.split()


def test_a_cancelled_map_is_of_what_was_measured(session: Session, view: View) -> None:
    cancel, heard = threading.Event(), []

    def progress(done: int, total: int) -> None:
        heard.append((done, total))
        if done >= 8:
            cancel.set()

    neurons = firing(view)[:30].tolist()
    found = word_map(
        session, view, PROMPT, ANSWER, neurons=neurons, batch=4, progress=progress, cancel=cancel
    )
    assert heard == [(4, 31), (8, 31)] and found.measured == 7 and sorted(found.neurons) == neurons[:7]


def test_attended_neurons_are_strongest_where_the_answer_looked(session: Session, view: View) -> None:
    words = session.lvlm.answer_words(ANSWER)
    attention = session.word_attention(view, PROMPT, ANSWER, words)
    weights = (attention / attention.sum(1, keepdim=True)).mean(0).numpy()
    expected = weights @ dense(session, view)
    got = attended_top(session, view, PROMPT, ANSWER, 7)
    assert [a.neuron for a in got] == np.argsort(-expected, kind="stable")[:7].tolist()
    assert np.allclose([a.value for a in got], np.sort(expected)[::-1][:7], rtol=1e-4)
    assert attended_top(session, view, k=3) == attended_top(session, view, None, session.answer(view), 3)


Call = Callable[[Session, View], object]


def refused() -> Iterator[tuple[Call, str]]:
    yield lambda s, v: word_map(s, v, PROMPT, ANSWER, []), r"no words to map in 'a big cake"
    yield lambda s, v: word_map(s, v, PROMPT, ""), "no words to map in ''"
    yield lambda s, v: attended_top(s, v, PROMPT, "."), r"no words to map in '\.'"
    other = AnswerWord("tree", 0, 4, 0, 1)
    yield lambda s, v: word_map(s, v, PROMPT, ANSWER, [other]), r"^'tree' is no word of the answer 'a big"
    yield lambda s, v: word_map(s, v, PROMPT, ANSWER, neurons=[NEURONS]), "no neuron 96: this SAE has 96"
    yield lambda s, v: word_map(s, v, PROMPT, ANSWER, neurons=[]), "name at least one neuron"
    yield lambda s, v: word_map(s, v, PROMPT, ANSWER, limit=0), "at most 0 shown"
    yield lambda s, v: word_map(s, v, PROMPT, ANSWER, tried=0), "0 tried"
    silent = lambda v: replace(v, codes=type(v.codes)(*(part[:0] for part in v.codes)))  # noqa: E731
    yield lambda s, v: word_map(s, silent(v), PROMPT, ANSWER), "^0 neurons, .*nothing to map"


@pytest.mark.parametrize(("call", "said"), list(refused()))
def test_maps_of_nothing_are_refused(session: Session, view: View, call: Call, said: str) -> None:
    with pytest.raises(EditError, match=said):
        call(session, view)


# ---- does it mean anything --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7])
def test_the_word_cake_rests_on_neurons_that_fire_on_the_cake(seed: int, embedded: Session) -> None:
    scene = draw(seed, "counterfactual")
    seen = embedded.look(scene.image)
    cake = (scene.patch_concepts(14, 14, 0.1) == INDEX["cake"]).ravel()
    answer = embedded.answer(seen)
    words = {word.text: word for word in embedded.lvlm.answer_words(answer)}
    found = word_map(embedded, seen, answer=answer, words=[words["dining"], words["cake"]], tried=16)
    looked = embedded.word_attention(seen, found.prompt, answer, found.words)
    on_cake = (looked[:, cake].sum(1) / looked.sum(1)).tolist()
    assert on_cake[1] > 4 * cake.mean() > on_cake[0]
    first, second, third = np.argsort(-found.effect[1])[:3]
    shares = [
        seen.map(found.neurons[n]).ravel()[cake].sum() / seen.map(found.neurons[n]).sum()
        for n in (first, second)
    ]
    assert max(shares) > 0.85 and min(shares) > 4 * cake.mean()
    assert found.effect[1, second] > 2 > 100 * abs(found.effect[1, third])
    # The model is sure of the cake, so the gradient sees next to nothing of what it rests on.
    assert np.exp(found.log_probs[1]) > 0.99 and np.abs(found.gradient[1]).max() < 0.1
    assert {gap.between for gap in found.gaps[:2]} <= {("attention", "gradient"), ("gradient", "effect")}
