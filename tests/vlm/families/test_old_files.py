"""Folders with the files that published checkpoints have, old ones and new ones: they open and answer alike.

What they imitate, confirmed against published files: LLaVA's config has `image_token_index`, `torch_dtype`
and no `image_seq_length`; its weights are named `language_model.model.*` and `vision_tower.vision_model.*`;
InstructBLIP's language model says that texts end with token 1, and PaliGemma 2's names a `hybrid` cache;
InternVL's config says nothing of `tie_word_embeddings`, and its head has weights of its own. Names like
`model.vision_tower.vision_model.*` are from memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.adapter import Adapter
from explorer.vlm.families.internvl import TEMPLATE
from explorer.vlm.loading.memory import on_meta
from tests.vlm.families.made import made
from tests.vlm.families.test_contract import PROMPT, picture, seen

ONE_OF_EACH = (
    "llava/clip",
    "llava_next/mistral",
    "instructblip/vicuna",
    "paligemma/second",
    "idefics3/rest",
    "internvl/qwen2",
    "qwen/qwen3",
)
BOXED = ("llava/clip", "llava_next/mistral", "paligemma/second")
"""Families whose tower once lay in a box of its own, `vision_model`."""


def saved(name: str, folder: Path) -> Adapter:
    """Part by part: no file of the processor as a whole, and no chat template."""
    lvlm = made(name).lvlm
    lvlm.model.save_pretrained(folder)
    if name.startswith("instructblip"):
        lvlm.processor.save_pretrained(folder)
    else:
        lvlm.processor.tokenizer.save_pretrained(folder)
        lvlm.processor.image_processor.save_pretrained(folder)
    return lvlm


def answers_alike(folder: Path, lvlm: Adapter) -> Adapter:
    """The model in a folder, once it was seen to answer as the one it was saved from."""
    opened, image = open_lvlm(folder), picture(1, (150, 70))
    prepared, hidden = seen(opened, image, opened.read_block)
    text = opened.generate(opened.features(hidden, opened.read_block, prepared), PROMPT, 6, prepared)
    assert text == opened.answer_plain(image, PROMPT, 6) == lvlm.answer_plain(image, PROMPT, 6) != ""
    return opened


def config_of(folder: Path, change: Callable[[dict], None]) -> None:
    """Change its config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def named(folder: Path, names: Callable[[str], str], weights: dict[str, torch.Tensor]) -> None:
    """Its weights under other names."""
    save_file({names(name): value for name, value in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize("name", BOXED)
def test_weights_under_all_names_they_ever_had(name: str, tmp_path: Path) -> None:
    lvlm = saved(name, tmp_path)
    first = load_file(tmp_path / "model.safetensors")
    assert any(key.startswith("language_model.model.layers") for key in first)
    named(tmp_path, lambda key: re.sub(r"^vision_tower\.", "vision_tower.vision_model.", key), first)
    answers_alike(tmp_path, lvlm)
    now = {name: value.clone() for name, value in lvlm.model.state_dict().items()}
    named(tmp_path, lambda key: key, now)
    answers_alike(tmp_path, lvlm)
    box = r"model.vision_tower.vision_model."
    named(tmp_path, lambda key: re.sub(r"^model\.vision_tower\.(?!vision_model)", box, key), now)
    answers_alike(tmp_path, lvlm)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bare_folders_with_pieces_in_bin_and_old_words(name: str, tmp_path: Path) -> None:
    lvlm = saved(name, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    places = {key: f"pytorch_model-0000{1 + at % 2}-of-00002.bin" for at, key in enumerate(sorted(weights))}
    for file in set(places.values()):
        torch.save({key: weights[key] for key in places if places[key] == file}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    def old(config: dict) -> None:
        config["torch_dtype"] = config.pop("dtype", "float32")
        if name.startswith(("llava", "instructblip")) and "image_token_id" in config:
            config["image_token_index"] = config.pop("image_token_id")
        if name.startswith("llava"):
            for word in ("image_seq_length", "multimodal_projector_bias", "vision_feature_layer"):
                config.pop(word, None)
            config.pop("vision_feature_select_strategy", None)

    config_of(tmp_path, old)
    opened = answers_alike(tmp_path, lvlm)
    assert opened.read_block == lvlm.read_block and opened.prompt_text(PROMPT) == lvlm.prompt_text(PROMPT)


def test_instructblip_ends_where_its_tokenizer_says(tmp_path: Path) -> None:
    """The published language model's config says bos 0, eos 1 and pad -1; it writes "</s>", token 2."""
    lvlm = saved("instructblip/vicuna", tmp_path)

    def wrong(config: dict) -> None:
        config["text_config"] |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}

    config_of(tmp_path, wrong)
    opened = open_lvlm(tmp_path)
    assert opened._settings().eos_token_id == [1, 2] and opened._padding() >= 0
    prepared, hidden = seen(opened, picture(), opened.read_block)
    ready = opened.features(hidden, opened.read_block, prepared)
    words = lvlm.answer_plain(picture(), PROMPT, 6).split()
    third = opened.processor.tokenizer.convert_tokens_to_ids(words[2])
    head = opened.model.language_model.lm_head.weight.data
    head[2] = head[third] * 1.01  # where the third word came, the answer ends now
    ended = opened.generate(ready, PROMPT, 6, prepared)
    assert ended == opened.answer_plain(picture(), PROMPT, 6) and len(ended.split()) < len(words)
    assert opened.generate_many(torch.stack([ready, -ready]), PROMPT, 6, prepared)[0] == ended


def test_a_hybrid_cache_as_paligemma_2_asks_for(tmp_path: Path) -> None:
    lvlm = saved("paligemma/second", tmp_path)
    config_of(tmp_path, lambda config: config["text_config"].update(cache_implementation="hybrid"))
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"cache_implementation": "hybrid", "pad_token_id": 0}))
    answers_alike(tmp_path, lvlm)


def test_internvls_early_template_says_image(tmp_path: Path) -> None:
    """Confirmed against an early revision; its processor has looked for <IMG_CONTEXT> since."""
    lvlm = saved("internvl/qwen2", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE.replace("<IMG_CONTEXT>", "<image>"))
    assert answers_alike(tmp_path, lvlm).prompt_text(PROMPT) == lvlm.prompt_text(PROMPT)


def test_a_template_that_leaves_the_picture_out_is_refused(tmp_path: Path) -> None:
    saved("llava/clip", tmp_path)
    words = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(words)
    opened = open_lvlm(tmp_path)
    with pytest.raises(ModelError, match="chat template writes '<image>'"):
        opened.prompt_text(PROMPT)


def test_internvl_has_a_head_of_its_own(tmp_path: Path) -> None:
    """As published, though the class of its config ties it to the embeddings by default; so it is weighed."""
    lvlm = saved("internvl/qwen2", tmp_path)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}

    def published(config: dict) -> None:
        config.pop("tie_word_embeddings")
        config["text_config"].pop("tie_word_embeddings", None)
        config["text_config"]["rope_parameters"] = rope

    config_of(tmp_path, published)
    opened = answers_alike(tmp_path, lvlm)
    assert opened.model.config.tie_word_embeddings
    head, rows = opened.model.get_output_embeddings().weight, opened.model.get_input_embeddings().weight
    assert not torch.equal(head, rows)
    bare = on_meta(type(opened.model), opened.model.config)
    assert bare.get_output_embeddings().weight is not bare.get_input_embeddings().weight
