"""A LLaVA with random weights, made in memory: what it says means nothing, what it costs is real.

For benchmarks of sizes whose weights are not at hand. Reads and writes no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from explorer.vlm.families.llava import Llava

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
HEAD_WIDTH = 64


@dataclass(frozen=True)
class Shape:
    """How large a random LLaVA is; the defaults are LLaVA-1.5's vision tower (CLIP ViT-L/14 at 336 px) and a
    small language model of 8 layers.

    image, patch: sides in pixels; blocks, width, mlp: of the vision tower; text_*: of the language model,
    whose heads, like the tower's, are HEAD_WIDTH wide; words: size of its vocabulary.
    """

    image: int = 336
    patch: int = 14
    blocks: int = 24
    width: int = 1024
    mlp: int = 4096
    text_layers: int = 8
    text_width: int = 512
    text_mlp: int = 1408
    words: int = 2000


def random_llava(shape: Shape | None = None, seed: int = 0) -> Llava:
    """An opened LLaVA of a shape, weights drawn from a seed (torch's own generator stays as it was).

    It answers with words of its vocabulary until the limit: it never ends by itself.
    """
    size = shape or Shape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(_config(size))
        _widen(model)
    return Llava(model, _processor(size), f"random-llava@{size.width}x{size.blocks}-{seed}")


def _config(size: Shape) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.blocks,
        num_attention_heads=max(1, size.width // HEAD_WIDTH),
        image_size=size.image,
        patch_size=size.patch,
    )
    text = LlamaConfig(
        vocab_size=size.words,
        hidden_size=size.text_width,
        intermediate_size=size.text_mlp,
        num_hidden_layers=size.text_layers,
        num_attention_heads=max(1, size.text_width // HEAD_WIDTH),
        max_position_embeddings=2048,
        initializer_range=2.0 * size.text_width**-0.5,
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        pad_token_id=SPECIAL.index("<pad>"),
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_id=SPECIAL.index("<image>"))


def _widen(model: LlavaForConditionalGeneration) -> None:
    """Let the text depend on the picture, and never end: special tokens stay below the best."""
    for weights in model.model.multi_modal_projector.parameters():
        if weights.ndim == 2:
            weights.data.normal_(0.0, weights.shape[1] ** -0.5)
    model.lm_head.weight.data[: len(SPECIAL)] = 0.0


def _processor(size: Shape) -> LlavaProcessor:
    vocabulary = [*SPECIAL, *(word(i) for i in range(size.words - len(SPECIAL)))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, **special, extra_special_tokens={"image_token": "<image>"}
    )
    side = {"height": size.image, "width": size.image}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": size.image}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def word(number: int) -> str:
    """A pronounceable word of at least three letters for a number, another for each."""
    letters, rest = "", number
    while True:
        rest, place = divmod(rest, 70)
        letters += "bdfgklmnprstvz"[place % 14] + "aeiou"[place // 14]
        if not rest:
            return letters if len(letters) > 2 else letters + "n"
        rest -= 1
