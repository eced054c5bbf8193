"""Analyses of SAEs that scale each vector, or whose activations are signed: guesses are still the drops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from linear_session import COLS, NEURONS, ROWS, WIDTH, LinearSession, make_view
from PIL import Image
from torch import Tensor

from explorer.analyze.attribution import attribute
from explorer.analyze.words import word_map
from explorer.evals.hooked import Hooked
from explorer.records import Edit
from explorer.sae import SAE, ActivationRule, Scaling
from explorer.session import Session
from explorer.vlm import open_lvlm

SCALINGS = (Scaling("layer_norm", eps=0.1), Scaling("constant_norm"))
RULES = (
    ActivationRule("topk", k=3),
    ActivationRule("topk", k=6, signed=True),
    ActivationRule("abstopk", k=4),
)


def made(width: int, neurons: int, rule: ActivationRule, scaling: Scaling) -> SAE:
    draw = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(neurons, width, generator=draw), dim=1)
    biases = torch.randn(neurons, generator=draw) / 9, torch.randn(width, generator=draw) / 9
    return SAE(rows.T, biases[0], rows, biases[1], rule, scaling=scaling).eval().requires_grad_(False)


def factors(scaling: Scaling, h: Tensor) -> Tensor:
    """What one unit in the SAE's space is in each patch's, [T, 1]."""
    if scaling.kind == "layer_norm":
        return h.std(dim=1, keepdim=True)
    return h.norm(dim=1, keepdim=True) / h.shape[1] ** 0.5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_on_a_linear_word_the_guess_is_the_drop(scaling: Scaling, rule: ActivationRule) -> None:
    toy = LinearSession()
    toy.sae = made(WIDTH, NEURONS, rule, scaling)
    toy.view = make_view(toy.sae)
    z, h = toy.dense(), toy.view.hidden
    truth = z * ((toy.weights["cake"] * factors(scaling, h)) @ toy.sae.W_dec.T).numpy()
    assert (z < 0).any() == rule.negatives
    everywhere = np.ones((ROWS, COLS), dtype=bool)
    for patches in ("active", everywhere):
        found = attribute(toy, toy.view, "cake", measure=100, patches=patches)
        assert np.allclose(found.map, truth.sum(1).reshape(ROWS, COLS), atol=1e-5)
        assert {effect.neuron for effect in found.ranked} == set(np.flatnonzero(z.any(0)))
        for effect in found.ranked:
            assert effect.measured == pytest.approx(effect.estimate, abs=1e-5)
            assert effect.estimate == pytest.approx(truth[:, effect.neuron].sum(), abs=1e-5)


@pytest.fixture(scope="module")
def session_of(tiny_lvlm_folder: Path) -> Callable[[ActivationRule, Scaling], Session]:
    lvlm = open_lvlm(tiny_lvlm_folder)
    return lambda rule, scaling: Session(lvlm, made(32, 96, rule, scaling))


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (44, 70, 3), dtype=np.uint8))


@pytest.mark.parametrize("rule", [ActivationRule("topk", k=70, signed=True), RULES[2]])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_in_a_model(
    session_of: Callable[[ActivationRule, Scaling], Session], scaling: Scaling, rule: ActivationRule
) -> None:
    """Views list who fires, gradients foretell small steps, and a hook does what the session does."""
    session = session_of(rule, scaling)
    view, sae = session.look(picture()), session.sae
    prompt, answer = "Describe the image.", "a big cake"
    words = session.lvlm.answer_words(answer)
    z = sae.encode(view.patches).numpy()
    firing = np.flatnonzero((z > 0).any(0))
    assert (z < 0).any() and {one.neuron for one in view.top(999)} == set(firing)
    means = np.maximum(z, 0).mean(0)
    assert all(one.value == pytest.approx(means[one.neuron], rel=1e-5) for one in view.top(999))
    assert {one.neuron for one in view.top_at(1, 1, 999)} == set(
        np.flatnonzero(z[1 * view.grid.cols + 1] > 0)
    )
    assert np.allclose(view.map(int(firing[0])).ravel(), z[:, firing[0]], atol=1e-6)
    neurons, step = np.flatnonzero(z.any(0))[:4].tolist(), 1e-3
    found = word_map(session, view, prompt, answer, neurons=neurons)
    before = session.log_probs([(view, ())], prompt, answer)[0].double()
    for place, neuron in enumerate(found.neurons):
        less = session.log_probs([(view, [Edit(neuron, 1 - step, "scale")])], prompt, answer)[0].double()
        falls = [float((before - less)[word.first : word.last].sum()) / step for word in words]
        assert np.allclose(found.gradient[:, place], falls, atol=0.05 * np.abs(found.gradient).max())
    edits = [
        Edit(neurons[0], 3.0, "add"),
        Edit(neurons[1], 0.0, "set", "active"),
        Edit(neurons[2], -2.0, "scale"),
    ]
    hook = Hooked(session.lvlm, sae, session.block, 4)
    hooked = hook.changed(view.hidden[None], view.prepared, edits)[0]
    torch.testing.assert_close(hooked, session.steered(view, edits).hidden, atol=1e-4, rtol=1e-4)
    assert not torch.equal(hooked, view.hidden)


@pytest.mark.parametrize("scaling", (Scaling(), *SCALINGS))
def test_searches_by_patches_compare_them_as_the_sae_reads_them(
    session_of: Callable[[ActivationRule, Scaling], Session], scaling: Scaling
) -> None:
    session, asked = session_of(RULES[0], scaling), []
    view = session.look(picture())
    session.store = SimpleNamespace(
        by_patch=lambda vector, k: asked.append(vector), by_picture=lambda vector, k: asked.append(vector)
    )
    mask = np.zeros((view.grid.rows, view.grid.cols), dtype=bool)
    mask[1, :2] = True
    session.by_patches(view, mask)
    session.by_picture(view)
    read = scaling.apply(view.patches)[0].numpy()
    assert np.allclose(asked[0], read[mask.ravel()].mean(0), atol=1e-6)
    assert np.allclose(asked[1], read.mean(0), atol=1e-6)
    if scaling:
        assert not np.allclose(asked[1], view.patches.numpy().mean(0), atol=1e-2)
