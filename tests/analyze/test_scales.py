"""Where a tower sees the picture in tiles as well, guesses of what a neuron does count all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.analyze.attribution import Contributions
from explorer.analyze.words import word_map
from explorer.records import Box, Edit, Grid
from explorer.sae import SAE, ActivationRule
from explorer.session import Session, View
from explorer.session.scales import under
from tests.vlm.families.made import made

PROMPT, ANSWER = "What is it?", "the red cat"


@pytest.fixture(scope="module")
def session() -> Session:
    lvlm = made("llava_next/vicuna").lvlm
    width = lvlm.width(lvlm.read_block)
    draw = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(3 * width, width, generator=draw), dim=1)
    sae = SAE(rows.T.clone(), torch.zeros(3 * width), rows, torch.zeros(width), ActivationRule("topk", k=6))
    return Session(lvlm, sae.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def view(session: Session) -> View:
    dots = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return session.look(Image.fromarray(dots).resize((150, 70)))


def test_everywhere_holds_all_scales_in_a_row(session: Session, view: View) -> None:
    whole, scales = view.everywhere, view.prepared.scales
    sizes = [view.grid.rows * view.grid.cols, *(len(scale.places) for scale in scales)]
    assert len(sizes) > 1 and len(whole.patches) == len(whole.cells) == sum(sizes)
    assert torch.equal(whole.patches[: sizes[0]], view.patches)
    assert torch.equal(whole.patches[sizes[0] :][: sizes[1]], view.hidden[scales[0].places])
    alone = session.sae.encode_sparse(whole.patches)
    assert all(torch.equal(*pair) for pair in zip(whole.codes[:2], alone[:2], strict=True))
    torch.testing.assert_close(whole.codes.values, alone.values)


def test_a_guess_is_the_slope_of_what_an_edit_does_everywhere(session: Session, view: View) -> None:
    words = session.lvlm.answer_words(ANSWER)[-1:]
    slope = session.word_gradients(view, PROMPT, ANSWER, words)
    mask = np.ones((view.grid.rows, view.grid.cols), bool)
    guesses = Contributions.of(session, view, slope.gradients[0], mask).guesses("size")
    here = len(view.patches)
    for guess in guesses[:4]:
        ends = session.log_probs(
            [(view, [Edit(guess.neuron, factor, "scale")]) for factor in (0.98, 1.02)], PROMPT, ANSWER
        )[:, words[0].first : words[0].last].sum(1)
        assert float(ends[1] - ends[0]) / 0.04 == pytest.approx(guess.estimate, rel=0.05, abs=1e-3)
    some = guesses[0].neuron
    fired = view.codes.neurons == some
    rows = (slope.gradients[0, :here][view.codes.tokens[fired]] * session.sae.W_dec[some]).sum(1)
    alone = float((rows * view.codes.values[fired]).sum())
    assert alone != pytest.approx(guesses[0].estimate, rel=0.05), "tiles make no difference"


def test_a_map_of_words_knows_neurons_that_fire_in_tiles_only(session: Session, view: View) -> None:
    only = set(view.everywhere.codes.neurons.tolist()) - set(view.codes.neurons.tolist())
    assert only, "no neuron fires in tiles only, so nothing is shown"
    found = word_map(session, view, PROMPT, ANSWER, neurons=sorted(only))
    both = np.minimum(np.abs(found.gradient).max(0), np.abs(found.effect).max(0))
    assert both.max() > 1e-4


def test_what_lies_under_a_patch() -> None:
    grid, other = Grid(2, 3, 60, 40, Box(0, 0, 60, 40)), Grid(2, 2, 60, 40, Box(-10, 10, 50, 50))
    assert under(grid, other).tolist() == [3, 4, -1, -1]
    assert under(grid, grid).tolist() == [0, 1, 2, 3, 4, 5]
    rows, cols = 5, 4
    shifted = Grid(rows, cols, 60, 40, Box(-7, -3, 66, 47))
    boxes = [shifted.box_of(row, col) for row in range(rows) for col in range(cols)]
    cells = [grid.patch_at((b.left + b.right) / 2, (b.top + b.bottom) / 2) for b in boxes]
    assert under(grid, shifted).tolist() == [-1 if c is None else c.row * 3 + c.col for c in cells]
