"""Gradients and attention of the words of an answer, over several families of language models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from explorer.errors import ModelError
from explorer.vlm.adapter import Question
from explorer.vlm.base import AnswerWord
from explorer.vlm.families.llava import Llava
from explorer.vlm.gradients import token_log_probs

FAMILIES = ["Llama", "Qwen2", "Mistral", "Gemma", "Gemma2", "Gemma3", "Phi3"]
PROMPT, ANSWER = "what is on the table?", "a red cat beside the big unknown-dog"


@pytest.fixture(scope="module", params=FAMILIES)
def lvlm(request: pytest.FixtureRequest, lvlm_of: Callable[..., Llava]) -> Llava:
    return lvlm_of(request.param)


@pytest.fixture(scope="module")
def llama(lvlm_of: Callable[..., Llava]) -> Llava:
    return lvlm_of("Llama")


def hidden_of(lvlm: Llava, block: int, seed: int = 0) -> torch.Tensor:
    """What the block puts out for a drawn picture: [17, 32]."""
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return lvlm.tower(pixels, block)[0]


def joined(lvlm: Llava) -> list[AnswerWord]:
    """The words of ANSWER, and for words of several tokens the first three and all of them together."""
    words = lvlm.answer_words(ANSWER)
    assert len(words) == len(lvlm.answer_tokens(ANSWER)) == 7
    return [*words, AnswerWord("a red cat", 0, 9, 0, 3), AnswerWord(ANSWER, 0, len(ANSWER), 0, 7)]


# ---- gradients -------------------------------------------------------------------------------------------


def test_log_probs_are_those_of_next_words(lvlm: Llava) -> None:
    for block in range(lvlm.read_block + 1):
        hidden, words = hidden_of(lvlm, block), joined(lvlm)
        found = lvlm.word_gradients(hidden, block, PROMPT, ANSWER, words)
        likely = lvlm.next_words(lvlm.features(hidden, block)[None], PROMPT, ANSWER)[0]
        tokens = [float(likely[place, token]) for place, token in enumerate(lvlm.answer_tokens(ANSWER))]
        expected = [sum(tokens[word.first : word.last]) for word in words]
        assert torch.allclose(found.log_probs, torch.tensor(expected), atol=1e-4)


def test_gradients_are_finite_differences(lvlm: Llava) -> None:
    # In float64 as far as the models let it be: their norms go through float32, so the step is not tiny.
    for block in range(lvlm.read_block + 1):
        hidden, words = hidden_of(lvlm, block), joined(lvlm)
        lvlm.model.double()
        try:
            found = lvlm.word_gradients(hidden, block, PROMPT, ANSWER, words)
            draw = torch.Generator().manual_seed(5)
            for _ in range(4):
                way = torch.randn(hidden.shape, generator=draw, dtype=torch.float64)
                step = 2e-3
                points = torch.stack([hidden + places * step * way for places in (1, -1, 2, -2)])
                with torch.no_grad():
                    script = lvlm._script(lvlm.features(points, block), PROMPT, ANSWER)
                    tokens = token_log_probs(lvlm._logits(script), script.said)
                near, far = tokens[0] - tokens[1], tokens[2] - tokens[3]
                slope = (8 * near - far) / (12 * step)
                slopes = torch.stack([slope[word.first : word.last].sum() for word in words])
                along = (found.gradients * way).sum((1, 2))
                assert float((along - slopes).abs().max()) < 3e-3 + 2e-3 * float(slopes.abs().max())
        finally:
            lvlm.model.float()


def test_what_cannot_matter_has_no_gradient(lvlm: Llava) -> None:
    words = lvlm.answer_words(ANSWER)
    last = lvlm.word_gradients(hidden_of(lvlm, lvlm.read_block), lvlm.read_block, PROMPT, ANSWER, words)
    assert (last.gradients[:, 0] == 0).all(), "the CLS token is dropped before the projector"
    assert (last.gradients[:, 1:].abs().sum((1, 2)) > 0).all()
    earlier = lvlm.word_gradients(hidden_of(lvlm, 0), 0, PROMPT, ANSWER, words)
    assert (earlier.gradients[:, 0].abs().sum(1) > 0).all(), "later blocks mix it into the patches"


def test_words_after_a_word_do_not_change_its_gradient(lvlm: Llava) -> None:
    block = lvlm.read_block
    hidden, words = hidden_of(lvlm, block), lvlm.answer_words(ANSWER)[:3]
    long = lvlm.word_gradients(hidden, block, PROMPT, ANSWER, words)
    short = lvlm.word_gradients(hidden, block, PROMPT, "a red cat", words)
    assert torch.allclose(long.log_probs, short.log_probs, atol=1e-4)
    assert torch.allclose(long.gradients, short.gradients, atol=1e-4)


def test_words_add_up_and_order_does_not_matter(llama: Llava) -> None:
    hidden, words = hidden_of(llama, 1), joined(llama)
    found = llama.word_gradients(hidden, 1, PROMPT, ANSWER, words)
    assert torch.allclose(found.gradients[:3].sum(0), found.gradients[7], atol=1e-4)
    assert torch.allclose(found.gradients[:7].sum(0), found.gradients[8], atol=1e-4)
    backwards = llama.word_gradients(hidden, 1, PROMPT, ANSWER, words[::-1])
    assert torch.allclose(backwards.gradients, found.gradients.flip(0), atol=1e-6)


def test_kind_of_result_and_what_is_left_of_it(llama: Llava) -> None:
    hidden, words = hidden_of(llama, 1), llama.answer_words(ANSWER)
    before = hidden.clone()
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            found = llama.word_gradients(hidden, 1, PROMPT, ANSWER, words)
        assert found.log_probs.shape == (7,) and found.gradients.shape == (7, 17, 32)
        for part in found:
            assert part.dtype == torch.float32 and part.device.type == "cpu"
            assert not part.requires_grad and part.grad_fn is None
    assert torch.equal(hidden, before) and not hidden.requires_grad and hidden.grad is None
    assert all(not p.requires_grad and p.grad is None for p in llama.model.parameters())
    assert not llama.features(hidden.clone().requires_grad_(True), 1).requires_grad
    with torch.inference_mode():
        strange = hidden.clone()
    again = llama.word_gradients(strange, 1, PROMPT, ANSWER, words)
    assert torch.equal(again.gradients, found.gradients)


def test_no_words_have_no_gradients(llama: Llava) -> None:
    hidden = hidden_of(llama, 2)
    for answer in (ANSWER, ""):
        found = llama.word_gradients(hidden, 2, PROMPT, answer, [])
        assert found.log_probs.shape == (0,) and found.gradients.shape == (0, 17, 32)


def test_scores_in_half_precision_are_summed_in_float32() -> None:
    scores = (8 * torch.randn(2, 5, 50, generator=torch.Generator().manual_seed(1))).bfloat16()
    said = torch.tensor([3, 0, 49, 7])
    found = token_log_probs(scores, said)
    assert found.dtype == torch.float32 and torch.equal(found, token_log_probs(scores.float(), said))
    assert token_log_probs(scores.double(), said).dtype == torch.float64


def test_half_precision_models_give_float32(lvlm_of: Callable[..., Llava]) -> None:
    llama = lvlm_of("Llama")
    hidden, words = hidden_of(llama, 1), llama.answer_words(ANSWER)
    exact = llama.word_gradients(hidden, 1, PROMPT, ANSWER, words)
    llama.model.bfloat16()
    try:
        found = llama.word_gradients(hidden, 1, PROMPT, ANSWER, words)
        looked = llama.word_attention(llama.features(hidden, 1), PROMPT, ANSWER, words)
    finally:
        llama.model.float()
    assert found.log_probs.dtype == found.gradients.dtype == looked.dtype == torch.float32
    likeness = torch.cosine_similarity(found.gradients.flatten(1), exact.gradients.flatten(1))
    assert (likeness > 0.9).all()


def test_bad_questions_are_refused(llama: Llava) -> None:
    hidden, words = hidden_of(llama, 2), llama.answer_words(ANSWER)
    features = llama.features(hidden, 2)
    for bad in (
        AnswerWord("tree", 0, 4, 6, 8),
        AnswerWord("tree", 0, 4, 3, 3),
        AnswerWord("tree", 0, 4, -1, 1),
    ):
        with pytest.raises(ModelError, match=f"'tree' has tokens {bad.first} to {bad.last}, but .* has 7"):
            llama.word_gradients(hidden, 2, PROMPT, ANSWER, [words[0], bad])
        with pytest.raises(ModelError, match="'tree' has tokens"):
            llama.word_attention(features, PROMPT, ANSWER, [words[0], bad])
    with pytest.raises(ModelError, match="cannot matter"):
        llama.word_gradients(hidden, 3, PROMPT, ANSWER, words)
    with pytest.raises(ModelError, match="prompt may not contain"):
        llama.word_gradients(hidden, 2, "<image>", ANSWER, words)
    for answer in ("<image>", "the <image> cat"):
        with pytest.raises(ModelError, match="answer may not contain"):
            llama.next_words(features[None], PROMPT, answer)
    with pytest.raises(ModelError, match="the prompt is too long"):
        llama.word_attention(features, PROMPT, "cat " * 300, words)


# ---- attention -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_of_words_is_that_of_the_rows_before_them(
    family: str, lvlm_of: Callable[..., Llava]
) -> None:
    lvlm, eager = lvlm_of(family, layers=3), lvlm_of(family, "eager", layers=3)
    features, words = lvlm.features(hidden_of(lvlm, 2), 2), joined(lvlm)
    script = eager._script(features[None], PROMPT, ANSWER)
    with torch.no_grad():
        output = eager.model(inputs_embeds=script.rows, output_attentions=True)
    full = torch.stack(output.attentions)[:, 0].mean(dim=1)  # layers, rows, columns
    ids = lvlm._ids(Question(PROMPT), 16, 1, None)
    columns, prompt = (ids == 4).nonzero()[:, 0], len(ids)
    assert torch.equal(script.rows[0, columns], features)
    for layers in (None, (0, 1), (1, 3), (2, 3)):
        here = full if layers is None else full[layers[0] : layers[1]]
        found = lvlm.word_attention(features, PROMPT, ANSWER, words, layers)
        assert found.shape == (9, 16) and found.dtype == torch.float32
        for word, row in zip(words, found, strict=True):
            rows = here[:, prompt - 1 + word.first : prompt - 1 + word.last]
            assert torch.allclose(row, rows.mean(dim=(0, 1))[columns], atol=1e-5)
    assert (found.sum(dim=1) < 1).all() and (found >= 0).all()


def test_watching_stops_after_the_last_layer_and_leaves_nothing(llama: Llava) -> None:
    features, words = llama.features(hidden_of(llama, 2), 2), llama.answer_words(ANSWER)
    ran: list[str] = []
    parts = {"layer 1": llama.model.model.language_model.layers[1], "head": llama.model.lm_head}
    handles = [
        part.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, part in parts.items()
    ]
    before = llama.next_words(features[None], PROMPT, ANSWER)
    ran.clear()
    try:
        llama.word_attention(features, PROMPT, ANSWER, words, (0, 1))
    finally:
        for handle in handles:
            handle.remove()
    assert ran == []
    assert torch.equal(llama.next_words(features[None], PROMPT, ANSWER), before)
    assert llama.model.config._attn_implementation == "sdpa"
    assert all(not module._forward_hooks for module in llama.model.model.language_model.layers)
    assert llama.word_attention(features, PROMPT, ANSWER, []).shape == (0, 16)


def test_attention_to_layers_that_are_none_is_refused(llama: Llava) -> None:
    features, words = llama.features(hidden_of(llama, 2), 2), llama.answer_words(ANSWER)
    for layers in ((1, 3), (2, 4), (1, 1)):
        with pytest.raises(ModelError, match="the language model has 2"):
            llama.word_attention(features, PROMPT, ANSWER, words, layers)
