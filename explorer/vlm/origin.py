"""Where a model comes from, and how its parts are read: for all families.

Every way in which that can fail becomes a `ModelError` in plain words. A folder is read without asking the
network; a hub name may download. Knows transformers' loading and nothing of towers.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from explorer.errors import ModelError
from explorer.vlm.loading import Loading, Tell, silent
from explorer.vlm.loading.full import full_told, is_full
from explorer.vlm.loading.hub import hub_words
from explorer.vlm.loading.identity import weight_bytes, weights_digest
from explorer.vlm.loading.memory import (
    free_memory,
    need_of,
    on_meta,
    refuse_too_large,
    told,
)
from explorer.vlm.loading.parts import parts_of
from explorer.vlm.loading.spread import spread

TROUBLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    ImportError,
    EOFError,
    UnpicklingError,
    SafetensorError,
)
"""What from_pretrained raises for missing, damaged or ill-fitting files, and without a network."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
"""Files of an image processor and of a tokenizer: one of them is always there."""
UNTOLD = 1 << 30
"""Bytes of weights up to which nothing is told of the memory."""
UNWEIGHED = 1 << 28
"""Bytes of a folder's weights up to which they are not even reckoned."""
REMOTE_CODE = ("custom code", "trust_remote_code")
Made = TypeVar("Made")


class Parts(NamedTuple):
    """The image processor (in its form without torchvision) and the tokenizer of a model."""

    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Origin:
    """Which model to open, and how.

    name: folder or hub name; local: whether it is a folder; device: of the vision side; dtype: None for the
    checkpoint's own; loading: the rest; commit: of a hub name, so that all parts are read from one state;
    beside: bytes of the SAE that will lie on the same device; tell: hears how much memory is needed.
    """

    name: str
    local: bool
    config: PreTrainedConfig
    device: torch.device
    dtype: torch.dtype | None = None
    loading: Loading = field(default_factory=Loading)
    commit: str | None = None
    beside: int = 0
    tell: Tell = silent

    def reading(self, what: str, read: Callable[..., Made], **more: Any) -> Made:
        """`read(name, ...)`, a `from_pretrained`. Raises ModelError that names `what` could not be read."""
        if not self.local:
            more["revision"] = self.commit or self.loading.revision
        if getattr(getattr(read, "__self__", None), "__name__", "").startswith("Auto"):
            more["trust_remote_code"] = self.loading.trust_remote_code  # None would ask at the keyboard
        try:
            return read(self.name, local_files_only=self.local, **more)
        except TROUBLE as error:
            if is_full(error):
                raise
            raise self.cannot(what, error) from error

    def cannot(self, what: str, error: BaseException) -> ModelError:
        """An error in plain words: what could not be opened, and why."""
        return cannot(self.name, what, error, not self.local, self.loading.revision)

    def parts(self) -> Parts:
        """Part by part: as a whole a processor would take torchvision's resizing where that is installed."""
        self._holds("processor", PROCESSORS)
        images = self.reading("its processor", AutoImageProcessor.from_pretrained, backend="pil")
        return Parts(images, self.tokenizer())

    def tokenizer(self, subfolder: str = "") -> PreTrainedTokenizerBase:
        """The tokenizer. Raises ModelError also where transformers, for want of files, makes an empty one."""
        self._holds("tokenizer", TOKENIZERS, subfolder)
        found = self.reading("its tokenizer", AutoTokenizer.from_pretrained, subfolder=subfolder)
        if not found.get_vocab().keys() - found.get_added_vocab().keys():
            raise ModelError(f"cannot open its tokenizer from '{self.name}': its files hold no words")
        return found

    def _holds(self, what: str, names: tuple[str, ...], subfolder: str = "") -> None:
        """Raise ModelError for a folder that has none of some files."""
        folder = Path(self.name) / subfolder
        if self.local and not any(found for name in names for found in folder.glob(name)):
            raise ModelError(
                f"cannot open its {what} from '{self.name}': {subfolder or 'the folder'} holds no "
                f"{' or '.join(names)}; copy it from where the model came from"
            )

    def processor(self, kind: type[ProcessorMixin]) -> ProcessorMixin:
        """The processor of a family whose processor is an image processor and a tokenizer."""
        parts = list(self.parts())
        settings, _ = self.reading("its processor", kind.get_processor_dict)
        try:
            return kind.from_args_and_dict(parts, settings)
        except TROUBLE as error:
            raise self.cannot("its processor", error) from error

    def model(self, kind: type[PreTrainedModel]) -> PreTrainedModel:
        """The model with its weights, on its devices.

        Raises ModelError when weights are missing, or when the memory does not do: before anything is
        loaded where that is clear.
        """
        dtype = self.kind()
        placed = self._placed(kind, dtype)
        with full_told(f"while '{self.name}' was opened"):
            model, report = self.reading(
                "its weights", kind.from_pretrained, dtype=dtype, output_loading_info=True, **placed
            )
            if missing := sorted(report["missing_keys"]):
                raise ModelError(
                    f"the weights of '{self.name}' lack {len(missing)} tensors, {missing[0]} among them"
                )
            return model if "device_map" in placed else model.to(self.device)

    def kind(self) -> torch.dtype:
        """The dtype of the weights: as asked for, else the checkpoint's own."""
        own = getattr(self.config, "dtype", None) or getattr(self.config.get_text_config(), "dtype", None)
        return self.dtype or (own if isinstance(own, torch.dtype) else torch.float32)

    def _placed(self, kind: type[PreTrainedModel], dtype: torch.dtype) -> dict[str, Any]:
        """How from_pretrained places and quantises; told, and refused if it cannot fit, beforehand."""
        how = self.loading
        small = self.local and weight_bytes(Path(self.name)) < UNWEIGHED
        if small and not how.quantize and not how.device_map:
            return {} if self.device.type == "cpu" else {"device_map": {"": self.device}}
        bare = on_meta(kind, self.config)
        placed: dict[str, Any] = {}
        if how.quantize:
            placed["quantization_config"] = _quantisation(bare, how.quantize, dtype)
        if how.device_map:
            cards = [free_memory(torch.device("cuda", place)) for place in range(torch.cuda.device_count())]
            placed["device_map"] = spread(bare, dtype, [c.bytes for c in cards], how.quantize, self.beside)
        elif how.quantize or self.device.type != "cpu":
            placed["device_map"] = {"": self.device}
        self._tell(bare, dtype)
        return placed

    def _tell(self, bare: PreTrainedModel, dtype: torch.dtype) -> None:
        """Tell what the model needs. Raises ModelError when one device is asked for that is too small."""
        how, need = self.loading, need_of(bare, dtype, self.loading.quantize)
        words = str(dtype).removeprefix("torch.") + (f" and {how.quantize}" if how.quantize else "")
        free = free_memory(self.device)
        if how.device_map:
            sizes = [free_memory(torch.device("cuda", n)).bytes for n in range(torch.cuda.device_count())]
            free = free._replace(device=f"{len(sizes)} cards together", bytes=sum(sizes))
        else:
            cards = torch.cuda.device_count() if self.device.type == "cuda" else 0
            refuse_too_large(self.name, need, free, how, dtype, self.beside, cards - 1)
        if need.weights > UNTOLD:
            self.tell(told(self.name, need, words, free, self.beside))

    def identity(self) -> str:
        """Name and hash: of the weights of a folder, of the commit of a hub repository."""
        if not self.local:
            return f"{self.name}@{(self.commit or 'unknown')[:12]}"
        folder = Path(self.name)
        return f"{folder.resolve().name}@{weights_digest(folder)[:12]}"


