"""Where a model comes from, and how its parts are read: for all families.

Every way in which that can fail becomes a `ModelError` in plain words. A folder is read without asking the
network; a hub name may download. Knows transformers' loading and nothing of towers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from explorer.errors import ModelError

TROUBLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)
"""What from_pretrained raises for missing, damaged or ill-fitting files, and without a network."""
Made = TypeVar("Made")


class Parts(NamedTuple):
    """The image processor (in its form without torchvision) and the tokenizer of a model."""

    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Origin:
    """Which model to open, and how. name: folder or hub name; local: whether it is a folder."""

    name: str
    local: bool
    config: PreTrainedConfig
    device: torch.device
    dtype: torch.dtype | str

    def reading(self, what: str, read: Callable[..., Made], **more: Any) -> Made:
        """`read(name, ...)`, a `from_pretrained`. Raises ModelError that names `what` could not be read."""
        try:
            return read(self.name, local_files_only=self.local, **more)
        except TROUBLE as error:
            raise cannot(self.name, what, error) from error

    def parts(self) -> Parts:
        """Part by part: as a whole a processor would take torchvision's resizing where that is installed."""
        return Parts(
            self.reading("its processor", AutoImageProcessor.from_pretrained, backend="pil"),
            self.reading("its processor", AutoTokenizer.from_pretrained),
        )

    def processor(self, kind: type[ProcessorMixin]) -> ProcessorMixin:
        """The processor of a family whose processor is an image processor and a tokenizer."""
        parts = list(self.parts())
        settings, _ = self.reading("its processor", kind.get_processor_dict)
        try:
            return kind.from_args_and_dict(parts, settings)
        except TROUBLE as error:
            raise cannot(self.name, "its processor", error) from error

    def model(self, kind: type[PreTrainedModel]) -> PreTrainedModel:
        """The model with its weights, on its device. Raises ModelError when weights are missing."""
        model, report = self.reading(
            "its weights", kind.from_pretrained, dtype=self.dtype, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise ModelError(
                f"the weights of '{self.name}' lack {len(missing)} tensors, {missing[0]} among them"
            )
        return model.to(self.device)

    def identity(self) -> str:
        """Name and hash: of the weight files of a folder, of the commit of a hub repository."""
        if not self.local:
            return f"{self.name}@{(getattr(self.config, '_commit_hash', None) or 'unknown')[:12]}"
        folder, digest = Path(self.name), hashlib.sha256()
        for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


def cannot(name: str, what: str, error: BaseException) -> ModelError:
    """An error in plain words: what could not be opened, and the first line of why."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"cannot open {what} from '{name}': {first_line}")
