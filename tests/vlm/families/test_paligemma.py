"""What is special about PaliGemma: its prompt looks ahead, positions from 1, its form of prompt; files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

from explorer.vlm import open_lvlm
from explorer.vlm.adapter import Question
from explorer.vlm.base import Asked
from explorer.vlm.families.paligemma import PaliGemma
from explorer.vlm.memory import Memory
from tests.vlm.families.made import made

NAMES = ("paligemma/first", "paligemma/second")


@pytest.mark.parametrize("name", NAMES)
def test_opened_from_a_folder_it_answers_alike(name: str, tmp_path: Path) -> None:
    lvlm = made(name).lvlm
    lvlm.model.save_pretrained(tmp_path)
    lvlm.processor.save_pretrained(tmp_path)
    opened = open_lvlm(tmp_path)
    opened.model.generation_config.eos_token_id = None
    image = Image.effect_noise((60, 40), 80).convert("RGB")
    assert isinstance(opened, PaliGemma)
    assert opened.answer_plain(image, "What is it?", 6) == lvlm.answer_plain(image, "What is it?", 6) != ""


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_processor(name: str) -> None:
    lvlm = made(name).lvlm
    image = Image.new("RGB", (50, 50), "red")
    for prompt in ("What is it?", "the red cat"):
        theirs = lvlm.processor(images=[image], text=[f"<image>{prompt}"], return_tensors="pt")["input_ids"]
        assert torch.equal(lvlm._ids(Question(prompt), 16, 4, None)[None], theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_prompt_is_seen_by_its_beginning(name: str) -> None:
    """So the keys of a beginning are worth nothing for another prompt, and nothing is kept of them."""
    lvlm = made(name).lvlm
    prepared = lvlm.preprocess(Image.effect_noise((60, 40), 80).convert("RGB"))
    features = lvlm.features(lvlm.tower(prepared.pixel_values, 3, prepared)[0], 3, prepared)[None]
    read = []
    for prompt in ("the red cat", "the red dog"):
        question = Question(prompt)
        ids = lvlm._ids(question, 16, 4, prepared)
        rows = lvlm._rows(question, ids, features, prepared)
        read.append(lvlm._side.run(rows, lvlm._positions(ids, prepared), None, len(ids))[0, :16])
    assert not torch.allclose(*read)
    memory = Memory()
    list(lvlm.decode([Asked("the red cat", features[0], like=prepared)], 4, None, memory))
    assert memory.readings == () and memory.drafts


def test_the_published_shapes() -> None:
    """google/paligemma-3b-mix-224 and paligemma2-3b-mix-448, without weights."""
    tower = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14}
    tower |= {"num_attention_heads": 16, "vision_use_head": False}
    texts = {
        224: GemmaConfig(vocab_size=257216, num_hidden_layers=18, hidden_size=2048, num_key_value_heads=1),
        448: Gemma2Config(vocab_size=257216, num_hidden_layers=26, hidden_size=2304, sliding_window=4096),
    }
    for side, text in texts.items():
        processor = made(NAMES[0]).lvlm.processor
        before, processor.image_processor.size = (
            processor.image_processor.size,
            {"height": side, "width": side},
        )
        config = PaliGemmaConfig(
            vision_config=SiglipVisionConfig(image_size=side, **tower).to_dict(),
            text_config=text.to_dict(),
            image_token_index=257152,
            projection_dim=text.hidden_size,
        )
        try:
            with torch.device("meta"):
                lvlm = PaliGemma(PaliGemmaForConditionalGeneration(config), processor, "published@0")
            prepared = lvlm.preprocess(Image.new("RGB", (640, 480)))
        finally:
            processor.image_processor.size = before
        assert (lvlm.block_count, lvlm.read_block, lvlm.width(26)) == (27, 26, 1152) and not lvlm.has_cls
        assert (prepared.grid.rows, prepared.grid.cols) == (side // 14, side // 14)
        assert prepared.grid.covered == (0, 0, 640, 480) and lvlm.text_layers == text.num_hidden_layers
