"""Folders and hub names: shards, *.bin, revisions, permissions, no network, remote code, torchvision."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedConfig

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.loading import Loading, identity
from explorer.vlm.loading.refusals import locate
from explorer.vlm.opening import FAMILIES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copy(tiny_lvlm_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_lvlm_folder, tmp_path / "copy"))


def picture() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB")


def same(one: Path, other: Path) -> bool:
    """Whether the models of two folders see alike."""
    first, second = open_lvlm(one), open_lvlm(other)
    pixels = first.preprocess(picture()).pixel_values
    return torch.equal(first.tower(pixels, 2), second.tower(pixels, 2))


def in_bin(folder: Path) -> Path:
    """The folder's weights in PyTorch's own form."""
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


# ---- folders ---------------------------------------------------------------------------------------------


def test_shards_are_read_and_all_of_them_are_in_the_id(tiny_lvlm_folder: Path, copy: Path) -> None:
    open_lvlm(tiny_lvlm_folder).model.save_pretrained(copy, max_shard_size="100KB")
    (copy / "model.safetensors").unlink()
    shards = sorted(copy.glob("*.safetensors"))
    assert len(shards) > 1 and same(copy, tiny_lvlm_folder)
    before = open_lvlm(copy).model_id
    tensors = {name: weight + 1e-3 for name, weight in load_file(shards[-1]).items()}
    save_file(tensors, shards[-1], {"format": "pt"})
    assert open_lvlm(copy).model_id != before
    shards[-1].unlink()
    with pytest.raises(
        ModelError, match=rf"lacks 1 of the \d+ files with weights .*{shards[-1].name}; fetch"
    ):
        open_lvlm(copy)


def test_weights_in_bin_are_read_but_nothing_else_in_them(tiny_lvlm_folder: Path, copy: Path) -> None:
    in_bin(copy)
    assert same(copy, tiny_lvlm_folder)
    mark = copy / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (mark,))

    with (copy / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"weight": Evil()}, file)
    with pytest.raises(ModelError, match="asks for more than tensors, which was not done; take a copy with"):
        open_lvlm(copy)
    assert not mark.exists()


def test_large_folders_are_sampled_small_ones_read_whole(copy: Path, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(1 << 20, generator=rng)
    save_file({"a": data}, copy / "model.safetensors")
    size = identity.weight_bytes(copy)
    whole, sampled = identity.weights_digest(copy, size), identity.weights_digest(copy, size - 1)
    assert whole != sampled == identity.weights_digest(copy, 0)
    moved = Path(shutil.copytree(copy, tmp_path / "elsewhere"))
    assert identity.weights_digest(moved, 0) == sampled
    save_file({"b": data}, copy / "model.safetensors")
    assert identity.weights_digest(copy, 0) != sampled  # another name in the header
    save_file({"a": data * 1.001}, copy / "model.safetensors")
    assert identity.weights_digest(copy, 0) != sampled


def test_a_large_file_is_read_in_pieces_only(tmp_path: Path) -> None:
    """A sparse file of 40 GiB would take a minute to hash whole."""
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(40 << 30)
    first = identity.weights_digest(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    assert identity.weights_digest(tmp_path) != first


def test_the_embedded_model_keeps_its_id() -> None:
    from explorer.session.opening import EMBEDDED_MODEL, EMBEDDED_SAE, open_sae
    from explorer.vlm import Choice

    digest = identity.weights_digest(EMBEDDED_MODEL)[:12]
    assert EMBEDDED_SAE.exists() and open_sae(Choice()).model_id == f"lvlm@{digest}"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["model-Q4_K_M.gguf"], "it holds GGUF files, which llama.cpp reads"),
        (["config.json", "model.gguf"], "it holds GGUF files"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter (LoRA), not a whole model"),
        (["model_index.json"], "a pipeline of diffusers"),
        (["consolidated.00.pth", "params.json"], "the original form of their project"),
        (["config.json", "model.onnx"], "ONNX"),
        ([], "it has no config.json; a folder as save_pretrained writes it is needed"),
    ],
)
def test_other_folders_are_named(files: list[str], words: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError) as refused:
        open_lvlm(tmp_path)
    assert words in str(refused.value)


def test_a_gguf_file_and_a_revision_of_a_folder(copy: Path) -> None:
    (copy / "x.gguf").write_text("")
    with pytest.raises(ModelError, match=r"is a file; give the folder of a model .*GGUF"):
        open_lvlm(copy / "x.gguf")
    with pytest.raises(ModelError, match="is a folder, which has no revisions; leave 'main' out"):
        open_lvlm(copy, loading=Loading(revision="main"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llava_llama", "hidden_size": 4096}, "llava-hf/llava-1.5-7b-hf"),
        ({"model_type": "llava_llama", "hidden_size": 5120}, "llava-hf/llava-1.5-13b-hf"),
        ({"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}, "original LLaVA code"),
        ({"model_type": "llava_mistral"}, "transformers does not read"),
        ({"model_type": "clip"}, "family 'clip', an image encoder alone: give a model that sees"),
        ({"model_type": "mllama"}, "family 'mllama'; supported families: "),
        ({"model_type": "qwen", "auto_map": {"AutoConfig": "x.Y"}}, "is Qwen/Qwen2-VL-7B-Instruct"),
        ({"model_type": "internvl_chat", "auto_map": {}}, "nearest model that works is OpenGVLab/InternVL3"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised beforehand (awq)"),
    ],
)
def test_configs_that_cannot_be_opened_are_named_with_what_can(config: dict, words: str, copy: Path) -> None:
    own = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**own, **config}))
    with pytest.raises(ModelError) as refused:
        open_lvlm(copy)
    assert words in str(refused.value)


# ---- code of strangers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["stranger", "llava"])
def test_code_in_a_folder_runs_only_when_trusted(family: str, copy: Path) -> None:
    """For an unknown family it is refused; a known one needs none of it, and it is left alone."""
    mark = copy / "ran"
    code = (
        "from pathlib import Path\nfrom transformers import PreTrainedConfig\n"
        f"Path({str(mark)!r}).touch()\nclass Own(PreTrainedConfig):\n    model_type = 'stranger'\n"
    )
    (copy / "own.py").write_text(code)
    own = json.loads((copy / "config.json").read_text())
    config = {**own, "model_type": family, "auto_map": {"AutoConfig": "own.Own"}}
    (copy / "config.json").write_text(json.dumps(config))
    if family == "llava":
        assert open_lvlm(copy).family == "llava"
    else:
        with pytest.raises(ModelError, match=r"you may, and is run only with --trust-remote-code"):
            open_lvlm(copy)
        with pytest.raises(ModelError, match="--trust-remote-code does not help there: supported families"):
            open_lvlm(copy, loading=Loading(trust_remote_code=True))
    assert not mark.exists()


def test_code_of_a_tokenizer_is_refused_too(copy: Path) -> None:
    """Nobody is asked at the keyboard either."""
    mark = copy / "ran"
    (copy / "own.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n")
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    try:
        open_lvlm(copy)
    except ModelError as error:
        assert "--trust-remote-code" in str(error)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Qwen/Qwen-VL", "The nearest model that works is Qwen/Qwen2-VL-7B-Instruct"),
        ("Qwen/Qwen-VL-Chat", "the Qwen-VL of the paper, is not part of transformers"),
        ("liuhaotian/llava-v1.5-7b", "are llava-hf/llava-1.5-7b-hf"),
        ("liuhaotian/llava-v1.6-34b", "are llava-hf/llava-v1.6-34b-hf"),
        ("somebody/llava-GGUF", "holds GGUF files"),
        ("a/b@", "no model folder"),
    ],
)
def test_names_that_are_known_not_to_open(name: str, words: str) -> None:
    with pytest.raises(ModelError) as refused:
        open_lvlm(name)
    assert words in str(refused.value)


def test_what_is_named_instead_can_be_opened() -> None:
    assert {"llava", "llava_next", "qwen2_vl"} <= FAMILIES.keys()


# ---- the hub ---------------------------------------------------------------------------------------------


@pytest.fixture
def cached(tiny_lvlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache that holds owner/tiny, as a download leaves it."""
    repo = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(tiny_lvlm_folder, repo / "snapshots" / COMMIT)
    for name in ("main", "v2"):
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / name).write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repo


