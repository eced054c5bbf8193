"""LLaVA-NeXT in small: CLIP in front of Vicuna, Mistral and the Yi of 34b; resolutions as published."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedConfig,
)

from explorer.vlm.adapter import Adapter
from explorer.vlm.families.llava_next import LlavaNext, template_of
from tests.vlm.families.made import widen
from tests.vlm.families.tokens import word_tokenizer

TILE = 32
PINPOINTS = [[TILE * h, TILE * w] for h, w in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def parts(kind: type[PreTrainedConfig], marks: tuple[str, ...] = (), **more: object) -> LlavaNext:
    """The model and its processor around a text config; marks: special tokens of its turns."""
    tokenizer = word_tokenizer(marks)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=48, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
            image_size=TILE, patch_size=8,
        ).to_dict(),
        text_config=kind(**TEXT, vocab_size=len(tokenizer) + 64, **more).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    model = LlavaNextForConditionalGeneration(config)
    widen(model)
    with torch.no_grad():
        model.model.image_newline.normal_(0.0, 1.0)
        model.model.multi_modal_projector.linear_2.weight.mul_(2.0)
        model.lm_head.weight[: 6 + len(marks)] = 0.0
        model.lm_head.weight[len(tokenizer) :] = 0.0
    model.generation_config.eos_token_id = None
    processor = LlavaNextProcessor(images(), tokenizer, 8, "default", num_additional_image_tokens=1)
    processor.chat_template = template_of(processor, kind.model_type)
    return LlavaNext(model, processor, f"random-next-{kind.model_type}@0")


def images(tile: int = TILE, pinpoints: list[list[int]] | None = None) -> LlavaNextImageProcessorPil:
    """As the published checkpoints set it, with tiles of this size."""
    return LlavaNextImageProcessorPil(
        size={"shortest_edge": tile},
        crop_size={"height": tile, "width": tile},
        image_grid_pinpoints=pinpoints or PINPOINTS,
    )


def vicuna() -> Adapter:
    """As llava-hf/llava-v1.6-vicuna-7b-hf."""
    return parts(LlamaConfig)


def mistral() -> Adapter:
    """As llava-hf/llava-v1.6-mistral-7b-hf: grouped heads."""
    return parts(MistralConfig, num_key_value_heads=2, sliding_window=None)


def yi() -> Adapter:
    """As llava-hf/llava-v1.6-34b-hf: grouped heads, turns with marks of their own."""
    return parts(LlamaConfig, ("<|im_start|>", "<|im_end|>"), num_key_value_heads=1)


MADE = {"vicuna": vicuna, "mistral": mistral, "yi": yi}
