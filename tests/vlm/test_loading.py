"""How a model is chosen and opened: the records, and the arguments that all commands share."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import app
from explorer.errors import ExplorerError, ModelError, SAEError
from explorer.evals.command import add_options, made
from explorer.vlm.loading import Choice, Loading, add_choice, choice_of
from index import __main__ as command

LINE = (
    "--model owner/name --revision v2 --device cpu --dtype bfloat16 --quantize 4bit --trust-remote-code "
    "--try-anyway --sae weights/sae.pt --sae-hint top_k=5 --sae-hint format=saev --sae-revision main "
    "--block 7 --store stores/mine"
)
CHOSEN = Choice(
    model="owner/name",
    revision="v2",
    device="cpu",
    dtype="bfloat16",
    quantize="4bit",
    trust_remote_code=True,
    try_anyway=True,
    sae="weights/sae.pt",
    sae_hint=("top_k=5", "format=saev"),
    sae_revision="main",
    block=7,
    store="stores/mine",
)
EVALS = {
    "cases": "CasesConfig",
    "mitigation": "MitigationConfig",
    "neurons": "NeuronsConfig",
    "noise": "NoiseConfig",
    "phantoms": "PhantomsConfig",
    "speed": "SpeedConfig",
    "zeroing": "ZeroingConfig",
}


def test_the_arguments_make_the_record_and_back() -> None:
    parser = argparse.ArgumentParser()
    add_choice(parser)
    assert choice_of(parser.parse_args(LINE.split())) == CHOSEN
    assert choice_of(parser.parse_args([])) == Choice() and Choice().words() == ""
    again = choice_of(parser.parse_args(CHOSEN.words().split()))
    assert again == Choice(**{**vars(CHOSEN), "device": "auto", "store": None})
    assert CHOSEN.hints == {"top_k": 5, "format": "saev"} and not CHOSEN.embedded and Choice().embedded
    spread = choice_of(parser.parse_args("--device cuda --device-map auto".split()))
    assert spread.device_map == "auto" and spread.words() == "--device cuda --device-map auto"


def test_a_choice_is_opened_as_its_loading_says() -> None:
    assert CHOSEN.loading == Loading("cpu", "bfloat16", "4bit", None, "v2", True, True)
    assert type(CHOSEN.loading) is Loading
    assert Loading().device == "cpu" and Choice().device == "auto"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"device": "gpu"}, "unknown device 'gpu'; use auto, cpu"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; use float32"),
        ({"quantize": "2bit"}, "unknown quantize '2bit'; use 8bit, 4bit"),
        ({"device_map": "balanced"}, "unknown device_map"),
        ({"device_map": "auto", "device": "cuda:1"}, "all CUDA cards"),
        ({"sae_hint": ("top_k",)}, "the hint 'top_k' is none"),
        ({"sae_hint": ("=5",)}, "KEY=VALUE"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises((ModelError, SAEError), match=words):
        Choice(**wrong)


@pytest.mark.parametrize(
    "line", ["--device gpu", "--dtype half", "--quantize 3", "--sae-hint x", "--block -1", "--device-map cpu"]
)
def test_wrong_words_end_with_status_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_choice(parser)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(line.split())
    assert end.value.code == 2 and line.split()[0] in capsys.readouterr().err


def test_the_page_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.parse(LINE.split()).choice == CHOSEN
    with pytest.raises(SystemExit):
        app.parse(["--device-map", "auto", "--device", "cpu"])
    assert "all CUDA cards" in capsys.readouterr().err


@pytest.mark.parametrize("name", EVALS)
def test_every_measurement_takes_them(name: str) -> None:
    kind = getattr(importlib.import_module(f"explorer.evals.{name}"), EVALS[name])
    parser = argparse.ArgumentParser()
    add_options(parser, kind)
    config = made(kind, parser.parse_args(LINE.split()))
    assert config.loading == CHOSEN.loading and config.hints == CHOSEN.hints
    chosen = (config.model, config.sae, config.store, config.block)
    assert chosen == ("owner/name", "weights/sae.pt", "stores/mine", 7)
    assert made(kind, parser.parse_args([])) == kind()


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("build", "--scenes 3 --out o"),
        ("label", "s"),
        ("verify", "s"),
        ("merge", "parts --out o"),
        ("cluster", "--scenes 3 --out o"),
        ("train-sae", "--scenes 9 --out sae.safetensors"),
    ],
)
def test_every_command_of_the_index_takes_them(name: str, needed: str) -> None:
    args = command._parser(name).parse_args([name, *needed.split(), *LINE.partition(" --sae ")[0].split()])
    assert choice_of({**vars(args), "store": None}).loading == CHOSEN.loading
    if name != "train-sae":
        words = LINE[LINE.index("--sae") : LINE.index(" --store")].split()
        found = choice_of({**vars(command._parser(name).parse_args([name, *needed.split(), *words]))})
        assert (found.sae, found.hints, found.block) == (CHOSEN.sae, CHOSEN.hints, 7)


def test_help_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, app\n"
        "from index import __main__ as command\n"
        "app.parse([])\n"
        "command._parser('build'); command._parser('label'); command._parser('train-sae')\n"
        "heavy = {'torch', 'transformers', 'gradio', 'faiss'} & sys.modules.keys()\n"
        "import explorer.vlm.opening, explorer.session, explorer.evals.noise\n"
        "print(sorted(heavy), 'transformers' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[] False", done.stderr


def test_a_cluster_settles_device_and_dtype_before_it_starts(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All actors and the record of the build must mean the same, whatever machine they are on."""
    from index.commands import cluster

    line = f"cluster --scenes 3 --out o --sae s.pt --model {tiny_lvlm_folder}".split()

    def settled(*more: str) -> tuple[str, str, float]:
        found = cluster._settled(command._parser("cluster").parse_args([*line, *more]))
        assert found.model == str(tiny_lvlm_folder.absolute()) and found.sae == "s.pt"
        return found.device, found.dtype, found.gpus_per_actor

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert settled() == settled("--device", "cpu") == ("cpu", "float32", 0.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert settled() == settled("--device", "cuda") == ("cuda", "float32", 1.0)
    assert settled("--dtype", "bfloat16") == ("cuda", "bfloat16", 1.0)
    assert settled("--device", "cpu") == ("cpu", "float32", 0.0)
    with pytest.raises(ExplorerError, match="does not go with 1 GPUs per actor"):
        settled("--device", "cpu", "--gpus-per-actor", "1")
