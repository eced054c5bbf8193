"""The shapes of Qwen's published models, from the values of their config files, without weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
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

from explorer.errors import ModelError
from explorer.vlm.cache import can_be_cropped
from explorer.vlm.families.qwen import CHAT, Qwen, Qwen2Reader, Qwen2VL, Qwen25Reader, Qwen25VL
from explorer.vlm.families.qwen3 import Qwen3Reader, Qwen3VL
from tests.vlm.families.made_qwen import NEW, OLD, tokenizer

IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
QWEN2 = {
    "hidden_act": "silu",
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "use_sliding_window": False,
    "sliding_window": 32768,
    "max_window_layers": 28,
    **IDS,
}
SEEN2 = {
    "depth": 32,
    "embed_dim": 1280,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
}
SEEN25 = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}
SEEN3 = {
    "hidden_act": "gelu_pytorch_tanh",
    "in_channels": 3,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
SMALL3 = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
LARGE3 = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
QWEN3 = {
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 262144,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000000,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "vocab_size": 151936,
}
EXPERTS = {"decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 768, "num_experts": 128}


class Published(NamedTuple):
    """One model: its config, and what must be found in it."""

    config: PreTrainedConfig
    blocks: int
    width: int
    layers: int
    room: int
    billions: float
    taps: tuple[int, ...] = ()


def qwen2(kind: type[PreTrainedConfig], seen: dict[str, Any], **text: Any) -> PreTrainedConfig:
    """The flat config of Qwen2-VL and Qwen2.5-VL."""
    return kind(vision_config={**seen}, **{**QWEN2, **text})


def text(width: int, mlp: int, layers: int, heads: int) -> dict[str, int]:
    """Sizes of a language model."""
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


MODELS = {
    "Qwen/Qwen2-VL-2B-Instruct": Published(
        qwen2(
            Qwen2VLConfig,
            {**SEEN2, "hidden_size": 1536},
            **text(1536, 8960, 28, 12),
            num_key_value_heads=2,
            vocab_size=151936,
            tie_word_embeddings=True,
        ),
        *(32, 1280, 28, 32768, 1.5),
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Published(
        qwen2(Qwen2VLConfig, {**SEEN2, "hidden_size": 3584}, **text(3584, 18944, 28, 28), vocab_size=152064),
        *(32, 1280, 28, 32768, 7.6),
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": Published(
        qwen2(
            Qwen2_5_VLConfig,
            {**SEEN25, "out_hidden_size": 2048},
            **text(2048, 11008, 36, 16),
            num_key_value_heads=2,
            vocab_size=151936,
            tie_word_embeddings=True,
            max_position_embeddings=128000,
        ),
        *(32, 1280, 36, 128000, 3.1),
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Published(
        qwen2(
            Qwen2_5_VLConfig,
            {**SEEN25, "out_hidden_size": 3584},
            **text(3584, 18944, 28, 28),
            vocab_size=152064,
            max_position_embeddings=128000,
        ),
        *(32, 1280, 28, 128000, 7.6),
    ),
    "Qwen/Qwen3-VL-4B-Instruct": Published(
        Qwen3VLConfig(
            vision_config={**SEEN3, **SMALL3, "out_hidden_size": 2560},
            text_config={**QWEN3, **text(2560, 9728, 36, 32), "tie_word_embeddings": True},
            tie_word_embeddings=True,
            **IDS,
        ),
        *(24, 1024, 36, 262144, 4.0, (5, 11, 17)),
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Published(
        Qwen3VLConfig(
            vision_config={**SEEN3, **LARGE3, "out_hidden_size": 4096},
            text_config={**QWEN3, **text(4096, 12288, 36, 32)},
            **IDS,
        ),
        *(27, 1152, 36, 262144, 8.2, (8, 16, 24)),
    ),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": Published(
        Qwen3VLMoeConfig(
            vision_config={**SEEN3, **LARGE3, "out_hidden_size": 2048},
            text_config={
                **QWEN3,
                **text(2048, 6144, 48, 32),
                **EXPERTS,
                "num_experts_per_tok": 8,
                "num_key_value_heads": 4,
            },
            tie_word_embeddings=False,
            **IDS,
        ),
        *(27, 1152, 48, 262144, 30.5, (8, 16, 24)),
    ),
}
KINDS: dict[str, tuple[type[PreTrainedModel], type[Qwen], type, dict[str, Any]]] = {
    "qwen2_vl": (Qwen2VLForConditionalGeneration, Qwen2VL, Qwen2Reader, OLD),
    "qwen2_5_vl": (Qwen2_5_VLForConditionalGeneration, Qwen25VL, Qwen25Reader, OLD),
    "qwen3_vl": (Qwen3VLForConditionalGeneration, Qwen3VL, Qwen3Reader, NEW),
    "qwen3_vl_moe": (Qwen3VLMoeForConditionalGeneration, Qwen3VL, Qwen3Reader, NEW),
}


@pytest.mark.parametrize("name", MODELS)
def test_published_shapes(name: str) -> None:
    known = MODELS[name]
    kind, family, reader, images = KINDS[known.config.model_type]
    processor = reader(Qwen2VLImageProcessorPil(**images), tokenizer(), chat_template=CHAT)
    with torch.device("meta"):
        lvlm = family(kind(known.config), processor, f"{name}@0")
    assert (lvlm.block_count, lvlm.read_block) == (known.blocks, known.blocks - 1)
    assert {lvlm.width(block) for block in range(known.blocks)} == {known.width}
    with pytest.raises(ModelError, match=f"no block {known.blocks}"):
        lvlm.width(known.blocks)
    assert (lvlm.text_layers, lvlm._side.room, lvlm.has_cls) == (known.layers, known.room, False)
    assert round(lvlm.text_size / 1e9, 1) == known.billions
    assert can_be_cropped(lvlm.model.config.get_text_config())

    image, patch = Image.new("RGB", (640, 480)), lvlm.processor.image_processor.patch_size
    step = 2 * patch
    free, fixed = lvlm.preprocess(image), lvlm.preprocess(image, fixed=True)
    assert (free.grid.rows, free.grid.cols) == (round(480 / step) * 2, round(640 / step) * 2)
    assert (fixed.grid.rows, fixed.grid.cols) == (448 // patch, 448 // patch)
    assert fixed.tokens == (448 // patch) ** 2 * (1 + len(known.taps))
    assert fixed.pixel_values.shape == (1, (448 // patch) ** 2, 3 * 2 * patch * patch)
    side = lvlm.model.config.get_text_config().hidden_size
    assert lvlm._side.embed(torch.zeros(3, dtype=torch.int64, device="meta")).shape[1] == side * (
        1 + len(known.taps)
    )
