"""LLaVA through the seam: features, prompts, and answers that grow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.errors import ModelError
from explorer.vlm import Asked, open_lvlm
from explorer.vlm.base import word_of
from explorer.vlm.families.llava import Llava
from explorer.vlm.hooks import capture
from tests.vlm.asking import ids_and_mask

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def lvlm(tiny_lvlm_folder: Path) -> Llava:
    return open_lvlm(tiny_lvlm_folder)


def picture(seed: int, size: tuple[int, int] = (50, 38)) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def features(lvlm: Llava, image: Image.Image, block: int | None = None) -> torch.Tensor:
    block = lvlm.read_block if block is None else block
    return lvlm.features(lvlm.tower(lvlm.preprocess(image).pixel_values, block)[0], block)


def test_ready_made_features_give_the_plain_answer(lvlm: Llava) -> None:
    answers = set()
    for seed in range(6):
        image = picture(seed, (40 + 9 * seed, 50))
        plain = lvlm.answer_plain(image, PROMPT, 16)
        for block in range(lvlm.read_block + 1):
            assert lvlm.generate(features(lvlm, image, block), PROMPT, 16) == plain
        answers.add(plain)
    assert len(answers) >= 4, "the tiny model does not look at its picture, so this test shows nothing"


def test_no_tower_pass_while_generating(lvlm: Llava) -> None:
    ready = features(lvlm, picture(0))
    with capture(lvlm.vision_blocks[0]) as seen:
        lvlm.generate(ready, PROMPT, 4)
    assert seen.output is None


def test_prompt_ids_are_those_of_the_processor(lvlm: Llava) -> None:
    for prompt in (PROMPT, "", "is the cat\nred </s> or green"):
        text = lvlm.prompt_text(prompt)
        theirs = lvlm.processor(images=[picture(0)], text=[text], return_tensors="pt")
        ours = ids_and_mask(lvlm, prompt, 16, 8)
        assert torch.equal(ours["input_ids"], theirs["input_ids"])
        assert torch.equal(ours["attention_mask"], theirs["attention_mask"])


def test_without_a_chat_template_the_llava_form_is_used(
    lvlm: Llava, tiny_lvlm_maker: Callable[..., Path], tmp_path: Path
) -> None:
    bare = open_lvlm(tiny_lvlm_maker(tmp_path / "bare", chat=None))
    assert bare.prompt_text("What?") == "USER: <image>\nWhat? ASSISTANT:" == lvlm.prompt_text("What?")
    assert bare.generate(features(bare, picture(1)), PROMPT, 8) == lvlm.answer_plain(picture(1), PROMPT, 8)


def test_prompts_that_cannot_be_taken(lvlm: Llava) -> None:
    ready = features(lvlm, picture(0))
    with pytest.raises(ModelError, match="may not contain '<image>'"):
        lvlm.generate(ready, "look: <image>")
    with pytest.raises(ModelError, match="too long"):
        lvlm.generate(ready, "red " * 300)
    with pytest.raises(ModelError, match="too long"):
        lvlm.generate(ready, PROMPT, 100_000)
    with pytest.raises(ModelError, match="1 or more"):
        lvlm.generate(ready, PROMPT, 0)


@pytest.mark.parametrize("call", ["width", "tower", "features"])
@pytest.mark.parametrize(("block", "words"), [(3, "cannot matter"), (4, "no block 4"), (-1, "no block -1")])
def test_blocks_that_cannot_matter_are_refused(lvlm: Llava, call: str, block: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        match call:
            case "width":
                lvlm.width(block)
            case "tower":
                lvlm.tower(torch.zeros(1, 3, 32, 32), block)
            case "features":
                lvlm.features(torch.zeros(17, 32), block)


def test_batches_go_through_tower_and_features(lvlm: Llava) -> None:
    pixels = torch.cat([lvlm.preprocess(picture(seed)).pixel_values for seed in (1, 2, 3)])
    hidden = lvlm.tower(pixels, 1)
    together = lvlm.features(hidden, 1)
    assert hidden.shape == (3, 17, 32) and together.shape == (3, 16, 32)
    for alone, seed in zip(together, (1, 2, 3), strict=True):
        assert torch.allclose(alone, features(lvlm, picture(seed), 1), atol=1e-5)


def test_answers_in_one_batch_are_those_one_by_one(lvlm: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = torch.stack([features(lvlm, picture(seed)) for seed in range(5)])
    for prompt in (PROMPT, "what is the dog"):
        alone = [lvlm.generate(one, prompt, 12) for one in ready]
        assert lvlm.generate_many(ready, prompt, 12) == alone and len(set(alone)) > 2
        assert lvlm.generate_many(ready[:1], prompt, 12) == alone[:1]
    word = alone[0].split()[3]
    end = lvlm.processor.tokenizer.convert_tokens_to_ids(word)
    monkeypatch.setattr(lvlm.model.generation_config, "eos_token_id", end)
    short = [lvlm.generate(one, prompt, 12) for one in ready]
    assert len({len(text.split()) for text in short}) > 1, "all end together, so this shows nothing"
    assert lvlm.generate_many(ready, prompt, 12) == short
    with pytest.raises(ModelError, match="may not contain '<image>'"):
        lvlm.generate_many(ready, "look: <image>")


def test_steps_grow_to_the_answer(lvlm: Llava) -> None:
    ready = features(lvlm, picture(3))
    texts = [step.text for step in lvlm.decode([Asked(PROMPT, ready)], 12)]
    assert texts[-1] == lvlm.generate(ready, PROMPT, 12)
    assert len(texts) >= 8
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_closing_ends_the_generation_and_it_needs_no_thread(lvlm: Llava) -> None:
    ready, threads, passes = features(lvlm, picture(3)), threading.active_count(), []
    handle = lvlm.model.lm_head.register_forward_hook(lambda *_: passes.append(1))
    steps = lvlm.decode([Asked(PROMPT, ready)], 150)
    assert not passes
    next(steps)
    assert threading.active_count() == threads
    steps.close()
    handle.remove()
    assert list(steps) == [] and len(passes) == 1


def test_errors_are_raised_before_the_first_step(lvlm: Llava) -> None:
    with pytest.raises(ModelError, match="may not contain"):
        lvlm.decode([Asked("<image>", features(lvlm, picture(0)))])


def test_next_words_are_those_that_the_answer_was_chosen_by(lvlm: Llava) -> None:
    ready = torch.stack([features(lvlm, picture(seed)) for seed in (3, 4)])
    tokenizer = lvlm.processor.tokenizer
    for row, one in enumerate(ready):
        answer = lvlm.generate(one, PROMPT, 8)
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        likely = lvlm.next_words(ready, PROMPT, answer)
        assert likely.shape == (2, len(ids) + 1, len(lvlm.words())) and likely.dtype == torch.float32
        assert torch.allclose(likely.exp().sum(-1), torch.ones(2, len(ids) + 1), atol=1e-4)
        assert likely[row, : len(ids)].argmax(-1).tolist() == ids
        assert torch.allclose(likely[row], lvlm.next_words(one[None], PROMPT, answer)[0], atol=1e-4)
    assert lvlm.next_words(ready, PROMPT, "").shape[1] == 1
    with pytest.raises(ModelError, match="may not contain '<image>'"):
        lvlm.next_words(ready, "look: <image>", "a cat")


def test_words_are_the_vocabulary_without_special_tokens(lvlm: Llava) -> None:
    words, tokenizer = lvlm.words(), lvlm.processor.tokenizer
    assert len(words) == lvlm.model.lm_head.out_features
    for place, word in enumerate(words):
        assert not word or tokenizer.decode([place]).strip() == word
    assert {words[place] for place in tokenizer.all_special_ids} == {""}
    assert "cat" in words and all(word.isalpha() for word in words if word)


def test_unembedding_is_the_last_step_of_the_language_model(tiny_lvlm_folder: Path) -> None:
    lvlm = open_lvlm(tiny_lvlm_folder)
    norm = lvlm.model.model.language_model.norm
    norm.weight.copy_(torch.linspace(0.5, 2, len(norm.weight)))
    states: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, args: states.append(args[0]))
    logits = lvlm.model(input_ids=torch.tensor([[1, 8, 9]])).logits[0]
    lengths = states[0][0].square().mean(-1, keepdim=True).sqrt()
    found = lvlm.unembed(states[0][0] / lengths)
    assert found.shape == logits.shape and found.dtype == torch.float32
    assert torch.allclose(found, logits, atol=1e-3)
    one, other = states[0][0, :1], states[0][0, 1:2]
    apart = lvlm.unembed(one) - lvlm.unembed(other)
    assert torch.allclose(lvlm.unembed(one - other), apart, atol=1e-3)


def test_the_size_of_the_language_model_leaves_the_tower_out(lvlm: Llava) -> None:
    model, rest = lvlm.model, (lvlm.model.get_encoder(modality="image"), lvlm.projector)
    others = sum(weights.numel() for module in rest for weights in module.parameters())
    assert lvlm.text_size == sum(weights.numel() for weights in model.parameters()) - others > 10_000


@pytest.mark.parametrize(
    ("piece", "marked", "word"),
    [
        ("\u2581cake", True, "cake"),
        ("\u0120Cake", True, "Cake"),
        ("cake", True, ""),
        ("cake", False, "cake"),
        ("##ing", False, ""),
        ("\u2581a", True, ""),
        ("\u2581don't", True, ""),
        ("\u2581\u2581", True, ""),
        ("12", False, ""),
        ("", True, ""),
        ("", False, ""),
        ("\u2581été", True, "été"),
    ],
)
def test_pieces_that_begin_a_word(piece: str, marked: bool, word: str) -> None:
    assert word_of(piece, marked) == word
