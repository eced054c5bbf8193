"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL in small: patch sizes, windows, taps and picture sizes as published."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from explorer.vlm.families.qwen import CHAT, Qwen, Qwen2Reader, Qwen2VL, Qwen25Reader, Qwen25VL
from explorer.vlm.families.qwen3 import Qwen3Reader, Qwen3VL
from explorer.vlm.synthetic_qwen import SPECIAL
from tests.vlm.families.made import VOCABULARY, widen

WORDS = [*SPECIAL, *dict.fromkeys(f"{VOCABULARY} system user assistant You are helpful assistant.".split())]

OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
FOURTEEN = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, **OPENAI}
OLD = {"min_pixels": 3136, "max_pixels": 12845056, **FOURTEEN}
"""The image processor of Qwen2-VL and Qwen2.5-VL as published."""
NEW = {
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    **HALF,
}
"""That of Qwen3-VL."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word, and those of Qwen with a meaning of their own."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:7]),
    )


def text_config(**more: object) -> dict[str, object]:
    """A language model of four layers."""
    return {
        "vocab_size": len(WORDS),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
        "bos_token_id": 0,
        "eos_token_id": 2,
        **more,
    }


def ids() -> dict[str, int]:
    """The tokens with a meaning of their own."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, range(3, 7), strict=True))


def opened(
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    family: type[Qwen],
    reader: type[ProcessorMixin],
    images: dict[str, object],
    spread: float = 1.0,
) -> Qwen:
    """A model of random weights, drawn as wide as `widen` says, that never ends an answer."""
    model = kind(config).float()
    widen(model, spread)
    with torch.no_grad():
        for weights in (it for it in model.parameters() if it.ndim == 3):  # one matrix for each expert
            weights.normal_(0.0, weights.shape[-1] ** -0.5)
        model.get_output_embeddings().weight[: len(SPECIAL)] = 0.0
    model.generation_config.eos_token_id = None
    processor = reader(Qwen2VLImageProcessorPil(**images), tokenizer(), chat_template=CHAT)
    return family(model, processor, f"random-{config.model_type}@0")


def qwen2(images: dict[str, object] | None = None, **more: object) -> Qwen2VL:
    """Qwen2-VL: all blocks look at everything; the width of the tower has a name of its own."""
    seen = {
        "depth": 5,
        "embed_dim": 32,
        "hidden_size": 48,
        "mlp_ratio": 2,
        "num_heads": 2,
        "in_chans": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }
    config = Qwen2VLConfig(vision_config=seen, **text_config(**more), **ids())
    return opened(Qwen2VLForConditionalGeneration, config, Qwen2VL, Qwen2Reader, images or OLD)


def qwen2_5(images: dict[str, object] | None = None, **more: object) -> Qwen25VL:
    """Qwen2.5-VL: windows of 8 x 8 patches but in two of five blocks."""
    seen = {
        "depth": 5,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 60,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 48,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }
    config = Qwen2_5_VLConfig(vision_config=seen, **text_config(**more), **ids())
    return opened(Qwen2_5_VLForConditionalGeneration, config, Qwen25VL, Qwen25Reader, images or OLD)


def tapped(**more: object) -> dict[str, object]:
    """The tower of Qwen3-VL: three of six blocks are tapped."""
    return {
        "depth": 6,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "in_channels": 3,
        "out_hidden_size": 48,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [1, 2, 4],
        **more,
    }


INTERLEAVED = {
    "head_dim": 16,
    "rope_theta": 5000000,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
}


def qwen3(**more: object) -> Qwen3VL:
    """Qwen3-VL: taps, positions of the tower's own, interleaved axes; embeddings are the head as well."""
    text = text_config(tie_word_embeddings=True, **INTERLEAVED)
    config = Qwen3VLConfig(vision_config=tapped(**more), text_config=text, tie_word_embeddings=True, **ids())
    return opened(Qwen3VLForConditionalGeneration, config, Qwen3VL, Qwen3Reader, NEW)


def qwen3_experts() -> Qwen3VL:
    """Qwen3-VL with a mixture of experts, two of six for each token."""
    text = text_config(
        moe_intermediate_size=32, num_experts=6, num_experts_per_tok=2, mlp_only_layers=[], **INTERLEAVED
    )
    config = Qwen3VLMoeConfig(vision_config=tapped(), text_config=text, tie_word_embeddings=False, **ids())
    return opened(Qwen3VLMoeForConditionalGeneration, config, Qwen3VL, Qwen3Reader, NEW, 1.4)


MADE: dict[str, Callable[[], Qwen]] = {
    "qwen2": qwen2,
    "qwen2_5": qwen2_5,
    "qwen3": qwen3,
    "qwen3_experts": qwen3_experts,
}
