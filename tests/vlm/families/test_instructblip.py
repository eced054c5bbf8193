"""What is special about InstructBLIP: the prompt goes through the Q-Former; T5 is refused; files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    T5Config,
)

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.adapter import Question
from explorer.vlm.families.instructblip import InstructBlip
from tests.vlm.families.made import made
from tests.vlm.families.made_instructblip import parts

NAME = "instructblip/vicuna"


def test_opened_from_a_folder_it_answers_alike(tmp_path: Path) -> None:
    lvlm = made(NAME).lvlm
    lvlm.model.save_pretrained(tmp_path)
    lvlm.processor.save_pretrained(tmp_path)
    opened = open_lvlm(tmp_path)
    image = Image.effect_noise((60, 40), 80).convert("RGB")
    texts = []
    for one in (lvlm, opened):
        prepared = one.preprocess(image)
        hidden = one.tower(prepared.pixel_values, 2, prepared)[0]
        one.model.language_model.generation_config.eos_token_id = None
        texts.append(one.generate(one.features(hidden, 2, prepared), "What is it?", 8, prepared))
    assert isinstance(opened, InstructBlip) and texts[0] == texts[1] != ""


def test_prompt_and_preface_reach_the_q_former() -> None:
    lvlm = made(NAME).lvlm
    features = torch.randn(1, 17, 48, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([lvlm.model.config.image_token_id] * 6)
    read = [lvlm._rows(Question(*asked), ids, features, None) for asked in (("yes",), ("no",), ("no", "red"))]
    assert not torch.allclose(read[0], read[1]) and not torch.allclose(read[1], read[2])
    assert torch.equal(read[0], lvlm._rows(Question("yes"), ids, features, None))


def test_ids_are_those_of_the_processor() -> None:
    lvlm = made(NAME).lvlm
    image = Image.new("RGB", (50, 50), "red")
    for prompt in ("What is it?", "", "the red cat"):
        theirs = lvlm.processor(images=[image], text=[prompt], return_tensors="pt")["input_ids"]
        assert torch.equal(lvlm._ids(Question(prompt), 6, 4, None)[None], theirs)


def test_an_encoder_decoder_is_refused() -> None:
    model, processor = parts()
    config = InstructBlipConfig(
        vision_config=model.config.vision_config.to_dict(),
        qformer_config=model.config.qformer_config.to_dict(),
        text_config=T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2).to_dict(),
        num_query_tokens=6,
    )
    with pytest.raises(ModelError, match=r"encoder-decoder 't5'.*instructblip-vicuna-7b"):
        InstructBlip(InstructBlipForConditionalGeneration(config), processor, "t5@0")


def test_the_published_shape() -> None:
    """Salesforce/instructblip-vicuna-7b, without weights: 39 blocks of width 1408 on 16 x 16 patches."""
    _, processor = parts()
    processor.image_processor.size = {"height": 224, "width": 224}
    config = InstructBlipConfig(
        vision_config={
            "hidden_size": 1408,
            "intermediate_size": 6144,
            "num_hidden_layers": 39,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
        },
        qformer_config={"vocab_size": 30523, "encoder_hidden_size": 1408, "cross_attention_frequency": 2},
        text_config=LlamaConfig(vocab_size=32001, max_position_embeddings=2048).to_dict(),
        num_query_tokens=32,
        image_token_index=32000,
    )
    with torch.device("meta"):
        lvlm = InstructBlip(InstructBlipForConditionalGeneration(config), processor, "published@0")
    prepared = lvlm.preprocess(Image.new("RGB", (640, 480)))
    assert (lvlm.block_count, lvlm.read_block, lvlm.width(38)) == (39, 38, 1408)
    assert (prepared.grid.rows, prepared.grid.cols, prepared.tokens) == (16, 16, 257)
    assert prepared.grid.covered == (0, 0, 640, 480) and lvlm.text_layers == 32
    assert lvlm._image_tokens(torch.zeros(257, 1408)) == 32
