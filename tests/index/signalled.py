"""Sends signals to forked builds of the command line. A program of its own: python signalled.py FOLDER.

Each child goes through the real door, `python -m index build`, but finds its modules loaded. The parent never
computes, so that forking it is safe. It prints exit codes and what was said, by signal, as JSON.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import loaded_once  # noqa: F401
import torch

import index.build
import index.commands.build  # noqa: F401  # loaded once, for all children


class Ended(NamedTuple):
    """How a build ended: its exit code, and the rest of what it said after the signal."""

    code: int
    words: str


def interrupted(out: Path, number: signal.Signals) -> Ended:
    """Send the signal to a build after its first pictures."""
    args = ["index", "build", "--scenes", "60", "--out", str(out), "--batch", "2", "--words", "none"]
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        os.dup2(writes, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = [*args, "--device", "cpu"]
        code = 1
        try:
            runpy.run_module("index", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writes)
    seen = b""
    while b"2/60" not in seen and (more := os.read(reads, 4096)):
        seen += more
    os.kill(child, number)
    with os.fdopen(reads) as stream:
        words = stream.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words)


if __name__ == "__main__":
    ended = {
        name: interrupted(Path(sys.argv[1]) / name, signal.Signals[name]) for name in ("SIGINT", "SIGTERM")
    }
    print(json.dumps(ended))
