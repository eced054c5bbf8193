"""LLaVA-1.5 in small: CLIP with a CLS token, and SigLIP without one."""

from __future__ import annotations

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from explorer.vlm.adapter import Adapter
from explorer.vlm.families.llava import Llava
from explorer.vlm.synthetic import Shape, random_llava
from tests.vlm.families.made import widen
from tests.vlm.families.tokens import word_tokenizer

SMALL = Shape(32, 8, 4, 64, 128, 2, 64, 128, 100)


def clip() -> Adapter:
    """Reads the last block but one, as LLaVA-1.5 does."""
    return random_llava(SMALL)


def siglip() -> Adapter:
    """Reads all of the last block of a tower without CLS token, as llava-interleave-qwen-0.5b does."""
    tokenizer = word_tokenizer(("<|im_end|>",), begin=False)
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=36,
            patch_size=9,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=False,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaForConditionalGeneration(config)
    widen(model)
    with torch.no_grad():
        model.lm_head.weight[:7] = 0.0
    model.generation_config.eos_token_id = None
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": 36, "width": 36}),
        tokenizer,
        patch_size=9,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
    )
    return Llava(model, processor, "random-llava-siglip@0")


MADE = {"clip": clip, "siglip": siglip}
