"""InternVL: which tiles a picture becomes, published settings, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.adapter import Question
from explorer.vlm.families.internvl import TEMPLATE, InternVL, InternVLReader
from tests.vlm.families.made import made
from tests.vlm.families.made_internvl import images, tokenizer
from tests.vlm.families.ramps import astray, ramp
from tests.vlm.families.test_contract import PROMPT, picture

SMALL_TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
SMALL_TOWER |= {"num_attention_heads": 16, "attention_bias": True, "use_qk_norm": False}
LARGE_TOWER = {"hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 45}
LARGE_TOWER |= {"num_attention_heads": 25, "attention_bias": False, "use_qk_norm": True}
LARGE_TOWER |= {"norm_type": "rms_norm"}
PUBLISHED = {
    "InternVL3-1B-hf": (
        SMALL_TOWER,
        {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "num_hidden_layers": 24,
            "vocab_size": 151674,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
        },
    ),
    "InternVL3-38B-hf": (
        LARGE_TOWER,
        {
            "model_type": "qwen2",
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "num_hidden_layers": 64,
            "vocab_size": 151674,
            "max_position_embeddings": 32768,
        },
    ),
    "InternVL3_5-8B-HF": (
        SMALL_TOWER,
        {
            "model_type": "qwen3",
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_hidden_layers": 36,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
        },
    ),
}
"""Tower and text model as the config files of OpenGVLab say."""


def published(name: str) -> InternVL:
    """The model of a published config, without weights, and its processor with a tokenizer of few words."""
    vision, text = PUBLISHED[name]
    sizes = {"image_size": [448, 448], "patch_size": [14, 14]}
    with torch.device("meta"):
        config = InternVLConfig(vision_config={**vision, **sizes}, text_config=text, image_token_id=4)
        model = InternVLForConditionalGeneration(config)
    return InternVL(model, InternVLReader(images(448, 12), tokenizer(), 256, TEMPLATE), name)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_sizes(name: str) -> None:
    lvlm, (vision, _) = published(name), PUBLISHED[name]
    blocks = int(vision["num_hidden_layers"])
    assert (lvlm.block_count, lvlm.read_block, lvlm.has_cls) == (blocks, blocks - 1, True)
    assert lvlm.width(0) == vision["hidden_size"] and lvlm._decoder.croppable
    prepared = lvlm.preprocess(Image.new("RGB", (640, 480)))
    assert (prepared.grid.rows, prepared.grid.cols, len(prepared.scales)) == (32, 32, 12)
    assert prepared.tokens == 13 * 1025 and prepared.inputs["layout"].tolist() == [[3, 4]]
    fixed = lvlm.preprocess(Image.new("RGB", (640, 480)), fixed=True)
    assert fixed.tokens == 1025 and not fixed.scales
    assert lvlm.preprocessing.startswith("squash to 448 x 448")


SIZES = (
    *((448, 448), (640, 480), (480, 640), (1000, 300), (300, 1000), (37, 512), (1600, 1599), (8, 8)),
    *((333, 334), (1345, 672), (900, 901), (4000, 250), (1792, 1344)),
)


@pytest.fixture(scope="module")
def large() -> InternVL:
    return published("InternVL3-1B-hf")


@pytest.mark.parametrize("size", SIZES)
def test_tiles_lie_where_the_processor_puts_them(large: InternVL, size: tuple[int, int]) -> None:
    prepared, processor = large.preprocess(ramp(*size)), large.processor.image_processor
    tiles = processor.get_number_of_image_patches(size[1], size[0], {"crop_to_patches": True})
    assert tiles == prepared.pixel_values.shape[1] == 1 + len(prepared.scales)
    tolerance = 3 if min(size) > 60 else 20
    grids = [*(scale.grid for scale in prepared.scales), prepared.grid]
    for values, grid in zip(prepared.pixel_values[0], grids, strict=True):
        assert astray(values, grid, 14, processor) < tolerance


def test_a_picture_of_one_tile_is_seen_once() -> None:
    lvlm = made("internvl/qwen2").lvlm
    once = lvlm.preprocess(picture(1, (20, 20)))
    assert not once.scales and once.pixel_values.shape[1] == 1
    assert once.alike(lvlm.preprocess(picture(1, (90, 33)), fixed=True))
    plain = lvlm.answer_plain(picture(1, (20, 20)), PROMPT, 6)
    ready = lvlm.features(lvlm.tower(once.pixel_values, 1, once)[0], 1, once)
    assert lvlm.generate(ready, PROMPT, 6, once) == plain


def test_published_form_of_a_prompt() -> None:
    lvlm = made("internvl/qwen2").lvlm
    assert lvlm._prompt_text(Question(PROMPT), 3, None) == (
        "<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    image = picture(2, (150, 70))
    theirs = lvlm.processor(images=[image], text=[lvlm.prompt_text(PROMPT)], return_tensors="pt")["input_ids"]
    tokens = int((theirs == lvlm.model.config.image_token_id).sum())
    assert lvlm._encode(Question(PROMPT), tokens, None).tolist() == theirs[0].tolist()
    assert lvlm.prompt_text(PROMPT, "a cat").startswith("<|im_start|>system\na cat<|im_end|>\n")


def test_earlier_layers_and_patches_of_any_kind() -> None:
    """A config may have the projector read an earlier block, then without the last norm."""
    lvlm = made("internvl/qwen3").lvlm
    config, layer = lvlm.model.config, lvlm.model.config.vision_feature_layer
    try:
        config.vision_feature_layer = -2
        earlier = InternVL(lvlm.model, lvlm.processor, "earlier")
        assert earlier.read_block == 2
        with pytest.raises(ModelError, match="block 3 cannot matter"):
            earlier.width(3)
        image = picture(4, (90, 40))
        prepared = earlier.preprocess(image)
        ready = earlier.features(earlier.tower(prepared.pixel_values, 1, prepared)[0], 1, prepared)
        assert earlier.generate(ready, PROMPT, 6, prepared) == earlier.answer_plain(image, PROMPT, 6)
        assert ready.shape[0] == 4 * (1 + len(prepared.scales))
    finally:
        config.vision_feature_layer = layer


@pytest.mark.parametrize("template", [True, False])
def test_a_folder_opens_and_answers_the_same(template: bool, tmp_path: Path) -> None:
    """Saved part by part, as the hub has it: with a processor for films, and tiles switched off by itself."""
    lvlm = made("internvl/qwen2").lvlm
    lvlm.model.save_pretrained(tmp_path)
    lvlm.processor.tokenizer.save_pretrained(tmp_path)
    lvlm.processor.image_processor.save_pretrained(tmp_path)
    settings = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    pictures = json.loads((tmp_path / "preprocessor_config.json").read_text())
    pictures |= {"crop_to_patches": False, "image_processor_type": "GotOcr2ImageProcessorFast"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pictures))
    films = {"video_processor_type": "InternVLVideoProcessor", "size": {"height": 28, "width": 28}}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(films))
    if template:
        (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    opened = open_lvlm(tmp_path)
    assert opened.family == "internvl" and isinstance(opened, InternVL)
    assert opened.prompt_text(PROMPT) == lvlm.prompt_text(PROMPT)
    image = picture(3, (130, 60))
    plain = lvlm.answer_plain(image, PROMPT, 6)
    assert opened.answer_plain(image, PROMPT, 6) == plain
    prepared = opened.preprocess(image)
    ready = opened.features(opened.tower(prepared.pixel_values, 1, prepared)[0], 1, prepared)
    assert opened.generate(ready, PROMPT, 6, prepared) == plain and len(prepared.scales) > 1
