"""Idefics3 and SmolVLM in small: tiles that fit the patches, tiles with a rest, and SmolVLM 2."""

from __future__ import annotations

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from explorer.vlm.adapter import Adapter
from explorer.vlm.families.idefics3 import Idefics3, template_of
from tests.vlm.families.made import widen
from tests.vlm.families.tokens import word_tokenizer

MARKS = (
    "<fake_token_around_image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
)


def parts(tile: int, patch: int, merged: int, tiles: int, smol: bool = False, first: str = "") -> Idefics3:
    """The model and its processor; tile, patch: sides in pixels; tiles: along the longer edge at most."""
    tokenizer = word_tokenizer((*MARKS, first) if first else MARKS, begin=not smol)
    config = (SmolVLMConfig if smol else Idefics3Config)(
        vision_config={
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": tile, "patch_size": patch,
        },
        text_config={
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "vocab_size": len(tokenizer) + 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        },
        scale_factor=merged,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = (SmolVLMForConditionalGeneration if smol else Idefics3ForConditionalGeneration)(config)
    widen(model)
    with torch.no_grad():
        model.model.vision_model.embeddings.position_embedding.weight.mul_(4.0)
        model.model.connector.modality_projection.proj.weight.mul_(2.0)
        model.lm_head.weight[: 6 + len(MARKS) + bool(first)] = 0.0
        model.lm_head.weight[len(tokenizer) :] = 0.0
    model.generation_config.eos_token_id = None
    processor = Idefics3Processor(images(tile, tiles, smol), tokenizer, model.model.image_seq_len)
    processor.chat_template = template_of(processor)
    return Idefics3(model, processor, f"random-{config.model_type}-{tile}@0")


def images(tile: int, tiles: int, smol: bool = False) -> Idefics3ImageProcessorPil | SmolVLMImageProcessorPil:
    """As the published checkpoints set it, with tiles of this size."""
    kind = SmolVLMImageProcessorPil if smol else Idefics3ImageProcessorPil
    return kind(size={"longest_edge": tiles * tile}, max_image_size={"longest_edge": tile})


def large() -> Adapter:
    """As HuggingFaceM4/Idefics3-8B-Llama3: 364 / 14, two by two patches a feature."""
    return parts(28, 7, 2, 2)


def rest() -> Adapter:
    """As HuggingFaceTB/SmolVLM-Instruct: 384 / 14 leaves 6 pixels over; three by three patches a feature."""
    return parts(44, 7, 3, 2, first="<|im_start|>")


def second() -> Adapter:
    """As HuggingFaceTB/SmolVLM2-500M-Video-Instruct: 512 / 16, four by four patches a feature."""
    return parts(32, 4, 4, 3, smol=True, first="<|im_start|>")


MADE = {"large": large, "rest": rest, "second": second}
