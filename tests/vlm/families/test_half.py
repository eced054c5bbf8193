"""Every family in bfloat16 and float16 on the CPU: looked at, edited, contrasted, answered, attributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from explorer.errors import ModelError
from explorer.records import Edit
from explorer.sae import SAE, ActivationRule
from explorer.session import Session
from explorer.steer import Contrast, Decoding
from explorer.vlm.adapter import Adapter
from tests.vlm.families.made import made, names
from tests.vlm.families.test_contract import PROMPT, picture

ANSWER = "the red cat"
TOO_LARGE = {("qwen/qwen3", torch.float16)}
"""Its special tokens have rows of zeros, behind whose norms gradients grow a thousandfold a layer."""


@contextmanager
def halved(lvlm: Adapter, dtype: torch.dtype) -> Iterator[Adapter]:
    """The model in half precision; its weights are as they were behind it."""
    before = {name: value.clone() for name, value in lvlm.model.state_dict().items()}
    lvlm.model.to(dtype)
    try:
        yield lvlm
    finally:
        lvlm.model.float()
        lvlm.model.load_state_dict(before)


def session_of(lvlm: Adapter) -> Session:
    width, draw = lvlm.width(lvlm.read_block), torch.Generator().manual_seed(4)
    rows = torch.nn.functional.normalize(torch.randn(4 * width, width, generator=draw), dim=1)
    sae = SAE(rows.T.clone(), torch.zeros(4 * width), rows, torch.zeros(width), ActivationRule("topk", k=8))
    return Session(lvlm, sae.eval().requires_grad_(False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", names())
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    with halved(made(name).lvlm, dtype) as lvlm:
        session, image = session_of(lvlm), picture(1, (150, 70))
        view = session.look(image)
        assert torch.isfinite(view.hidden).all() and lvlm.model.dtype == dtype
        plain = session.answer(view, PROMPT, max_new_tokens=8)
        assert plain == lvlm.answer_plain(image, PROMPT, 8) != ""
        strong = [Edit(view.top(1)[0].neuron, 60.0 * float(view.hidden.float().std()))]
        assert session.answer(view, PROMPT, strong, max_new_tokens=8) != plain
        calm = Contrast(step=500, seed=1, suppress_always_on=False)
        assert session.answer(view, PROMPT, contrast=calm, max_new_tokens=4)
        assert session.answer(view, PROMPT, strong, decoding=Decoding("vcd"), max_new_tokens=4)
        words = lvlm.answer_words(ANSWER)
        ready = lvlm.features(view.hidden, lvlm.read_block, view.prepared)
        assert torch.isfinite(lvlm.next_words(ready[None], PROMPT, ANSWER, view.prepared)).all()
        if "attention" not in made(name).refuses:
            looked = lvlm.word_attention(ready, PROMPT, ANSWER, words, None, view.prepared)
            assert torch.isfinite(looked).all() and float(looked.min()) >= 0
        asked = (view.hidden, lvlm.read_block, PROMPT, ANSWER, words, view.prepared)
        if (name, dtype) in TOO_LARGE:
            with pytest.raises(ModelError, match="not finite in float16; open the model with --dtype bfloat"):
                lvlm.word_gradients(*asked)
            return
        found = lvlm.word_gradients(*asked).gradients
    exact = made(name).lvlm.word_gradients(*asked).gradients
    assert torch.isfinite(found).all() and float(found.abs().max()) > 0
    likeness = torch.cosine_similarity(found.flatten(1), exact.flatten(1))
    assert bool((likeness > 0.5).all()), likeness