def _quantisation(bare: PreTrainedModel, bits: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Only the layers of the language model: what the SAE sees, and the scores, keep their values.

    Raises ModelError without bitsandbytes.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"--quantize {bits} needs the package bitsandbytes, which is not installed; install it with: "
            "pip install bitsandbytes"
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # 8 bits would speak up at every matrix
    kept = [part.name for part in parts_of(bare) if part.role != "layer"]
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def cannot(
    name: str, what: str, error: BaseException, hub: bool = False, revision: str | None = None
) -> ModelError:
    """An error in plain words: what could not be opened, and why. hub: whether it comes from there."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    why = (hub_words(error, name, revision) if hub else None) or first_line
    if isinstance(error, KeyError):
        why = f"one of its files lacks {first_line}"
    if isinstance(error, SafetensorError):
        why = f"a *.safetensors file is damaged or cut short ({first_line}); fetch it again"
    if any(words in str(error) for words in ("tiktoken", "SentencePiece", "sentencepiece")):
        why = (
            "there is no tokenizer.json, and its older form (tokenizer.model) needs the package "
            "sentencepiece: pip install sentencepiece, or take a copy with tokenizer.json"
        )
    if "ignore_mismatched_sizes" in str(error):
        why = "they do not have the shapes that its config.json says: the two belong to different models"
    if isinstance(error, UnpicklingError):
        why = (
            "a *.bin file is damaged, or asks for more than tensors, which was not done; take a copy with "
            "*.safetensors"
        )
    if all(words in str(error) for words in REMOTE_CODE):
        why = (
            "it would run Python code from its repository, which may do whatever you may; that is run only "
            "with --trust-remote-code"
        )
    return ModelError(f"cannot open {what} from '{name}': {why}")
