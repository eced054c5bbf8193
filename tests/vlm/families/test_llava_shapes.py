"""The shapes of published models of LLaVA's kind, without weights; those that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.families.llava import Llava
from tests.vlm.families.made import made

SIZES = {"7B": (4096, 11008, 32, 32), "13B": (5120, 13824, 40, 40)}


@pytest.mark.parametrize("size", SIZES)
def test_llava_1_5(size: str) -> None:
    """llava-hf/llava-1.5-7b-hf and -13b-hf: block 22 of 24 is read, 576 patches of the centre crop."""
    width, mlp, layers, heads = SIZES[size]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        ),
        text_config=LlamaConfig(
            vocab_size=32064,
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=4096,
        ),
        image_token_id=32000,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = made("llava/clip").lvlm.processor
    images = processor.image_processor
    before = images.size, images.crop_size
    images.size, images.crop_size = {"shortest_edge": 336}, {"height": 336, "width": 336}
    try:
        with torch.device("meta"):
            lvlm = Llava(LlavaForConditionalGeneration(config), processor, "published@0")
        prepared = lvlm.preprocess(Image.new("RGB", (640, 480)))
        assert (lvlm.block_count, lvlm.read_block, lvlm.width(22), lvlm.has_cls) == (24, 22, 1024, True)
        with pytest.raises(ModelError, match="block 23 cannot matter"):
            lvlm.width(23)
        grid = prepared.grid
        assert (grid.rows, grid.cols, prepared.tokens, lvlm.text_layers) == (24, 24, 577, layers)
        assert grid.covered == (80, 0, 560, 480), "the middle square of the picture"
        features = lvlm.features(torch.zeros(577, 1024, device="meta"), 22, prepared)
        assert features.shape == (576, width)
    finally:
        images.size, images.crop_size = before


def test_pixtral_is_refused_by_name(tmp_path: Path) -> None:
    """It calls itself a LLaVA, and takes pictures of any size."""
    (tmp_path / "config.json").write_text(
        '{"model_type": "llava", "vision_config": {"model_type": "pixtral"}, '
        '"text_config": {"model_type": "mistral"}}'
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"Pixtral.*not supported"):
        open_lvlm(tmp_path)
