"""Opens a model by folder or hub name: looks up its family, which loads it.

Every way in which that can fail becomes a `ModelError` in plain words. A folder is read without
asking the network; a hub name may download. transformers is loaded only when a model is opened.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from explorer.errors import ModelError
from explorer.vlm.base import LVLM
from explorer.vlm.loading import Dtype, Loading, Tell, silent
from explorer.vlm.loading.refusals import Place, check_config, folder_config, locate

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FAMILIES: dict[str, str] = {
    "idefics3": "idefics3",
    "instructblip": "instructblip",
    "internvl": "internvl",
    "llava": "llava",
    "llava_next": "llava_next",
    "paligemma": "paligemma",
    "qwen2_5_vl": "qwen",
    "qwen2_vl": "qwen",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3",
    "smolvlm": "idefics3",
}
"""config.model_type -> module in `explorer.vlm.families`, which has open_model(origin). A new family is one
file there and one line here."""

OWN_SIZE = ("qwen", "qwen3")
"""Families that read a picture in its own size, up to a limit."""


def open_lvlm(
    model: str | Path,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    *,
    loading: Loading | None = None,
    beside: int = 0,
    tell: Tell = silent,
) -> LVLM:
    """Open the model in a folder, or of a hub name ("owner/name" or "owner/name@revision").

    loading: how; device, dtype: instead of its own. beside: bytes of the SAE that will lie on the same
    device; tell: hears what memory a large model needs, before it is loaded. Raises ModelError when it
    cannot be opened, is of a family that is not supported, or cannot fit.
    """
    how = loading or Loading()
    if device is not None:
        how = replace(how, device=device)
    place = locate(model, how.revision)
    how, where = replace(how.loading, revision=place.revision), device_of(how)
    config, commit = _config(place, how)
    family = FAMILIES[config.model_type]
    if how.max_pixels is not None and family not in OWN_SIZE:
        raise ModelError(
            f"'{place.name}' reads pictures in sizes of its own choice: leave out --max-pixels, which is for "
            "models that read each in its own size (Qwen)"
        )
    chosen = dtype or (None if how.dtype is None else getattr(torch, how.dtype))
    if chosen is None and where.type == "cpu":
        chosen = torch.float32
    from explorer.vlm.origin import Origin

    module = importlib.import_module(f"explorer.vlm.families.{family}")
    return module.open_model(
        Origin(place.name, place.local, config, where, chosen, how, commit, beside, tell)
    )


def _config(place: Place, how: Loading) -> tuple[PreTrainedConfig, str | None]:
    """The config of a supported family, and the commit it was read from, None for a folder.

    It is read as a dictionary first, so that no code of a repository runs unasked. Raises ModelError.
    """
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # else a service is asked to convert *.bin
    from transformers import AutoConfig, PreTrainedConfig
    from transformers.utils import cached_file, logging
    from transformers.utils.hub import extract_commit_hash

    from explorer.vlm.origin import TROUBLE, cannot

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a log is no place for bars
    name, settings = place.name, {"local_files_only": place.local}
    if place.local:
        check_config(name, folder_config(Path(name)), FAMILIES, how.trust_remote_code)
    else:
        settings["revision"] = how.revision
    try:
        written, _ = PreTrainedConfig.get_config_dict(name, **settings)
        check_config(name, written, FAMILIES, how.trust_remote_code)
        config = AutoConfig.from_pretrained(name, trust_remote_code=how.trust_remote_code, **settings)
        if place.local:
            return config, None
        path = cached_file(name, "config.json", revision=how.revision, local_files_only=True)
    except TROUBLE as error:
        raise cannot(name, "its config", error, not place.local, how.revision) from error
    return config, extract_commit_hash(path, None)


def checkpoint_dtype(model: str | Path, loading: Loading | None = None) -> Dtype:
    """The dtype in which a model is opened on a GPU unless another is asked for; read off its config.

    Raises ModelError as `open_lvlm`.
    """
    from explorer.vlm.origin import Origin

    kind = Origin(str(model), False, config_of(model, loading), torch.device("meta")).kind()
    return str(kind).removeprefix("torch.")  # type: ignore[return-value]


def config_of(model: str | Path, loading: Loading | None = None) -> PreTrainedConfig:
    """The config of a model that can be opened. Raises ModelError as `open_lvlm`."""
    how = loading or Loading()
    place = locate(model, how.revision)
    return _config(place, replace(how.loading, revision=place.revision))[0]


def device_of(how: Loading) -> torch.device:
    """The device of the vision side. Raises ModelError for one that is not there."""
    if how.device_map and not torch.cuda.is_available():
        raise ModelError("--device-map auto needs CUDA cards, and there is none here; leave it out")
    if how.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(how.device)
    if device.type == "cuda":
        cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not cards:
            raise ModelError(f"device {how.device!r} was asked for, but no CUDA device is available; use cpu")
        if (device.index or 0) >= cards:
            raise ModelError(f"device {how.device!r} was asked for, but there is cuda:0 to cuda:{cards - 1}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' was asked for, but this machine has none; use cpu")
    return device
