"""In every family a hook in the model's own `generate` says what a session says after the same edits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.errors import ModelError
from explorer.evals.hooked import Hooked, slide
from explorer.records import Edit
from explorer.sae import SAE, ActivationRule, Scaling
from explorer.session import Session, View
from explorer.vlm.adapter import Adapter
from tests.vlm.families.made import made, names

LONGEST = 6
PLAIN = (ActivationRule("topk", k=8), Scaling())
SIGNED = (ActivationRule("topk", k=8, signed=True), Scaling("layer_norm", eps=0.1))


@pytest.fixture(scope="module", params=names())
def lvlm(request: pytest.FixtureRequest) -> Adapter:
    return made(request.param).lvlm


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Large soft blots."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def session_at(lvlm: Adapter, block: int, rule: ActivationRule, scaling: Scaling) -> Session:
    """A session whose SAE, of random directions, reads a block."""
    width = lvlm.width(block)
    draw = torch.Generator().manual_seed(block)
    rows = torch.nn.functional.normalize(torch.randn(4 * width, width, generator=draw), dim=1)
    bias = torch.randn(width, generator=draw) / 9
    sae = SAE(rows.T.clone(), torch.zeros(4 * width), rows, bias, rule, scaling=scaling)
    sae.site_block = block
    return Session(lvlm, sae.eval().requires_grad_(False))


def moves(view: View, strength: float) -> list[list[Edit]]:
    """Nothing, everywhere, where it fires, in a corner, and all of them at once."""
    corner = np.zeros((view.grid.rows, view.grid.cols), dtype=bool)
    corner[: max(1, view.grid.rows // 2), : max(1, view.grid.cols // 2)] = True
    one, two, three = (found.neuron for found in view.top(3, "max"))
    parts = [
        [Edit(one, strength)],
        [Edit(two, -3.0, "scale", "active")],
        [Edit(three, strength, "add", corner), Edit(two, 1.5 * strength, "set", corner)],
    ]
    return [[], *parts, [edit for part in parts for edit in part]]


def test_the_hook_and_the_session_say_the_same(lvlm: Adapter) -> None:
    """At the first block, one in the middle and the last; pictures of three shapes; two kinds of SAE."""
    middle, last, changed = lvlm.read_block // 2, lvlm.read_block, 0
    cases = ((0, (96, 64), SIGNED), (middle, (150, 70), PLAIN), (last, (60, 130), SIGNED))
    for block, size, kind in cases:
        session = session_at(lvlm, block, *kind)
        hooked, view = Hooked(lvlm, session.sae, block, LONGEST), session.look(picture(block, size))
        ready = hooked.ready(view.image)
        scale = session.sae.scale(view.patches)
        strength = 40 * float(view.patches.std()) / (1 if scale is None else float(scale.factor.mean()))
        plain = lvlm.answer_plain(view.image, lvlm.default_prompt, LONGEST)
        for edits in moves(view, strength):
            theirs, ours = hooked.answer(ready, edits), slide(session, view, edits, LONGEST)
            assert theirs.tokens == ours.tokens, f"block {block}, {len(edits)} edits"
            assert len(theirs.times) == len(theirs.tokens) == theirs.passes == LONGEST
            assert list(theirs.times) == sorted(theirs.times) and theirs.times[-1] <= theirs.seconds
            text = hooked.text(theirs.tokens)
            assert edits or text == plain == session.answer(view, max_new_tokens=LONGEST)
            changed += text != plain
    assert changed >= 3, "hardly an edit changes the text, so this shows little"


def test_a_hook_that_is_not_called_is_told(lvlm: Adapter) -> None:
    """As when the block comes behind the one that the text depends on, or a model has a second tower."""
    session = session_at(lvlm, 0, *PLAIN)
    hooked = Hooked(lvlm, session.sae, 0, 2)
    ready = hooked.ready(picture(1, (96, 64)))
    with pytest.MonkeyPatch.context() as patched:
        idle = torch.nn.ModuleList([torch.nn.Identity()])
        patched.setattr(type(lvlm), "vision_blocks", property(lambda _: idle))
        with pytest.raises(ModelError, match="ran 0 times for an answer"):
            hooked.answer(ready, [])
