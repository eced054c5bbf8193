"""Answers under changed attention: whatever way they are decoded, those of one whole pass for each token."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from explorer.errors import ModelError
from explorer.vlm.attention import changed_attention
from explorer.vlm.base import Asked, AttentionEdit
from explorer.vlm.families.llava import Llava
from explorer.vlm.memory import Memory

FAMILIES = ["Llama", "Qwen2", "Mistral", "Gemma", "Gemma2", "Gemma3", "Phi3"]
PROMPT = "what is on the table?"
EDITS = [
    None,
    AttentionEdit((1, 3), "answer", image_gain=0.8),
    AttentionEdit((0, 2), "text", image_factor=1.6, system_factor=0.3),
    AttentionEdit((0, 3), "text", image_gain=-0.6),
]


@pytest.fixture(scope="module", params=FAMILIES)
def lvlm(request: pytest.FixtureRequest, lvlm_of: Callable[..., Llava]) -> Llava:
    return lvlm_of(request.param, layers=3)


def features_of(lvlm: Llava, seed: int) -> torch.Tensor:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return lvlm.features(lvlm.tower(pixels, 2)[0], 2)


def slowly(lvlm: Llava, features: torch.Tensor, edit: AttentionEdit | None, most: int) -> tuple[int, ...]:
    """The greedy answer, everything read again for each of its tokens."""
    prompt = lvlm._branch(Asked(PROMPT, features), most)
    text_model, embed = lvlm.model.model.language_model, lvlm.model.get_input_embeddings()
    said: list[int] = []
    while len(said) < most and said[-1:] != [2]:
        rows = torch.cat([prompt.rows(), embed(torch.tensor(said, dtype=torch.int64))])[None]
        with torch.no_grad(), changed_attention(text_model, edit, prompt.image, len(prompt.ids) - 1):
            logits = lvlm.model(inputs_embeds=rows, use_cache=False).logits
        said.append(int(logits[0, -1].argmax()))
    return tuple(said)


def test_answers_under_edits_are_those_of_whole_passes(lvlm: Llava) -> None:
    memory, answers = Memory(), set()
    for seed in (0, 1):
        features = features_of(lvlm, seed)
        expected = [slowly(lvlm, features, edit, 8) for edit in EDITS]
        for number in (0, 1, 2, 3, 2, 1, 0):
            asked = [Asked(PROMPT, features, attention=EDITS[number])]
            *_, last = lvlm.decode(asked, 8, memory=memory)
            assert last.tokens == expected[number]
        *_, last = lvlm.decode([Asked(PROMPT, features, attention=EDITS[3])], 8)
        assert last.tokens == expected[3]
        answers.update(expected)
    assert len(answers) >= 3, "the edits change too little for this test to show anything"


def test_nothing_is_left_behind_while_and_after_answering(lvlm: Llava) -> None:
    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in lvlm.model.modules())

    before, features = hooks(), features_of(lvlm, 0)
    steps = lvlm.decode([Asked(PROMPT, features, attention=EDITS[1])], 12)
    next(steps)
    assert hooks() == before, "others may use the model between two steps"
    steps.close()
    assert hooks() == before
    with pytest.raises(ModelError, match="the language model has 3"):
        list(lvlm.decode([Asked(PROMPT, features, attention=AttentionEdit((2, 32)))], 12))
    with pytest.raises(ModelError, match="needs a picture"):
        list(lvlm.decode([Asked(PROMPT, None, attention=EDITS[1])], 12))
    assert hooks() == before