@pytest.mark.parametrize("name", ["owner/tiny", "owner/tiny@v2", f"owner/tiny@{COMMIT}"])
def test_a_fetched_model_opens_offline_and_its_id_is_the_commit(
    name: str, cached: Path, tiny_lvlm_folder: Path
) -> None:
    lvlm = open_lvlm(name)
    assert lvlm.model_id == f"owner/tiny@{COMMIT[:12]}"
    pixels = lvlm.preprocess(picture()).pixel_values
    assert torch.equal(lvlm.tower(pixels, 2), open_lvlm(tiny_lvlm_folder).tower(pixels, 2))


def test_what_was_not_fetched_is_said_with_the_command_that_fetches_it(cached: Path) -> None:
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set; fetch it .*: hf download owner/other \("):
        open_lvlm("owner/other")
    with pytest.raises(ModelError, match=r"hf download owner/tiny --revision v9 \("):
        open_lvlm("owner/tiny@v9")
    (cached / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"its weights from 'owner/tiny': .*hf download owner/tiny \("):
        open_lvlm("owner/tiny")


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid/owner/name"))


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            GatedRepoError("403", response=response(403)),
            "agree at https://.*/owner/name, then log in",
        ),
        (
            RepositoryNotFoundError("404", response=response(404)),
            "no such model, or not for you; .*TOKEN",
        ),
        (RevisionNotFoundError("404", response=response(404)), "it has no revision 'v3'"),
        (OfflineModeIsEnabled("offline"), "hf download owner/name --revision v3"),
        (LocalEntryNotFoundError("no entry"), "hf download owner/name --revision v3"),
        (ConnectionError("refused"), "it is not on this machine"),
    ],
)
def test_the_hubs_refusals_are_told_with_what_to_do(
    cause: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **settings: object) -> None:
        assert settings["revision"] == "v3"
        raise OSError("something long about it\nin lines") from cause

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", refuse)
    with pytest.raises(ModelError, match=rf"cannot open its config from 'owner/name': .*{words}"):
        open_lvlm("owner/name@v3")


