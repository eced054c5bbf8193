"""A Qwen2.5-VL with random weights, made in memory: what it says means nothing, what it costs is real.

For benchmarks of sizes whose weights are not at hand, as `synthetic` is for LLaVA. Reads and writes no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from explorer.vlm.families.qwen import CHAT, Qwen25Reader, Qwen25VL
from explorer.vlm.synthetic import HEAD_WIDTH, word

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
)
PATCH, MERGE, FRAMES, WINDOW = 14, 2, 2, 112
"""Sides in pixels of a patch and a window, patches along each side of a merge block, frames: all sizes share
them."""


@dataclass(frozen=True)
class QwenShape:
    """How large a random Qwen2.5-VL is; the defaults are the vision tower that all published sizes share, and
    a small language model of 8 layers.

    image: side in pixels of the pictures it is meant for; blocks, width, mlp, heads: of the vision tower;
    whole: every how many blocks one looks at all windows; text_*: of the language model, whose heads are
    HEAD_WIDTH wide; words: size of its vocabulary.
    """

    image: int = 448
    blocks: int = 32
    width: int = 1280
    mlp: int = 3420
    heads: int = 16
    whole: int = 8
    text_layers: int = 8
    text_width: int = 512
    text_mlp: int = 1408
    words: int = 2000


def random_qwen(shape: QwenShape | None = None, seed: int = 0) -> Qwen25VL:
    """An opened Qwen2.5-VL of a shape, weights drawn from a seed (torch's own generator stays as it was).

    It answers with words of its vocabulary until the limit: it never ends by itself.
    """
    size = shape or QwenShape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_config(size)).float()
        _widen(model)
    model.generation_config.eos_token_id = None
    return Qwen25VL(model, _processor(size), f"random-qwen@{size.width}x{size.blocks}-{seed}")


def _config(size: QwenShape) -> Qwen2_5_VLConfig:
    vision = {
        "depth": size.blocks,
        "hidden_size": size.width,
        "intermediate_size": size.mlp,
        "num_heads": size.heads,
        "out_hidden_size": size.text_width,
        "patch_size": PATCH,
        "spatial_patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "window_size": WINDOW,
        "fullatt_block_indexes": list(range(size.whole - 1, size.blocks, size.whole)),
    }
    heads = max(1, size.text_width // HEAD_WIDTH)
    text = {
        "vocab_size": size.words,
        "hidden_size": size.text_width,
        "intermediate_size": size.text_mlp,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 32_768,
        "initializer_range": 2.0 * size.text_width**-0.5,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "bos_token_id": SPECIAL.index("<|endoftext|>"),
        "eos_token_id": SPECIAL.index("<|im_end|>"),
        "pad_token_id": SPECIAL.index("<|endoftext|>"),
        "tie_word_embeddings": False,
    }
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    ids = [SPECIAL.index(f"<|{name}|>") for name in names]
    keys = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=False, **dict(zip(keys, ids, strict=True))
    )


def _widen(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the text depend on the picture, and special tokens stay below the best."""
    for weights in model.model.visual.merger.parameters():
        if weights.ndim == 2:
            weights.data.normal_(0.0, weights.shape[1] ** -0.5)
    model.lm_head.weight.data[: len(SPECIAL)] = 0.0


def _processor(size: QwenShape) -> Qwen25Reader:
    vocabulary = [*SPECIAL, *(word(i) for i in range(size.words - len(SPECIAL)))]
    words = Tokenizer(models.WordLevel({text: i for i, text in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:7]),
    )
    images = Qwen2VLImageProcessorPil(
        min_pixels=(PATCH * MERGE) ** 2,
        max_pixels=12_845_056,
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=FRAMES,
    )
    return Qwen25Reader(images, tokenizer, chat_template=CHAT)
