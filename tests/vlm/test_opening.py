"""Opening models: the identity of a folder, and plain words for all that cannot be opened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.errors import ModelError
from explorer.vlm import open_lvlm


@pytest.fixture
def copy(tiny_lvlm_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_lvlm_folder, tmp_path / "copy"))


def test_what_is_known_of_an_opened_model(tiny_lvlm_folder: Path) -> None:
    lvlm = open_lvlm(str(tiny_lvlm_folder))
    assert lvlm.model_id.startswith("tiny@") and len(lvlm.model_id) == len("tiny@") + 12
    assert (lvlm.block_count, lvlm.read_block, lvlm.width(0)) == (4, 2, 32)
    assert lvlm.has_cls
    assert "crop the middle 32 x 32" in lvlm.preprocessing
    assert lvlm.default_prompt == "Describe the image."
    assert lvlm.model.dtype == torch.float32 and not lvlm.model.training
    assert not any(parameter.requires_grad for parameter in lvlm.model.parameters())


def test_the_id_follows_the_weights_not_the_place(
    tiny_lvlm_folder: Path, copy: Path, tiny_lvlm_maker: Callable[..., Path], tmp_path: Path
) -> None:
    def digest(folder: Path) -> str:
        return open_lvlm(folder).model_id.split("@")[1]

    assert digest(copy) == digest(tiny_lvlm_folder)
    assert digest(tiny_lvlm_maker(tmp_path / "other", seed=1)) != digest(tiny_lvlm_folder)


def test_a_folder_opens_without_network_and_without_a_word_to_it(tiny_lvlm_folder: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('asked the network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from explorer.vlm import open_lvlm\n"
        f"print(open_lvlm({str(tiny_lvlm_folder)!r}).read_block)"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(tiny_lvlm_folder / "no-cache"),
    }
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "2", done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "no model folder"),
        ("./nowhere/at/all", "no model folder"),
        ("a/b/c", "no model folder"),
        (Path("owner/name"), "no model folder"),
        ("", "holds no model"),
    ],
)
def test_names_that_lead_nowhere(
    name: str | Path, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=words):
        open_lvlm(name)


def test_a_hub_name_that_cannot_be_reached() -> None:
    with pytest.raises(ModelError, match="cannot open its config from 'nobody/nothing'"):
        open_lvlm("nobody/nothing")


def test_folders_without_config_or_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        open_lvlm(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_lvlm(copy)
    with pytest.raises(ModelError, match="is a file"):
        open_lvlm(copy / "tokenizer.json")


@pytest.mark.parametrize(("text", "words"), [("not json", "is damaged"), ("{}", "names no model_type")])
def test_a_damaged_config(copy: Path, text: str, words: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match=rf"config.json'? .*{words}"):
        open_lvlm(copy)


def test_another_family_is_named_with_the_supported_ones(copy: Path) -> None:
    for family in ("clip", "no_such_family"):
        (copy / "config.json").write_text(json.dumps({"model_type": family}))
        with pytest.raises(ModelError, match=rf"family '{family}'.*; supported families: .*llava"):
            open_lvlm(copy)


def test_truncated_missing_and_misshapen_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    tensors = {
        key: value.clone() for key, value in load_file(weights).items()
    }  # the file is overwritten below
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot open its weights"):
        open_lvlm(copy)
    name = next(key for key in tensors if "linear_1.weight" in key)
    save_file({key: value for key, value in tensors.items() if key != name}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 tensors"):
        open_lvlm(copy)
    save_file({**tensors, name: torch.zeros(3, 3)}, weights, {"format": "pt"})
    with pytest.raises(ModelError):
        open_lvlm(copy)


def test_a_damaged_processor(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot open its tokenizer"):
        open_lvlm(copy)


def test_a_folder_without_processor_or_tokenizer(copy: Path) -> None:
    """For some families transformers would make an empty tokenizer, and the model would answer nonsense."""
    (copy / "tokenizer.json").rename(copy / "elsewhere.json")
    with pytest.raises(ModelError, match=r"cannot open its tokenizer .* holds no tokenizer\.json or"):
        open_lvlm(copy)
    words = json.loads((copy / "elsewhere.json").read_text())
    special = [one["content"] for one in words["added_tokens"]]
    words["model"]["vocab"] = {token: number for number, token in enumerate(special)}
    (copy / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match="its files hold no words"):
        open_lvlm(copy)
    (copy / "processor_config.json").unlink()
    with pytest.raises(ModelError, match=r"its processor .* holds no preprocessor_config\.json or"):
        open_lvlm(copy)


def test_devices(tiny_lvlm_folder: Path) -> None:
    with pytest.raises(ModelError, match="unknown device 'gpu'"):
        open_lvlm(tiny_lvlm_folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no CUDA device"):
            open_lvlm(tiny_lvlm_folder, device="cuda:0")


@pytest.mark.parametrize(("layer", "block"), [(-1, 3), (-2, 2), (-3, 1), (1, 0), (4, 3)])
def test_vision_feature_layer_names_the_read_block(
    layer: int, block: int, tiny_lvlm_maker: Callable[..., Path], tmp_path: Path
) -> None:
    from PIL import Image

    lvlm = open_lvlm(tiny_lvlm_maker(tmp_path / "m", layer=layer))
    assert lvlm.read_block == block
    image = Image.radial_gradient("L").convert("RGB")
    features = lvlm.features(lvlm.tower(lvlm.preprocess(image).pixel_values, block), block)
    whole = lvlm.model.get_image_features(pixel_values=lvlm.preprocess(image).pixel_values).pooler_output[0]
    assert torch.equal(features[0], whole)


@pytest.mark.parametrize(
    ("layer", "words"), [(0, "names no block"), (-9, "names no block"), ([-2, -3], "several")]
)
def test_layers_that_do_not_fit(
    layer: int | list[int], words: str, tiny_lvlm_maker: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_lvlm_maker(tmp_path / "m", layer=layer)
    with pytest.raises(ModelError, match=words):
        open_lvlm(folder)
