"""What a session runs on: device and kind of numbers, memory of this process and of its accelerator."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from explorer.sae import SAE
from explorer.vlm.base import LVLM

_STATM = Path("/proc/self/statm")


class Memory(NamedTuple):
    """Bytes. process: what this process holds of the main memory; device_used, device_total: of the
    accelerator, by all who use it; None on a CPU."""

    process: int
    device_used: int | None = None
    device_total: int | None = None


def memory(device: str = "cpu") -> Memory:
    """The memory in use now. device: as torch names it, such as "cuda:0"."""
    if torch.device(device).type != "cuda":
        return Memory(_process())
    free, total = torch.cuda.mem_get_info(device)
    return Memory(_process(), total - free, total)


def _process() -> int:
    """Resident bytes; where the system does not tell, the most that there ever were."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Running(NamedTuple):
    """What the model computes on and in. device: of the vision side, and how many cards the rest takes;
    quantized: "8bit", "4bit" or None, of the language model."""

    device: str
    dtype: str
    quantized: str | None = None

    def words(self) -> str:
        """For people: "cuda:0, bfloat16, 4bit"."""
        return ", ".join(part for part in self if part)


def running(lvlm: LVLM, sae: SAE) -> Running:
    """How an opened model runs; of one that does not tell, where its SAE lies."""
    model = getattr(lvlm, "model", None)
    if model is None:
        return Running(device_of(sae), str(sae.W_enc.dtype).removeprefix("torch."))
    cards = {str(card) for card in (getattr(model, "hf_device_map", None) or {}).values()}
    bits = "8bit" if getattr(model, "is_loaded_in_8bit", False) else None
    bits = "4bit" if getattr(model, "is_loaded_in_4bit", False) else bits
    device = f"{model.device}{f' and {len(cards) - 1} more' if len(cards) > 1 else ''}"
    return Running(device, str(model.dtype).removeprefix("torch."), bits)


def device_of(sae: SAE) -> str:
    """Where the SAE, and so the model, computes: "cpu", "cuda:0"."""
    return str(sae.W_enc.device)
