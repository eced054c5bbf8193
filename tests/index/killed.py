"""Kills a training at random moments and resumes it. A program of its own: python killed.py FOLDER MODEL.

Each child goes through `python -m index train-sae`, but finds its modules loaded. The parent never computes,
so that forking it is safe. It prints the exit codes as JSON.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path

import loaded_once  # noqa: F401
import torch

import index.commands.train_sae
import index.training.run  # noqa: F401  # loaded once, for all children

KILLS = 4


def start(folder: Path, model: str, *more: str) -> int:
    """Fork a training; its process id."""
    small = "--scenes 24 --steps 24 --batch 64 --buffer 512 --reuse 2 --held-out 5 --expansion 2 --k 3"
    small += " --captions 2 --evaluate-every 5 --checkpoint-every 3 --tower-batch 2 --workers 2 --device cpu"
    files = ["--out", f"{folder}/sae.safetensors", "--checkpoint", f"{folder}/state.pt"]
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)
    for stream, name in ((1, "out.txt"), (2, "err.txt")):
        path = folder / name
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = ["index", "train-sae", *small.split(), *files, "--model", model, *more]
    code = 1
    try:
        runpy.run_module("index", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """How a child ended, once it has."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(folder: Path, model: str) -> dict[str, list[int]]:
    """One undisturbed training, and one that is killed again and again; their exit codes."""
    for name in ("calm", "harried"):
        (folder / name).mkdir()
    began = time.monotonic()
    calm = ended(start(folder / "calm", model))
    took = time.monotonic() - began
    dice, codes = random.Random(took), []
    for attempt in range(100):
        note = folder / "harried" / "state.json"
        child = start(folder / "harried", model, *(["--resume"] if note.is_file() else []))
        if attempt < KILLS:
            time.sleep(dice.uniform(0.1, 0.9) * took)
            os.kill(child, dice.choice([signal.SIGKILL, signal.SIGTERM]))
        codes.append(ended(child))
        if attempt >= KILLS and not codes[-1]:
            break
    return {"calm": [calm], "harried": codes}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), sys.argv[2])))
