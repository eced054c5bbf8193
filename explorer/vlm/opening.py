"""Opens a model by folder or hub name: looks up its family, loads it, and says who it is.

Every way in which that can fail becomes a `ModelError` in plain words. A folder is read without
asking the network; a hub name may download.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.utils import logging

from explorer.errors import ModelError
from explorer.vlm.base import LVLM
from explorer.vlm.llava import Llava

# What from_pretrained raises for missing, damaged or ill-fitting files, and without a network.
_TROUBLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)


if not sys.stderr.isatty():
    logging.disable_progress_bar()  # a log is no place for bars


def open_lvlm(model: str | Path, device: str = "cpu", dtype: torch.dtype | None = None) -> LVLM:
    """Open the model in a folder, or of a hub name ("owner/name").

    device: "cpu", "cuda", "cuda:1", "mps"; dtype: None for float32 on the CPU and the checkpoint's own
    elsewhere. Raises ModelError when it cannot be opened or is of a family that is not supported.
    """
    place = _device(device)
    name, local = _locate(model)
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=local)
    except _TROUBLE as error:
        raise _cannot(name, "its config", error) from error
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"'{name}' is of the family {config.model_type!r}; supported families: {known}")
    kind = dtype or (torch.float32 if place.type == "cpu" else "auto")
    return family(name, local, place, kind)


def _open_llava(name: str, local: bool, device: torch.device, dtype: torch.dtype | str) -> Llava:
    try:
        # Part by part: as a whole the processor would take torchvision's resizing where that is installed.
        parts = [
            AutoImageProcessor.from_pretrained(name, local_files_only=local, backend="pil"),
            AutoTokenizer.from_pretrained(name, local_files_only=local),
        ]
        settings, _ = LlavaProcessor.get_processor_dict(name, local_files_only=local)
        processor = LlavaProcessor.from_args_and_dict(parts, settings)
    except _TROUBLE as error:
        raise _cannot(name, "its processor", error) from error
    try:
        model, report = LlavaForConditionalGeneration.from_pretrained(
            name, local_files_only=local, dtype=dtype, output_loading_info=True
        )
    except _TROUBLE as error:
        raise _cannot(name, "its weights", error) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"the weights of '{name}' lack {len(missing)} tensors, {missing[0]} among them")
    _complete(processor, model)
    return Llava(model.to(device), processor, _identity(name, local, model.config))


def _complete(processor: LlavaProcessor, model: LlavaForConditionalGeneration) -> None:
    """Fill in what older checkpoints leave out of their processor's settings."""
    if processor.patch_size is None:
        processor.patch_size = model.config.vision_config.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(
            model.config.vision_config.model_type == "clip_vision_model"
        )


FAMILIES: dict[str, Callable[[str, bool, torch.device, torch.dtype | str], LVLM]] = {"llava": _open_llava}
"""config.model_type -> how to open it. A new family is one file beside llava.py and one line here."""


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}; use cpu, cuda, cuda:0 or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} was asked for, but no CUDA device is available; use cpu")
    return device


def _locate(model: str | Path) -> tuple[str, bool]:
    """The name to load from, and whether it is a folder. Raises ModelError for what can be neither."""
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder '{path}' holds no model: it has no config.json")
        if not [*path.glob("*.safetensors"), *path.glob("*.bin")]:
            raise ModelError(f"the folder '{path}' holds no weights (*.safetensors)")
        return str(path), True
    if path.exists():
        raise ModelError(f"'{path}' is a file; give the folder of a model")
    looks_like_path = (
        isinstance(model, Path) or str(model).startswith((".", "/", "~")) or str(model).count("/") != 1
    )
    if looks_like_path:
        raise ModelError(f"there is no model folder '{model}' (a name on the hub looks like owner/name)")
    return str(model), False


def _identity(name: str, local: bool, config: object) -> str:
    """Name and hash: of the weight files of a folder, of the commit of a hub repository."""
    if not local:
        return f"{name}@{(getattr(config, '_commit_hash', None) or 'unknown')[:12]}"
    folder, digest = Path(name), hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


def _cannot(name: str, what: str, error: BaseException) -> ModelError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"cannot open {what} from '{name}': {first_line}")
