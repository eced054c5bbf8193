"""What the machine has left: memory of this process and of its accelerator. Knows nothing of models."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from explorer.sae import SAE

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


def device_of(sae: SAE) -> str:
    """Where the SAE, and so the model, computes: "cpu", "cuda:0"."""
    return str(sae.W_enc.device)
