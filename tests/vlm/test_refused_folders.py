"""Folders as people have them that cannot be opened: each is told what it is, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from explorer.errors import ModelError
from explorer.vlm import open_lvlm

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 14\n"


@pytest.fixture
def copy(tiny_lvlm_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_lvlm_folder, tmp_path / "copy"))


def told(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        open_lvlm(folder)
    return str(refused.value)


def said(folder: Path, **changes: object) -> None:
    """Write other values into its config.json; None: leave out."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("config", "what", "instead"),
    [
        ({"model_type": "clip_vision_model"}, "an image encoder", "llava-hf/llava-1.5-7b-hf"),
        ({"model_type": "siglip_vision_model"}, "an image encoder", "google/paligemma2-3b-mix-224"),
        ({"model_type": "vit"}, "an image encoder", "llava-hf/llava-1.5-7b-hf"),
        ({"model_type": "llama"}, "a language model", "llava-hf/llava-1.5-7b-hf"),
        ({"model_type": "qwen2"}, "a language model", "Qwen/Qwen2.5-VL-7B-Instruct"),
    ],
)
def test_half_a_model_is_told_what_to_take_instead(config: dict, what: str, instead: str, copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    assert f", {what} alone: give a model that sees pictures and answers, such as {instead}" in told(copy)


def test_a_relative_with_eyes_is_not_called_a_language_model(copy: Path) -> None:
    said(copy, model_type="gemma3")
    assert "of the family 'gemma3'; supported families" in told(copy)


@pytest.mark.parametrize(
    ("config", "by"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"model_type": "llama", "quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
    ],
)
def test_every_way_of_being_quantised_is_found(config: dict, by: str, copy: Path) -> None:
    said(copy, **config)
    assert f"was quantised beforehand ({by})" in told(copy) and "--quantize 8bit or 4bit" in told(copy)


def test_an_adapter_beside_a_model_is_not_passed_over(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}')
    assert "merge it into its base model first, or move adapter_* out of the folder" in told(copy)


def pieces(folder: Path, end: str, lost: int) -> None:
    """Its weights in three files with an index, the last `lost` of them gone."""
    whole, names = load_file(folder / "model.safetensors"), []
    (folder / "model.safetensors").unlink()
    stem = "model" if end == "safetensors" else "pytorch_model"
    for part in range(3):
        names.append(f"{stem}-0000{part + 1}-of-00003.{end}")
        if part < 3 - lost:
            save_file(dict(sorted(whole.items())[part::3]), folder / names[-1], {"format": "pt"})
    places = {name: names[number % 3] for number, name in enumerate(sorted(whole))}
    index = "model.safetensors.index.json" if end == "safetensors" else "pytorch_model.bin.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_missing_pieces_are_named(end: str, copy: Path) -> None:
    pieces(copy, end, 2)
    words = told(copy)
    assert "lacks 2 of the 3 files with weights" in words
    assert f"-00002-of-00003.{end}, " in words and f"-00003-of-00003.{end}; fetch them" in words


def test_an_index_without_its_heading_is_named(copy: Path) -> None:
    pieces(copy, "safetensors", 0)
    path = copy / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": json.loads(path.read_text())["weight_map"]}))
    assert "one of its files lacks 'metadata'" in told(copy)


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def old_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "model.safetensors").write_text(POINTER), "model.safetensors' is only a pointer of"),
        (lambda f: (f / "tokenizer.json").write_text(POINTER), "run git lfs pull in its folder"),
        (cut_short, r"a \*.safetensors file is damaged or cut short"),
        (lambda f: (f / "config.json").write_text("[1]"), "holds no JSON object; fetch it again"),
        (lambda f: (f / "config.json").write_text('{"a":'), "holds no JSON object; fetch it again"),
        (lambda f: said(f, model_type=None), "names no model_type; supported families"),
        (other_shapes, "the two belong to different models"),
        (
            lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"),
            "no index that names the pieces",
        ),
    ],
)
def test_damaged_folders(spoil: Callable[[Path], object], words: str, copy: Path) -> None:
    spoil(copy)
    with pytest.raises(ModelError, match=words):
        open_lvlm(copy)


def test_a_tokenizer_of_the_older_form_is_told_what_it_needs(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sentencepiece is not installed; the words of transformers name other packages."""
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    old_tokenizer(copy)
    assert "pip install sentencepiece, or take a copy with tokenizer.json" in told(copy)


def test_a_folder_of_folders_names_the_one_to_give(copy: Path, tmp_path: Path) -> None:
    """A trainer's folder of checkpoints, and a repository in the hub's cache."""
    shutil.copytree(copy, tmp_path / "run" / "checkpoint-500")
    assert f"give '{tmp_path / 'run' / 'checkpoint-500'}'" in told(tmp_path / "run")
    shutil.copytree(copy, tmp_path / "models--a--b" / "snapshots" / "abc")
    assert f"give '{tmp_path / 'models--a--b' / 'snapshots' / 'abc'}'" in told(tmp_path / "models--a--b")
