"""InstructBLIP in small: EVA's tower with CLS, a Q-Former that reads the prompt, Llama as Vicuna."""

from __future__ import annotations

import torch
from transformers import (
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
)

from explorer.vlm.adapter import Adapter
from explorer.vlm.families.instructblip import InstructBlip
from tests.vlm.families.made import widen
from tests.vlm.families.tokens import bert_like, word_tokenizer


def parts() -> tuple[InstructBlipForConditionalGeneration, InstructBlipProcessor]:
    """Model and processor."""
    tokenizer, asked = word_tokenizer(), bert_like()
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=48, intermediate_size=96, num_hidden_layers=5, num_attention_heads=4, image_size=28,
            patch_size=7,
        ).to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=len(asked), hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64, cross_attention_frequency=2,
            encoder_hidden_size=48, pad_token_id=0,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
            pad_token_id=0,
        ).to_dict(),
        num_query_tokens=6,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = InstructBlipForConditionalGeneration(config)
    widen(model)
    with torch.no_grad():
        model.query_tokens.normal_()
        model.language_model.lm_head.weight[:6] = 0.0
    model.language_model.generation_config.eos_token_id = None
    processor = InstructBlipProcessor(
        BlipImageProcessorPil(size={"height": 28, "width": 28}), tokenizer, asked, num_query_tokens=6
    )
    return model, processor


def vicuna() -> Adapter:
    """As Salesforce/instructblip-vicuna-7b."""
    return InstructBlip(*parts(), "random-instructblip@0")


MADE = {"vicuna": vicuna}
REFUSES = {"vicuna": ("attention", "alone")}
