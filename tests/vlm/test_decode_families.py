"""Answers from drafts and memory are those of `model.generate`, for many families of language models."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import transformers
from transformers import LlavaConfig, LlavaForConditionalGeneration

from explorer.vlm import open_lvlm
from explorer.vlm.base import Asked
from explorer.vlm.cache import can_be_cropped
from explorer.vlm.families.llava import Llava
from explorer.vlm.memory import Memory

SIZES = {
    "vocab_size": 29,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 30,
}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2 with windows": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    ),
    "mistral, window shorter than the picture": ("MistralConfig", {"sliding_window": 7}),
    "mistral, window about the prompt": ("MistralConfig", {"sliding_window": 24}),
    "gemma2": ("Gemma2Config", {"sliding_window": 6, "attn_implementation": "eager"}),
    "gemma3": ("Gemma3TextConfig", {"sliding_window": 6}),
    "phi3": ("Phi3Config", {}),
    "gpt neox": ("GPTNeoXConfig", {}),
    "xglm, places by sines": ("XGLMConfig", {"ffn_dim": 48, "scale_embedding": False}),
    "rotary embeddings that depend on the length": ("Phi3Config", {"rope_parameters": LONG}),
    "convolutions that cannot go back": ("Lfm2Config", {"layer_types": ["conv", "full_attention"] * 2}),
}
CANNOT_GO_BACK = {"rotary embeddings that depend on the length", "convolutions that cannot go back"}
PROMPTS = (
    "Describe the image.",
    "is the cat red",
    "is the cat green or the big tree beside the table red",
)


def make(family: str, tiny: Llava) -> Llava:
    """A LLaVA of random weights with this language model; its processor is that of a tiny one."""
    name, more = FAMILIES[family]
    torch.manual_seed(5)
    text = getattr(transformers, name)(**{**SIZES, **more})
    config = LlavaConfig(vision_config=tiny.model.config.vision_config, text_config=text, image_token_id=4)
    model = LlavaForConditionalGeneration(config)
    if "attn_implementation" in more:
        model.set_attn_implementation(more["attn_implementation"])
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0.0, 0.35)
    lvlm = Llava(model, tiny.processor, family)
    model.generation_config.eos_token_id = None
    answers = [by_decode(lvlm, asked, 14, None) for _, asked, limit in drag(1, 10) if limit == 14]
    late = [
        token for answer in answers for token in answer if answer.index(token) in (5, 6, 7, 9, 10, 11, 12)
    ]
    model.generation_config.eos_token_id = [
        late[0],
        late[len(late) // 2],
    ]  # so some answers end by themselves
    return lvlm


@pytest.fixture(scope="module")
def tiny(tiny_lvlm_folder: Path) -> Llava:
    return open_lvlm(tiny_lvlm_folder)


@pytest.fixture(scope="module", params=FAMILIES)
def lvlm(request: pytest.FixtureRequest, tiny: Llava) -> Llava:
    return make(request.param, tiny)


def by_generate(lvlm: Llava, asked: Asked, limit: int) -> list[int]:
    """The tokens that `model.generate` answers."""
    ids = torch.tensor([lvlm._branch(asked, 1).ids])
    inputs: dict = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if asked.features is not None:
        ready = transformers.modeling_outputs.BaseModelOutputWithPooling(pooler_output=[asked.features])
        inputs["mm_encoder_outputs"] = {"image": ready}
    output = lvlm.model.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=0)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def by_decode(lvlm: Llava, asked: Asked, limit: int, memory: Memory | None) -> list[int]:
    """The tokens of the last step."""
    return list(list(lvlm.decode([asked], limit, None, memory))[-1].tokens)


def drag(seed: int, moves: int) -> list[tuple[int, Asked, int]]:
    """Moves of a visitor with two pictures: which one, what is asked, and the longest answer allowed."""
    rng, made = random.Random(seed), []
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.randn(16, 32, generator=generator) for _ in range(2)]
    directions = torch.randn(3, 32, generator=generator)
    which, prompt, features = 0, PROMPTS[0], pictures[0]
    for _ in range(moves):
        match rng.randrange(8):
            case 0:
                which, features = 1 - which, pictures[1 - which]
            case 1:
                prompt = rng.choice(PROMPTS)
            case 2:
                features = pictures[which]
            case 3:
                made.append((which, Asked(prompt, None, "be big"), 9))
            case _:
                first = rng.randrange(16)
                features = pictures[which].clone()
                last = rng.randrange(first, 16)
                features[first : last + 1] += rng.choice((-1.0, 0.1, 0.4, 1.0)) * rng.choice(directions)
        made.append((which, Asked(prompt, features), rng.choice((1, 5, 14, 14, 14))))
    return made


def test_a_visit_gives_what_generate_gives(lvlm: Llava) -> None:
    memories, seen = [Memory(), Memory()], set()
    croppable = can_be_cropped(lvlm.model.config.get_text_config())
    assert croppable is (lvlm.model_id not in CANNOT_GO_BACK)
    for which, asked, limit in drag(1, 14):
        wanted = by_generate(lvlm, asked, limit)
        assert by_decode(lvlm, asked, limit, memories[which]) == wanted
        seen.add(tuple(wanted))
    assert len(seen) > 3, "the model hardly looks at its picture, so this shows little"
    assert {len(answer) for answer in seen} - {1, 5, 9, 14}, "no answer ends by itself"
    assert (memories[0].nbytes > 0) is croppable


def test_without_a_memory_too(lvlm: Llava) -> None:
    for _, asked, limit in drag(2, 1):
        assert by_decode(lvlm, asked, limit, None) == by_generate(lvlm, asked, limit)
