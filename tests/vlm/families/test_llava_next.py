"""LLaVA-NeXT: where its tiles lie, which of their patches the text is given, published settings, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.families.llava_next import LlavaNext, template_of
from tests.vlm.families.made import made
from tests.vlm.families.made_llava_next import images
from tests.vlm.families.ramps import astray, ramp
from tests.vlm.families.test_contract import PROMPT, picture
from tests.vlm.families.tokens import word_tokenizer

PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
VISION = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
TEXTS = {
    "vicuna-7b": {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
    "vicuna-13b": {
        "model_type": "llama",
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_hidden_layers": 40,
        "num_key_value_heads": 40,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
    },
    "mistral-7b": {
        "model_type": "mistral",
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 8,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "vocab_size": 32064,
    },
    "34b": {
        "model_type": "llama",
        "hidden_size": 7168,
        "intermediate_size": 20480,
        "max_position_embeddings": 4096,
        "num_attention_heads": 56,
        "num_hidden_layers": 60,
        "num_key_value_heads": 8,
        "rope_theta": 5000000.0,
        "vocab_size": 64064,
    },
}
"""What the config files of llava-hf/llava-v1.6-* say of their text models."""


def published(name: str) -> LlavaNext:
    """The model of a published config, without weights, and its processor with a tokenizer of few words."""
    with torch.device("meta"):
        config = LlavaNextConfig(
            vision_config=VISION,
            text_config=TEXTS[name],
            image_token_index=4,
            image_grid_pinpoints=PUBLISHED,
        )
        model = LlavaNextForConditionalGeneration(config)
    processor = LlavaNextProcessor(
        images(336, PUBLISHED), word_tokenizer(), 14, "default", num_additional_image_tokens=1
    )
    processor.chat_template = template_of(processor, TEXTS[name]["model_type"])
    return LlavaNext(model, processor, name)


@pytest.mark.parametrize("name", list(TEXTS))
def test_published_sizes(name: str) -> None:
    lvlm = published(name)
    assert (lvlm.block_count, lvlm.read_block, lvlm.width(22), lvlm.has_cls) == (24, 22, 1024, True)
    with pytest.raises(ModelError, match="block 23 cannot matter"):
        lvlm.width(23)
    assert lvlm._decoder.croppable and lvlm.preprocessing.startswith("squash to 336 x 336")
    wide = lvlm.preprocess(Image.new("RGB", (1000, 300)))
    assert (wide.grid.rows, wide.grid.cols, wide.tokens, len(wide.scales)) == (24, 24, 4 * 577, 3)
    assert lvlm.preprocess(Image.new("RGB", (640, 480)), fixed=True).tokens == 577


SIZES = (
    *((336, 336), (640, 480), (480, 640), (1000, 300), (300, 1000), (37, 512), (512, 37), (2000, 1999)),
    *((8, 8), (333, 334), (1345, 672), (671, 1343), (1008, 337), (999, 1001)),
)


@pytest.fixture(scope="module")
def large() -> LlavaNext:
    return published("mistral-7b")


@pytest.mark.parametrize("size", SIZES)
def test_as_many_features_as_the_processor_counts(large: LlavaNext, size: tuple[int, int]) -> None:
    """The patches of the tiles that the text is given, by the model's own packing, on the meta device."""
    prepared = large.preprocess(Image.new("RGB", size))
    tiles = torch.zeros(1, 1 + len(prepared.scales), 576, 3)
    newline = torch.zeros(3)
    packed, _ = large._core.pack_image_features(
        list(tiles), prepared.inputs["image_sizes"], "default", newline
    )
    counted = large.processor._get_num_multimodal_tokens([(size[1], size[0])])["num_image_tokens"]
    assert [len(packed[0])] == counted
    shares = large._shares(torch.ones(1, len(packed[0])), prepared)
    kept = int(shares.sum())
    lines = len(packed[0]) - kept
    assert shares.shape == (1, 1 + len(prepared.scales), 576) and (kept - 576) % lines == 0
    laid = large._over_patches(torch.ones(1, len(packed[0])), prepared)
    torch.testing.assert_close(laid.sum(), torch.tensor(float(kept)), atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_lie_where_the_processor_puts_them(large: LlavaNext, size: tuple[int, int]) -> None:
    """The margin is black."""
    prepared, processor = large.preprocess(ramp(*size)), large.processor.image_processor
    tolerance = 3 if min(size) > 60 else 20
    grids = [prepared.grid, *(scale.grid for scale in prepared.scales)]
    for values, grid in zip(prepared.pixel_values[0], grids, strict=True):
        assert astray(values, grid, 14, processor) < tolerance


def test_the_boxes_of_tiles_reach_beyond_the_picture(large: LlavaNext) -> None:
    """1000 x 300 in 336 x 1008: three tiles side by side, margins of 16 model pixels above and below."""
    scales = large.preprocess(Image.new("RGB", (1000, 300))).scales
    across, down = 1000 / 1008, 300 / 303
    assert [scale.grid.covered.left for scale in scales] == pytest.approx([0, 336 * across, 672 * across])
    assert scales[0].grid.covered.top == pytest.approx(-16 * down)
    assert scales[0].grid.covered.bottom == pytest.approx(320 * down)


def test_published_forms_of_a_prompt() -> None:
    """As the cards of the checkpoints show them."""

    def form(marks: tuple[str, ...], text: str) -> str:
        processor = LlavaNextProcessor(images(), word_tokenizer(marks), 8, "default")
        processor.chat_template = template_of(processor, text)
        turn = {"role": "user", "content": [{"type": "text", "text": PROMPT}, {"type": "image"}]}
        return processor.apply_chat_template([turn], add_generation_prompt=True)

    assert form((), "mistral") == "[INST] <image>\nWhat is it? [/INST]"
    assert form(("<|im_start|>", "<|im_end|>"), "llama") == (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is it?<|im_end|>"
        "<|im_start|>assistant\n"
    )
    assert form(("<|start_header_id|>", "<|end_header_id|>"), "llama") == (
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert form((), "llama") == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the human's questions. "
        "USER: <image>\nWhat is it? ASSISTANT:"
    )


def test_a_folder_opens_and_answers_the_same(tmp_path: Path) -> None:
    """Saved as the hub's folders are, the processor's settings in an older form without sizes."""
    lvlm = made("llava_next/mistral").lvlm
    lvlm.model.save_pretrained(tmp_path)
    lvlm.processor.save_pretrained(tmp_path)
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (tmp_path / name).is_file():
            settings = json.loads((tmp_path / name).read_text())
            for old in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
                settings.pop(old, None)
            (tmp_path / name).write_text(json.dumps(settings))
    opened = open_lvlm(tmp_path)
    assert opened.family == "llava_next" and isinstance(opened, LlavaNext)
    image = picture(3, (130, 60))
    assert opened.answer_plain(image, PROMPT, 6) == lvlm.answer_plain(image, PROMPT, 6)
    prepared = opened.preprocess(image)
    hidden = opened.tower(prepared.pixel_values, 1, prepared)
    ready = opened.features(hidden[0], 1, prepared)
    assert opened.generate(ready, PROMPT, 6, prepared) == lvlm.answer_plain(image, PROMPT, 6)


def test_several_layers_at_once_are_refused() -> None:
    """As granite-vision reads its tower."""
    lvlm = made("llava_next/vicuna").lvlm
    model, layer = lvlm.model, lvlm.model.config.vision_feature_layer
    try:
        model.config.vision_feature_layer = [-3, -1]
        with pytest.raises(ModelError, match="several blocks at once"):
            LlavaNext(model, lvlm.processor, "granite")
    finally:
        model.config.vision_feature_layer = layer


def test_the_margin_of_a_tile_is_no_part_of_the_picture() -> None:
    """A thin picture: most of a tile's patches lie outside it, and masks find none of them."""
    prepared = made("llava_next/vicuna").lvlm.preprocess(picture(1, (160, 20)))
    outside = [
        scale.grid.box_of(row, col)
        for scale in prepared.scales
        for row in range(4)
        for col in range(4)
        if not -1e-6 < (scale.grid.box_of(row, col).top + scale.grid.box_of(row, col).bottom) / 2 < 20
    ]
    assert outside
    for box in outside:
        assert prepared.grid.patch_at((box.left + box.right) / 2, (box.top + box.bottom) / 2) is None


def test_attention_to_the_squashed_view_alone_lies_as_it_is() -> None:
    """What is given to the feature behind it is left out."""
    lvlm = made("llava_next/vicuna").lvlm
    alone = lvlm.preprocess(picture(1, (90, 40)), fixed=True)
    hidden = lvlm.tower(alone.pixel_values, 0, alone)[0]
    looks = torch.arange(1.0 + len(lvlm.features(hidden, 0, alone)))[None, 1:]
    assert torch.equal(lvlm._over_patches(looks, alone), looks[:, :-1])


def test_a_line_of_a_picture_has_no_tiles_to_read(large: LlavaNext) -> None:
    """2000 x 2: the text is given the squashed view alone."""
    prepared = large.preprocess(Image.new("RGB", (2000, 2)))
    tiles = torch.zeros(1, 1 + len(prepared.scales), 576, 3)
    packed, _ = large._core.pack_image_features(
        list(tiles), prepared.inputs["image_sizes"], "default", torch.zeros(3)
    )
    assert packed[0].shape == (576, 3)
    laid = large._over_patches(torch.ones(2, 576), prepared)
    assert laid.shape == (2, 576) and float(laid.min()) == float(laid.max()) == 1
    assert large.preprocess(Image.new("RGB", (1, 3000)), fixed=True).tokens == 577


def test_the_image_processor_of_another_model_is_refused() -> None:
    lvlm = made("llava_next/vicuna").lvlm
    other = LlavaNextProcessor(images(48, [[48, 96]]), lvlm.processor.tokenizer, 8, "default")
    with pytest.raises(ModelError, match=r"reads tiles of 32 x 32 pixels, .* makes them 48 x 48"):
        LlavaNext(lvlm.model, other, "other")
