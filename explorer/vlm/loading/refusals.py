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
EYES, WORDS = "an image encoder", "a language model"
LLAVA, LLAVA_MISTRAL = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-v1.6-mistral-7b-hf"
ALONE = {
    ("clip", "clip_vision_model"): (EYES, f"{LLAVA}, which sees through CLIP"),
    ("siglip", "siglip_vision_model", "siglip2"): (EYES, "google/paligemma2-3b-mix-224, which has a SigLIP"),
    ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit"): (EYES, LLAVA),
    ("llama", "phi3"): (WORDS, LLAVA),
    ("mistral", "mixtral"): (WORDS, LLAVA_MISTRAL),
    ("gemma", "gemma2", "gemma3_text"): (WORDS, "google/paligemma2-3b-mix-224"),
    ("qwen2", "qwen2_moe"): (WORDS, "Qwen/Qwen2.5-VL-7B-Instruct"),
    ("qwen3", "qwen3_moe"): (WORDS, "Qwen/Qwen3-VL-8B-Instruct"),
}
"""Halves of models that see and answer, by model_type: what they are, and what to take instead."""
POINTER = b"version https://git-lfs"
"""How a file begins that stands for one which git-lfs has not fetched."""
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
        check_files(path)
        return
    inside = sorted([*path.glob("*/config.json"), *path.glob("snapshots/*/config.json")])
    if inside:
        raise ModelError(
            f"the folder '{path}' holds no model itself, but folders that do: give '{inside[-1].parent}'"
        )
    found = [words for pattern, words in OTHERS.items() if [*path.glob(pattern)]]
    holds = f"; it holds {found[0]}" if found else ""
    what = "weights (*.safetensors)" if config else "model: it has no config.json"
    raise ModelError(f"the folder '{path}' holds no {what}{holds}; {EXPECTED}")


def check_files(path: Path) -> None:
    """Raise ModelError for a folder of a model that is not whole, or not only a model."""
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"the folder '{path}' holds {OTHERS['adapter_config.json']}, or move adapter_* out of the folder "
            "to open the model without it"
        )
    for file in [*path.glob("*.safetensors"), *path.glob("*.bin"), *path.glob("*.json")]:
        with file.open("rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                raise ModelError(
                    f"'{file}' is only a pointer of git-lfs to the file: run git lfs pull in its folder"
                )
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (path / whole).is_file():
            return
        index = path / f"{whole}.index.json"
        named = sorted({str(one) for one in (_json(index) or {}).get("weight_map", {}).values()})
        lost = [name for name in named if not (path / name).is_file()]
        if lost:
            raise ModelError(
                f"the folder '{path}' lacks {len(lost)} of the {len(named)} files with weights that "
                f"'{index.name}' names, {', '.join(lost[:3])}{' and more' * bool(lost[3:])}; fetch them"
            )
        if named:
            return
    raise ModelError(
        f"the folder '{path}' holds no model.safetensors or pytorch_model.bin, and no index that names the "
        "pieces they were cut into (model.safetensors.index.json); fetch what is missing"
    )


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
    if not kind:
        raise ModelError(f"the config.json of '{name}' names no model_type; supported families: {known}")
    if families and kind not in families:
        raise ModelError(
            f"'{name}' is of the family {kind!r}{_alone(kind, config)}; supported families: {known}"
        )
    if packed := _packed(config):
        raise ModelError(
            f"'{name}' was quantised beforehand ({packed}), perhaps its vision tower too, so an SAE would "
            "see other vectors; take the repository it was made from, with --quantize 8bit or 4bit"
        )


def _alone(kind: str, config: Mapping[str, Any]) -> str:
    """What to take instead of half a model: an image encoder or a language model; "" for others."""
    pair = next((found for kinds, found in ALONE.items() if kind in kinds), None)
    if pair is None or (pair[0] == WORDS and "vision_config" in config):
        return ""
    what, instead = pair
    return f", {what} alone: give a model that sees pictures and answers, such as {instead}"


def _packed(config: Mapping[str, Any]) -> str:
    """By what a checkpoint was quantised beforehand, "" for none; Apple's MLX writes a word of its own."""
    for part in (config, *(one for one in config.values() if isinstance(one, Mapping))):
        for key in ("quantization_config", "compression_config"):
            if found := part.get(key):
                bits = [name for name in ("load_in_4bit", "load_in_8bit") if found.get(name)]
                return str(
                    found.get("quant_method") or ("bitsandbytes" if bits else "a way it does not name")
                )
    return "mlx" if isinstance(config.get("quantization"), Mapping) else ""


def folder_config(path: Path) -> dict[str, Any]:
    """The config of a folder as it is written. Raises ModelError when it cannot be read."""
    found = _json(path / "config.json")
    if found is None:
        raise ModelError(f"'{path / 'config.json'}' is damaged: it holds no JSON object; fetch it again")
    return found


def _json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