def test_a_repository_without_a_config_is_told_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter, say; offline it may as well not have been fetched."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("owner/name does not appear to have a file named config.json.")

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match=r"without config.json holds an adapter \(LoRA\), GGUF files"):
        open_lvlm("owner/name")


def test_a_revision_is_named_once() -> None:
    assert locate("owner/name@v3") == locate("owner/name", "v3") == ("owner/name", False, "v3")
    assert locate("owner/name@v3", "v3").revision == "v3" and locate("owner/name").revision is None
    with pytest.raises(ModelError, match="names the revision 'v3', --revision 'v4'; give one"):
        locate("owner/name@v3", "v4")


def test_the_token_of_the_environment_is_left_to_the_hub() -> None:
    """Nothing passes a token on by itself: HF_TOKEN and a log-in reach the hub's own client."""
    code = "import huggingface_hub as h; print(h.get_token())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"HF_TOKEN": "hf_x"}, check=False
    )
    assert done.stdout.strip() == "hf_x"


# ---- with and without torchvision, in bfloat16 -----------------------------------------------------------


FAKE = """
import enum, importlib.abc, importlib.machinery, sys, types

__version__ = "0.28.0"


class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Thing


class Thing(metaclass=Anything):
    def __init__(self, *args, **settings):
        raise AssertionError("torchvision was used")


class Module(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            return enum.Enum(name, "NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS")
        return Thing


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("torchvision."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Module(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Finder())
"""


def test_the_image_processor_is_the_same_where_torchvision_is_installed(
    tiny_lvlm_folder: Path, tmp_path: Path
) -> None:
    """A package of its name that refuses to work: what transformers takes changes, what we open does not."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE)
    facts = tmp_path / "torchvision-0.28.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    code = (
        "import importlib\n"
        "from PIL import Image\n"
        "from transformers import AutoImageProcessor\n"
        "from explorer.vlm import FAMILIES, open_lvlm\n"
        f"folder = {str(tiny_lvlm_folder)!r}\n"
        "lvlm, image = open_lvlm(folder), Image.radial_gradient('L').convert('RGB')\n"
        "for module in FAMILIES.values(): importlib.import_module(f'explorer.vlm.families.{module}')\n"
        "kinds = AutoImageProcessor.from_pretrained(folder), lvlm.processor.image_processor\n"
        "print([type(kind).__name__ for kind in kinds], lvlm.preprocess(image).pixel_values.sum().item())"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
        check=False,
    )
    without = open_lvlm(tiny_lvlm_folder)
    assert type(without.processor.image_processor).__name__ == "CLIPImageProcessorPil"
    total = without.preprocess(picture()).pixel_values.sum().item()
    assert done.stdout.strip() == f"['CLIPImageProcessor', 'CLIPImageProcessorPil'] {total}", done.stderr


def test_bfloat16_on_the_cpu_looks_answers_and_edits(
    tiny_lvlm_maker: Callable[..., Path], tmp_path: Path
) -> None:
    from explorer.records import Edit
    from explorer.sae import SAE, ActivationRule
    from explorer.session import Session

    folder = tiny_lvlm_maker(tmp_path / "m")
    draw = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(12, 32, generator=draw), dim=-1)
    SAE(rows.T.clone(), torch.zeros(12), rows, torch.zeros(32), ActivationRule("topk", k=4)).save(
        tmp_path / "s"
    )
    half = Session.open(folder, tmp_path / "s", dtype="bfloat16")
    full = Session.open(folder, tmp_path / "s")
    assert half.lvlm.model.dtype == torch.bfloat16 and half.sae.W_enc.dtype == torch.float32
    views = half.look(picture()), full.look(picture())
    torch.testing.assert_close(views[0].hidden.float(), views[1].hidden, atol=0.05, rtol=0.05)
    assert half.answer(views[0], "what", max_new_tokens=6) == half.lvlm.answer_plain(picture(), "what", 6)
    edits = [Edit(views[1].top(1)[0].neuron, 40.0, "set")]
    changed = [s.steered(v, edits).hidden.float() for s, v in zip((half, full), views, strict=True)]
    torch.testing.assert_close(changed[0], changed[1], atol=0.3, rtol=0.05)
    assert half.answer(views[0], "what", edits, max_new_tokens=6) != half.answer(
        views[0], "what", max_new_tokens=6
    )


def test_a_config_is_read_before_anything_of_it_runs(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *a, **k: pytest.fail("it was read too early"))
    (copy / "config.json").write_text('{"model_type": "stranger", "auto_map": {"AutoConfig": "a.B"}}')
    with pytest.raises(ModelError, match="--trust-remote-code"):
        open_lvlm(copy)
