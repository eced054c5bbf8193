"""Which names, folders and configs can be opened at all; what is refused, by what reason, with what instead.

Nothing here loads anything: names, listings and dictionaries are enough.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from explorer.errors import ModelError

CONVERTED = {
    "liuhaotian/llava-v1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "liuhaotian/llava-v1.5-13b": "llava-hf/llava-1.5-13b-hf",
    "liuhaotian/llava-v1.6-vicuna-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "liuhaotian/llava-v1.6-vicuna-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
    "liuhaotian/llava-v1.6-mistral-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
    "liuhaotian/llava-v1.6-34b": "llava-hf/llava-v1.6-34b-hf",
}
"""Repositories of the original LLaVA code, and the same weights as transformers reads them."""
LLAVA_CODE = ("llava_llama", "llava_mistral", "llava_qwen", "llava_mpt", "llava")
"""What the original LLaVA code calls its models; "llava" where the config names one of its classes."""
QWEN = "Qwen/Qwen2-VL-7B-Instruct"
REMOTE = {
    "qwen": QWEN,
    "internvl_chat": "OpenGVLab/InternVL3-8B-hf",
    "internlmxcomposer2": "OpenGVLab/InternVL3-8B-hf",
}
"""Models that live outside transformers, by model_type, and the nearest one inside."""

OTHERS = {
    "*.gguf": "GGUF files, which llama.cpp reads",
    "adapter_config.json": "an adapter (LoRA), not a whole model; merge it into its base model first",
    "model_index.json": "a pipeline of diffusers",
    "consolidated*": "weights in the original form of their project",
    "*.pth": "weights in the original form of their project",
    "*.onnx": "ONNX files",
    "*.msgpack": "weights of Flax",
    "*.h5": "weights of TensorFlow",
    "*.mlmodel": "a Core ML model",
}
"""What else a folder may hold, and what that is."""
EXPECTED = "a folder as save_pretrained writes it is needed: config.json and *.safetensors (or *.bin)"


class Place(NamedTuple):
    """name: folder or hub name, without a revision; local: whether it is a folder."""

    name: str
    local: bool
    revision: str | None


def locate(model: str | Path, revision: str | None = None) -> Place:
    """Where a model is. Raises ModelError for what can be neither a folder nor a hub name, or is refused."""
    path = Path(model).expanduser()
    if path.is_dir():
        check_folder(path)
        if revision is not None:
            raise ModelError(f"'{path}' is a folder, which has no revisions; leave {revision!r} out")
        return Place(str(path), True, None)
    if path.exists():
        what = OTHERS["*.gguf"] if path.suffix == ".gguf" else ""
        hint = f" ({what}; {EXPECTED})" if what else ""
        raise ModelError(f"'{path}' is a file; give the folder of a model{hint}")
    name, at, own = str(model).partition("@")
    if at and revision not in (None, own):
        raise ModelError(f"'{model}' names the revision {own!r}, --revision {revision!r}; give one")
    is_path = isinstance(model, Path) or name.startswith((".", "/", "~")) or name.count("/") != 1
    if is_path or (at and not own):
        raise ModelError(f"there is no model folder '{model}' (a name on the hub looks like owner/name)")
    check_name(name)
    return Place(name, False, own or revision)


def check_name(name: str) -> None:
    """Raise ModelError for hub names that are known not to open, before anything is fetched."""
    if name in CONVERTED or name.startswith("liuhaotian/llava"):
        raise ModelError(f"{_original(name)} {CONVERTED.get(name, 'llava-hf/llava-1.5-7b-hf')}")
    owner, _, own = name.partition("/")
    if owner == "Qwen" and own.startswith("Qwen-VL"):
        raise ModelError(
            f"'{name}', the Qwen-VL of the paper, is not part of transformers: it runs code from its own "
            f"repository, and is not supported. The nearest model that works is {QWEN}"
        )
    if own.lower().endswith(("-gguf", ".gguf")):
        raise ModelError(f"'{name}' holds {OTHERS['*.gguf']}; {EXPECTED}. Take the model it was made from")


def check_folder(path: Path) -> None:
    """Raise ModelError for a folder without config or weights, and say what it holds instead."""
    config = (path / "config.json").is_file()
    if config and [*path.glob("*.safetensors"), *path.glob("*.bin")]:
        return
    found = [words for pattern, words in OTHERS.items() if [*path.glob(pattern)]]
    holds = f"; it holds {found[0]}" if found else ""
    what = "weights (*.safetensors)" if config else "model: it has no config.json"
    raise ModelError(f"the folder '{path}' holds no {what}{holds}; {EXPECTED}")


def _original(name: str) -> str:
    return (
        f"'{name}' is in the form of the original LLaVA code, which transformers does not read; the same "
        "weights, converted, are"
    )


def check_config(name: str, config: Mapping[str, Any], families: Collection[str], trusted: bool) -> None:
    """Raise ModelError for a config whose model cannot be opened, with what works instead.

    config: as the JSON file has it; families: the supported model types; trusted: whether remote code may be
    run.
    """
    kind = str(config.get("model_type", ""))
    classes = [str(one) for one in config.get("architectures") or ()]
    if kind in LLAVA_CODE and (kind != "llava" or "LlavaLlamaForCausalLM" in classes):
        size = "13b" if config.get("hidden_size") == 5120 else "7b"
        raise ModelError(
            f"{_original(name)} named llava-hf/..., such as {CONVERTED[f'liuhaotian/llava-v1.5-{size}']}"
        )
    known = ", ".join(sorted(families))
    if "auto_map" in config and kind not in families:
        near = f"; the nearest model that works is {REMOTE[kind]}" if kind in REMOTE else ""
        if trusted:
            raise ModelError(
                f"'{name}' is of the family {kind!r}, whose code lives outside transformers; "
                f"--trust-remote-code does not help there: supported families: {known}{near}"
            )
        raise ModelError(
            f"'{name}' is of the family {kind!r}, which would run Python code from its repository: that code "
            "may do whatever you may, and is run only with --trust-remote-code; supported families, which "
            f"need none of it: {known}{near}"
        )
    if kind and families and kind not in families:
        raise ModelError(f"'{name}' is of the family {kind!r}; supported families: {known}")
    packed = (config.get("quantization_config") or {}).get("quant_method")
    if packed:
        raise ModelError(
            f"'{name}' was quantised beforehand ({packed}), perhaps its vision tower too, so an SAE would "
            "see other vectors; take the repository it was made from, with --quantize 8bit or 4bit"
        )


def folder_config(path: Path) -> dict[str, Any]:
    """The config of a folder as it is written; {} when it cannot be read, which is told elsewhere."""
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
