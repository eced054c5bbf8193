"""Idefics3 and SmolVLM: where tiles lie, what announces them, published settings, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.adapter import Question
from explorer.vlm.families.idefics3 import Idefics3, template_of
from tests.vlm.families.made import made
from tests.vlm.families.made_idefics3 import MARKS, images
from tests.vlm.families.ramps import astray, ramp
from tests.vlm.families.test_contract import PROMPT, picture
from tests.vlm.families.tokens import word_tokenizer

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "patch_size": 16,
    "image_size": 512,
}
SMALL = {"model_type": "llama", "max_position_embeddings": 8192, "rope_theta": 100000.0, "head_dim": 64}
PUBLISHED = {
    "Idefics3-8B-Llama3": {
        "model_type": "idefics3",
        "scale_factor": 2,
        "vision_config": {**SO400M, "image_size": 364},
        "text_config": {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_hidden_layers": 32,
            "max_position_embeddings": 10240,
            "rope_theta": 500000.0,
            "vocab_size": 128259,
        },
    },
    "SmolVLM-Instruct": {
        "model_type": "idefics3",
        "scale_factor": 3,
        "vision_config": {**SO400M, "image_size": 384},
        "text_config": {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "num_hidden_layers": 24,
            "max_position_embeddings": 16384,
            "rope_theta": 273768.0,
            "vocab_size": 49155,
        },
    },
    "SmolVLM-256M-Instruct": {
        "model_type": "idefics3",
        "scale_factor": 4,
        "vision_config": BASE,
        "text_config": {
            **SMALL,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "num_hidden_layers": 30,
            "vocab_size": 49280,
        },
    },
    "SmolVLM2-500M-Video-Instruct": {
        "model_type": "smolvlm",
        "scale_factor": 4,
        "vision_config": BASE,
        "text_config": {
            **SMALL,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "num_hidden_layers": 32,
            "vocab_size": 49280,
        },
    },
}
"""What the config files of HuggingFaceM4 and HuggingFaceTB say."""

SIZES = (
    *((364, 364), (640, 480), (480, 640), (1000, 300), (300, 1000), (37, 512), (2000, 1999), (8, 8)),
    *((333, 334), (1345, 672), (999, 1001), (5000, 3000)),
)


def published(name: str) -> Idefics3:
    """The model of a published config, without weights, and its processor with a tokenizer of few words."""
    settings = {key: value for key, value in PUBLISHED[name].items() if key != "model_type"}
    smol = PUBLISHED[name]["model_type"] == "smolvlm"
    with torch.device("meta"):
        config = (SmolVLMConfig if smol else Idefics3Config)(**settings, image_token_id=4)
        model = (SmolVLMForConditionalGeneration if smol else Idefics3ForConditionalGeneration)(config)
    tokenizer = word_tokenizer(MARKS)
    tile = int(settings["vision_config"]["image_size"])
    processor = Idefics3Processor(images(tile, 4, smol), tokenizer, model.model.image_seq_len)
    processor.chat_template = template_of(processor)
    return Idefics3(model, processor, name)


@pytest.mark.parametrize(
    ("name", "side", "features"),
    [
        ("Idefics3-8B-Llama3", 26, 169),
        ("SmolVLM-Instruct", 27, 81),
        ("SmolVLM-256M-Instruct", 32, 64),
        ("SmolVLM2-500M-Video-Instruct", 32, 64),
    ],
)
def test_published_sizes(name: str, side: int, features: int) -> None:
    lvlm, vision = published(name), PUBLISHED[name]["vision_config"]
    blocks = int(vision["num_hidden_layers"])
    assert (lvlm.block_count, lvlm.read_block, lvlm.has_cls) == (blocks, blocks - 1, False)
    assert lvlm.width(blocks - 1) == vision["hidden_size"] and lvlm._decoder.croppable
    prepared = lvlm.preprocess(Image.new("RGB", (640, 480), "gray"))
    assert (prepared.grid.rows, prepared.grid.cols) == (side, side) and len(prepared.scales) == 12
    assert prepared.tokens == 13 * side**2 and lvlm.processor.image_seq_len == features
    fixed = lvlm.preprocess(Image.new("RGB", (640, 480), "gray"), fixed=True)
    assert (
        fixed.tokens == side**2
        and lvlm._prompt_text(Question(PROMPT), features, (0, 0)).count("<image>") == features
    )


@pytest.fixture(scope="module", params=["Idefics3-8B-Llama3", "SmolVLM-Instruct"])
def large(request: pytest.FixtureRequest) -> Idefics3:
    return published(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_lie_where_the_processor_puts_them(large: Idefics3, size: tuple[int, int]) -> None:
    prepared, processor = large.preprocess(ramp(*size)), large.processor.image_processor
    patches, rows, cols = processor.get_number_of_image_patches(size[1], size[0])
    assert patches == prepared.pixel_values.shape[1] == 1 + len(prepared.scales)
    assert prepared.inputs["layout"].tolist() == [[rows, cols]]
    tolerance = 3 if min(size) > 60 else 20
    grids = [*(scale.grid for scale in prepared.scales), prepared.grid]
    for values, grid in zip(prepared.pixel_values[0], grids, strict=True):
        assert astray(values, grid, 14, processor) < tolerance
    left = [scale.grid.covered.left for scale in prepared.scales]
    assert left == pytest.approx([size[0] / cols * col for _ in range(rows) for col in range(cols)])


def test_a_tower_leaves_out_the_rest_at_a_tiles_edge() -> None:
    """384 = 27 * 14 + 6: the boxes end where the last patch does."""
    prepared = published("SmolVLM-Instruct").preprocess(Image.new("RGB", (768, 384), "gray"))
    assert prepared.inputs["layout"].tolist() == [[2, 4]]
    box = prepared.scales[1].grid.covered
    assert (box.left, box.top) == (192, 0)
    assert (box.right, box.bottom) == pytest.approx((192 + 192 * 378 / 384, 192 * 378 / 384))
    assert prepared.grid.covered.right == pytest.approx(768 * 378 / 384)


@pytest.mark.parametrize("layout", [(0, 0), (1, 2), (3, 2)])
def test_tiles_are_announced_as_the_processors_do(layout: tuple[int, int]) -> None:
    rows, cols = layout
    for name in ("large", "second"):
        lvlm = made(f"idefics3/{name}").lvlm
        count = lvlm.processor.image_seq_len
        text = lvlm._prompt_text(Question(PROMPT), count * (rows * cols + 1), layout)
        theirs = get_image_prompt_string(
            rows, cols, count, "<fake_token_around_image>", "<image>", "<global-img>"
        )
        assert text == lvlm.prompt_text(PROMPT).replace("<image>", theirs)
        fewer = lvlm._prompt_text(Question(PROMPT), rows * cols + 1, layout)
        assert fewer == text.replace("<image>" * count, "<image>")
        assert "<image>" not in lvlm._prompt_text(Question(PROMPT, picture=False), 0, (0, 0))


def test_published_forms_of_a_prompt() -> None:
    large, second = made("idefics3/large").lvlm, made("idefics3/second").lvlm
    assert large.prompt_text(PROMPT) == "User:<image>What is it?<end_of_utterance>\nAssistant:"
    assert second.prompt_text(PROMPT, picture=False) == (
        "<|im_start|>User: What is it?<end_of_utterance>\nAssistant:"
    )
    assert second.prompt_text(PROMPT, "a cat") == (
        "<|im_start|>System: a cat<end_of_utterance>\nUser:<image>What is it?<end_of_utterance>\nAssistant:"
    )


@pytest.mark.parametrize("name", ["large", "second"])
def test_a_folder_opens_and_answers_the_same(name: str, tmp_path: Path) -> None:
    """Saved part by part, as the hub has it; SmolVLM 2 names a processor that needs packages for films."""
    lvlm = made(f"idefics3/{name}").lvlm
    lvlm.model.save_pretrained(tmp_path)
    lvlm.processor.tokenizer.save_pretrained(tmp_path)
    lvlm.processor.image_processor.save_pretrained(tmp_path)
    kind = "SmolVLMProcessor" if name == "second" else "Idefics3Processor"
    settings = {"processor_class": kind, "image_seq_len": 169}  # as some have it, wrongly
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    opened = open_lvlm(tmp_path)
    assert opened.family == ("smolvlm" if name == "second" else "idefics3")
    assert isinstance(opened, Idefics3) and opened.prompt_text(PROMPT) == lvlm.prompt_text(PROMPT)
    image = picture(3, (130, 60))
    plain = lvlm.answer_plain(image, PROMPT, 6)
    assert opened.answer_plain(image, PROMPT, 6) == plain
    prepared = opened.preprocess(image)
    ready = opened.features(opened.tower(prepared.pixel_values, 1, prepared)[0], 1, prepared)
    assert opened.generate(ready, PROMPT, 6, prepared) == plain


def test_without_splitting_a_picture_is_seen_once() -> None:
    """As people set it who want short prompts."""
    lvlm = made("idefics3/large").lvlm
    processor = Idefics3Processor(images(28, 2), lvlm.processor.tokenizer, 4)
    processor.image_processor.do_image_splitting = False
    processor.chat_template = lvlm.processor.chat_template
    once, image = Idefics3(lvlm.model, processor, "once"), picture(6, (150, 70))
    prepared = once.preprocess(image)
    assert not prepared.scales and prepared.alike(once.preprocess(picture(1), fixed=True))
    ready = once.features(once.tower(prepared.pixel_values, 2, prepared)[0], 2, prepared)
    assert once.generate(ready, PROMPT, 6, prepared) == once.answer_plain(image, PROMPT, 6)


def test_the_image_processor_of_another_model_is_refused() -> None:
    lvlm = made("idefics3/large").lvlm
    other = Idefics3Processor(images(35, 2), lvlm.processor.tokenizer, 4)
    with pytest.raises(ModelError, match=r"2 x 2 patches, but the tiles .* have 5 x 5"):
        Idefics3(lvlm.model, other, "other")
