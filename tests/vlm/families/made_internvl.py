"""InternVL in small: with layer norms in front of Qwen 2, with RMS norms in front of Qwen 3."""

from __future__ import annotations

import torch
from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from explorer.vlm.adapter import Adapter
from explorer.vlm.families.internvl import TEMPLATE, InternVL, InternVLReader
from tests.vlm.families.made import widen
from tests.vlm.families.tokens import word_tokenizer

MARKS = ("<img>", "</img>", "<video>", "<|im_start|>", "<|im_end|>")
NAMES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def parts(text: str, max_tiles: int, **vision: object) -> InternVL:
    """The model and its processor; text: kind of the text model; vision: settings of the tower."""
    tokens = tokenizer()
    config = InternVLConfig(
        vision_config={
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": [28, 28], "patch_size": [7, 7], "layer_scale_init_value": 1.0, **vision,
        },
        text_config={
            "model_type": text, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False,
            "max_position_embeddings": 512, "vocab_size": len(tokens) + 64, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 0,
        },
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,  # else a model of random weights repeats its last token
    )  # fmt: skip
    model = InternVLForConditionalGeneration(config)
    widen(model)
    with torch.no_grad():
        model.model.vision_tower.embeddings.position_embeddings.normal_(0.0, 1.0)
        model.model.multi_modal_projector.linear_2.weight.mul_(2.0)
        model.lm_head.weight[: 6 + len(MARKS)] = 0.0
        model.lm_head.weight[len(tokens) :] = 0.0
    model.generation_config.eos_token_id = None
    processor = InternVLReader(images(28, max_tiles), tokens, 4, TEMPLATE)
    return InternVL(model, processor, f"random-internvl-{text}@0")


def tokenizer() -> PreTrainedTokenizerFast:
    """With the names that the processor asks for."""
    plain = word_tokenizer(MARKS, begin=False, image="<IMG_CONTEXT>")
    return PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=NAMES,
    )


def images(tile: int, max_tiles: int) -> GotOcr2ImageProcessorPil:
    """As the published checkpoints set it, with tiles of this size."""
    return GotOcr2ImageProcessorPil(size={"height": tile, "width": tile}, max_patches=max_tiles)


def qwen2() -> Adapter:
    """As OpenGVLab/InternVL3-8B-hf."""
    return parts("qwen2", 4)


def qwen3() -> Adapter:
    """As OpenGVLab/InternVL3_5-8B-HF, with the tower of the 38B: RMS norms, also of queries and keys."""
    return parts("qwen3", 2, norm_type="rms_norm", use_qk_norm=True, use_mean_pooling=False)


MADE = {"qwen2": qwen2, "qwen3": qwen3}
