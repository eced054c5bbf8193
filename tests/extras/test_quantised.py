"""A model with its language side in 8 and in 4 bits. Needs `bitsandbytes`, which works on a CPU too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from explorer.errors import ModelError
from explorer.records import Edit
from explorer.sae import SAE, ActivationRule
from explorer.session import Session
from explorer.session.machine import running
from explorer.vlm import open_lvlm
from explorer.vlm.families.llava import Llava
from explorer.vlm.loading import Loading
from explorer.vlm.loading.memory import need_of, on_meta
from explorer.vlm.synthetic import Shape, random_llava


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA whose matrices are as wide as a block of 4-bit weights, at least."""
    made = random_llava(Shape(32, 8, 3, 64, 128, 2, 128, 256, 60))
    place = tmp_path_factory.mktemp("model") / "wide"
    made.model.save_pretrained(place)
    made.processor.save_pretrained(place)
    return place


@pytest.fixture(scope="module", params=["8bit", "4bit"])
def opened(request: pytest.FixtureRequest, folder: Path) -> Llava:
    return open_lvlm(folder, loading=Loading(quantize=request.param, dtype="float32"))


def picture() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB")


def test_what_the_sae_sees_keeps_its_values(opened: Llava, folder: Path) -> None:
    plain = open_lvlm(folder)
    prepared = plain.preprocess(picture())
    for block in (0, opened.read_block):
        hidden = plain.tower(prepared.pixel_values, block, prepared)
        assert torch.equal(opened.tower(prepared.pixel_values, block, prepared), hidden)
        assert torch.equal(opened.features(hidden, block, prepared), plain.features(hidden, block, prepared))
    kinds = {type(one).__name__ for one in opened.model.get_decoder().layers.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"} and "Linear" not in kinds
    assert type(opened.model.lm_head) is torch.nn.Linear
    assert (opened.model_id, opened.text_size) == (plain.model_id, plain.text_size)


def test_answers_are_the_models_own(opened: Llava) -> None:
    prepared = opened.preprocess(picture())
    block = opened.read_block
    ready = opened.features(opened.tower(prepared.pixel_values, block, prepared)[0], block, prepared)
    plain = opened.answer_plain(picture(), "what", 8)
    assert opened.generate(ready, "what", 8, prepared) == plain != ""
    assert opened.generate_many(ready[None], "what", 8, prepared) == [plain]


def test_it_takes_as_much_as_was_reckoned(opened: Llava) -> None:
    bits = running(opened, SAE(*[torch.ones(1, 1), torch.ones(1)] * 2, ActivationRule("topk", k=1))).quantized
    bare = on_meta(LlavaForConditionalGeneration, opened.model.config.__class__(**_shape(opened)))
    needed = need_of(bare, torch.float32, bits).weights
    held = sum(weight.numel() * weight.element_size() for weight in opened.model.parameters())
    assert held <= needed <= 1.2 * held


def _shape(opened: Llava) -> dict:
    shape = opened.model.config.to_dict()
    shape.pop("quantization_config", None)
    return shape


def test_words_rest_on_gradients_where_there_are_any(opened: Llava) -> None:
    prepared = opened.preprocess(picture())
    hidden = opened.tower(prepared.pixel_values, 1, prepared)[0]
    answer = opened.answer_plain(picture(), "what", 4)
    words = opened.answer_words(answer)
    if getattr(opened.model, "is_loaded_in_4bit", False):
        with pytest.raises(ModelError, match="no gradients through 4 bits on the CPU"):
            opened.word_gradients(hidden, 1, "what", answer, words, prepared)
    else:
        found = opened.word_gradients(hidden, 1, "what", answer, words, prepared)
        assert float(found.gradients.abs().max()) > 0


def test_a_session_steers_it(folder: Path, tmp_path: Path) -> None:
    rows = torch.nn.functional.normalize(
        torch.randn(12, 64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    SAE(rows.T.clone(), torch.zeros(12), rows, torch.zeros(64), ActivationRule("topk", k=4)).save(
        tmp_path / "s"
    )
    session = Session.open(folder, tmp_path / "s", quantize="4bit")
    assert running(session.lvlm, session.sae).words() == "cpu, float32, 4bit"
    view = session.look(picture())
    edits = [Edit(view.top(1)[0].neuron, 60.0, "set")]
    assert session.answer(view, "what", edits, max_new_tokens=6) != session.answer(
        view, "what", max_new_tokens=6
    )
