"""Tiny LLaVAs with language models of several families."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from explorer.vlm.families.llava import Llava


@pytest.fixture(scope="session")
def lvlm_of(tiny_lvlm_folder: Path) -> Callable[..., Llava]:
    """`lvlm_of("Gemma2", attention="eager", layers=2)`: the tiny LLaVA with another language model in it."""
    import torch
    import transformers

    from explorer.vlm import open_lvlm
    from explorer.vlm.families.llava import Llava

    vision = open_lvlm(tiny_lvlm_folder)
    known = vision.model.config
    windows = {"Qwen2": {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}}
    windows |= {"Mistral": {"sliding_window": 14}, "Gemma2": {"sliding_window": 12}}
    windows |= {"Gemma3": {"sliding_window": 12}, "Phi3": {"sliding_window": 15}}

    @cache
    def make(family: str, attention: str = "sdpa", layers: int = 2, tokenizer: object = None) -> Llava:
        sort = "Gemma3Text" if family == "Gemma3" else family
        text = getattr(transformers, f"{sort}Config")(
            vocab_size=known.text_config.vocab_size if tokenizer is None else len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=256,
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
            **windows.get(family, {}),
        )
        config = transformers.LlavaConfig(
            vision_config=known.vision_config,
            text_config=text,
            image_token_id=4,
            vision_feature_layer=-2,
            tie_word_embeddings=False,
        )
        config._attn_implementation = "eager" if family == "Gemma2" else attention
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = transformers.LlavaForConditionalGeneration(config)
            for parameter in model.model.multi_modal_projector.parameters():
                parameter.data.normal_(0.0, 0.4)
            model.lm_head.weight.data.normal_(0.0, 0.4)
            model.lm_head.weight.data[:7] = 0.0  # no special tokens: the text goes on until the limit
        model.model.vision_tower.load_state_dict(vision.model.model.vision_tower.state_dict())
        return Llava(model, vision.processor, f"tiny-{family}@0")

    return make
