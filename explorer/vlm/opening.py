"""Opens a model by folder or hub name: looks up its family, which loads it.

Every way in which that can fail becomes a `ModelError` in plain words. A folder is read without
asking the network; a hub name may download.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.utils import logging

from explorer.errors import ModelError
from explorer.vlm.base import LVLM
from explorer.vlm.origin import TROUBLE, Origin, cannot

FAMILIES: dict[str, str] = {
    "instructblip": "instructblip",
    "llava": "llava",
    "llava_next": "llava_next",
    "paligemma": "paligemma",
    "qwen2_5_vl": "qwen",
    "qwen2_vl": "qwen",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3",
}
"""config.model_type -> module in `explorer.vlm.families`, which has open_model(origin). A new family is one
file there and one line here."""

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
    except TROUBLE as error:
        raise cannot(name, "its config", error) from error
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"'{name}' is of the family {config.model_type!r}; supported families: {known}")
    kind = dtype or (torch.float32 if place.type == "cpu" else "auto")
    module = importlib.import_module(f"explorer.vlm.families.{family}")
    return module.open_model(Origin(name, local, config, place, kind))


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
