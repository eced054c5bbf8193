"""Folders of Qwen's models, laid out as checkpoints are published: they open without torchvision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.families.qwen import CHAT, Qwen
from explorer.vlm.loading import Loading
from tests.vlm.families.made import made
from tests.vlm.families.made_qwen import NEW, OLD
from tests.vlm.families.test_contract import PROMPT, picture, seen

NAMES = {
    "qwen/qwen2": ("Qwen2VLProcessor", "Qwen2VLImageProcessor", OLD),
    "qwen/qwen2_5": ("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", OLD),
    "qwen/qwen3": ("Qwen3VLProcessor", "Qwen2VLImageProcessorFast", NEW),
    "qwen/qwen3_experts": ("Qwen3VLProcessor", "Qwen2VLImageProcessorFast", NEW),
}


def published(lvlm: Qwen, folder: Path, name: str) -> None:
    """The files that lie on the hub; the chat template in one of its own."""
    processor, images, settings = NAMES[name]
    lvlm.model.save_pretrained(folder)
    lvlm.processor.tokenizer.save_pretrained(folder)
    known = {"image_processor_type": images, "processor_class": processor, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(known))
    video = {**known, "video_processor_type": "Qwen3VLVideoProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT}))


def answers_alike(folder: Path, lvlm: Qwen) -> Qwen:
    """The model in a folder, once it was seen to answer as the one it was saved from."""
    opened = open_lvlm(folder)
    assert type(opened) is type(lvlm) and opened.model_id.startswith(f"{folder.name}@")
    image = picture(1, (150, 70))
    prepared, hidden = seen(opened, image, opened.read_block)
    text = opened.generate(opened.features(hidden, opened.read_block, prepared), PROMPT, 6, prepared)
    assert text == opened.answer_plain(image, PROMPT, 6) == lvlm.answer_plain(image, PROMPT, 6) != ""
    return opened


@pytest.mark.parametrize("name", NAMES)
def test_a_published_folder_opens(name: str, tmp_path: Path) -> None:
    lvlm = made(name).lvlm
    published(lvlm, tmp_path, name)
    opened = answers_alike(tmp_path, lvlm)
    assert opened.processor.image_processor.size == lvlm.processor.image_processor.size
    assert type(opened.processor.image_processor).__name__ == "Qwen2VLImageProcessorPil"
    assert not hasattr(opened.processor, "video_processor")


@pytest.mark.parametrize("name", ["qwen/qwen2_5", "qwen/qwen3"])
def test_a_folder_that_transformers_saved_opens(name: str, tmp_path: Path) -> None:
    """As one file with all settings, those of a video processor among them."""
    lvlm = made(name).lvlm
    lvlm.model.save_pretrained(tmp_path)
    lvlm.processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["processor_class"] = NAMES[name][0]
    settings["video_processor"] = {"video_processor_type": "Qwen3VLVideoProcessor", "merge_size": 2}
    path.write_text(json.dumps(settings))
    answers_alike(tmp_path, lvlm)


@pytest.mark.parametrize("name", ["qwen/qwen2", "qwen/qwen2_5"])
def test_weights_under_their_first_names_open(name: str, tmp_path: Path) -> None:
    """Qwen2-VL and Qwen2.5-VL came out as "visual.*" and "model.*", and with one flat config."""
    lvlm = made(name).lvlm
    published(lvlm, tmp_path, name)
    path = tmp_path / "model.safetensors"
    old = {
        key.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value
        for key, value in load_file(path).items()
    }
    save_file(old, path, {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    text = config.pop("text_config")
    text.pop("model_type"), text.pop("layer_types", None)
    text["rope_scaling"] = {"type": "mrope", "mrope_section": text.pop("rope_parameters")["mrope_section"]}
    config["vision_config"]["model_type"] = config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps({**text, "rope_theta": 1000000.0, **config}))
    answers_alike(tmp_path, lvlm)


def test_without_a_template_the_published_form_is_taken(tmp_path: Path) -> None:
    lvlm = made("qwen/qwen2").lvlm
    published(lvlm, tmp_path, "qwen/qwen2")
    (tmp_path / "chat_template.json").unlink()
    answers_alike(tmp_path, lvlm)
    tokenizer = lvlm.processor.tokenizer
    try:
        tokenizer.chat_template = CHAT.replace("a helpful assistant", "the red cat")
        tokenizer.save_pretrained(tmp_path)
    finally:
        tokenizer.chat_template = None
    assert "You are the red cat." in open_lvlm(tmp_path).prompt_text(PROMPT)


def test_half_a_folder_is_refused(tmp_path: Path) -> None:
    lvlm = made("qwen/qwen3").lvlm
    published(lvlm, tmp_path, "qwen/qwen3")
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    gone = "model.visual.deepstack_merger_list.1.linear_fc1.weight"
    save_file({key: value for key, value in weights.items() if key != gone}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=f"lack 1 tensors, {gone}"):
        open_lvlm(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="its processor"):
        open_lvlm(tmp_path)


@pytest.mark.parametrize("name", ["qwen/qwen2_5", "qwen/qwen3"])
def test_large_pictures_are_scaled_down_when_asked(name: str, tmp_path: Path) -> None:
    lvlm = made(name).lvlm
    published(lvlm, tmp_path, name)
    large = picture(2, (400, 300))
    free = open_lvlm(tmp_path).preprocess(large).grid
    images = lvlm.processor.image_processor
    wished = max(int(images.size["shortest_edge"]), 40 * images.patch_size**2)
    held = open_lvlm(tmp_path, loading=Loading(max_pixels=wished))
    grid = held.preprocess(large).grid
    assert (
        grid.rows * grid.cols * images.patch_size**2 <= wished < free.rows * free.cols * images.patch_size**2
    )
    assert (grid.width, grid.height) == (400, 300)
    prepared, hidden = seen(held, large, held.read_block)
    text = held.generate(held.features(hidden, held.read_block, prepared), PROMPT, 4, prepared)
    assert text == held.answer_plain(large, PROMPT, 4)
    with pytest.raises(ModelError, match="5 pixels are too few"):
        open_lvlm(tmp_path, loading=Loading(max_pixels=5))


def test_other_families_have_no_such_limit(tiny_lvlm_folder: Path) -> None:
    with pytest.raises(ModelError, match="leave out --max-pixels"):
        open_lvlm(tiny_lvlm_folder, loading=Loading(max_pixels=100_000))
