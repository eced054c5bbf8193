"""PaliGemma in small: SigLIP in front of Gemma (1) and of Gemma 2 with windows and soft caps (2)."""

from __future__ import annotations

import torch
from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from explorer.vlm.adapter import Adapter
from explorer.vlm.families.paligemma import PaliGemma
from tests.vlm.families.made import widen
from tests.vlm.families.tokens import word_tokenizer


def parts(text: PreTrainedConfig, tokenizer: object) -> PaliGemma:
    """The model and its processor around a text config."""
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=48, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, image_size=28,
            patch_size=7, projection_dim=64, vision_use_head=False,
        ).to_dict(),
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        tie_word_embeddings=False,  # else a model of random weights repeats its last token
    )  # fmt: skip
    model = PaliGemmaForConditionalGeneration(config)
    widen(model)
    with torch.no_grad():
        model.model.multi_modal_projector.linear.weight.mul_(4.0)
        model.get_output_embeddings().weight[:6] = 0.0
        model.get_output_embeddings().weight[len(tokenizer) :] = 0.0
    model.generation_config.eos_token_id = None
    images = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    images.image_seq_length = 16
    return PaliGemma(model, PaliGemmaProcessor(images, tokenizer), f"random-{text.model_type}@0")


def sizes(vocabulary: int) -> dict[str, object]:
    """What both text configs share."""
    return {
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def first() -> Adapter:
    """As google/paligemma-3b-mix-224."""
    tokenizer = word_tokenizer(begin=False)
    return parts(GemmaConfig(**sizes(len(tokenizer) + 1200)), tokenizer)


def second() -> Adapter:
    """As google/paligemma2-3b-mix-224; the window is shorter than the prompt."""
    tokenizer = word_tokenizer(begin=False)
    text = Gemma2Config(**sizes(len(tokenizer) + 1200), sliding_window=12, query_pre_attn_scalar=16)
    return parts(text, tokenizer)


MADE = {"first": first, "second": second}
