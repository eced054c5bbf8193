"""Runs builds in forked children that are killed. A program of its own: python crashes.py FOLDER SOURCE.

The parent never computes, so that forking it is safe. It prints what happened, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fake_site import FakeLVLM, random_sae

from explorer.errors import ExplorerError
from explorer.store.pending import Pending
from explorer.vlm.base import Prepared
from index import merge as merging
from index import work
from index.build import BuildConfig, build
from index.part import Progress
from index.sources import FolderSource

work.LONGEST_SHARE = 0  # a checkpoint after every chunk
os.fsync = lambda descriptor: None  # the system keeps what a killed process wrote; disks are for power cuts
KILLS = 7


class SlowLVLM(FakeLVLM):
    """Takes its time, so that a kill falls anywhere. seconds: for a batch."""

    seconds = 0.0

    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """As the fake one, later."""
        time.sleep(self.seconds)
        return super().tower(pixel_values, block, like)


def run(out: Path, source: Path, before: Callable[[], None] = lambda: None) -> str:
    """Build in this process; returns the error's words, or "" when all went well."""
    before()
    config = BuildConfig(out, batch=4, places=4, words="none", checkpoint_every=0)
    try:
        build(config, FolderSource(source), SlowLVLM(), random_sae())
    except ExplorerError as error:
        return str(error)
    return ""


def forked(job: Callable[[], str], doomed: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Run a job in a child; kill it as soon as `doomed` says so. Its wait status, and what it returned."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        os.write(writes, job().encode())
        os._exit(0)
    os.close(writes)
    if doomed is not None:
        while not doomed():
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reads) as stream:  # which its own children may hold open: not read when it said nothing
        return status, "" if os.WIFSIGNALED(status) else stream.read()


def after(seconds: float) -> Callable[[], bool]:
    """Something that says whether so much time has passed from now on."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def at_random_moments(out: Path, source: Path, seed: int) -> dict:
    """Kill the build again and again after random times; let the last run end."""
    dice = random.Random(seed)
    kills, SlowLVLM.seconds = 0, 0.05
    for _ in range(KILLS):
        status, words = forked(lambda: run(out, source), after(dice.uniform(0.05, 0.25)))
        kills += os.WIFSIGNALED(status)
        if words or not os.WIFSIGNALED(status):
            break
    SlowLVLM.seconds = 0.0
    status, words = forked(lambda: run(out, source))
    return {"kills": kills, "status": status, "words": words}


def at_each_step(out: Path, source: Path, seed: int) -> dict:
    """Kill the build at random calls of what makes progress durable, once per run."""
    dice = random.Random(seed)
    kills = 0
    for _ in range(KILLS):
        status, words = forked(lambda: run(out, source, lambda: die_at(dice.randrange(1, 120))))
        dice.random()
        kills += os.WIFSIGNALED(status)
        if words or not os.WIFSIGNALED(status):
            break
    status, words = forked(lambda: run(out, source))
    return {"kills": kills, "status": status, "words": words}


def with_workers(out: Path, source: Path) -> dict:
    """Kill a build that has worker processes, and run it again while they are still there."""

    def build_in_workers() -> str:
        config = BuildConfig(out, batch=4, places=4, words="none", checkpoint_every=0, workers=2)
        try:
            build(config, FolderSource(source), SlowLVLM(), random_sae())
        except ExplorerError as error:
            return str(error)
        return ""

    SlowLVLM.seconds = 0.05
    folder = work.work_folder(out, None)
    killed, _ = forked(build_in_workers, lambda: any(folder.glob("state-*")))
    SlowLVLM.seconds = 0.0
    status, words = forked(build_in_workers)
    return {"kills": int(os.WIFSIGNALED(killed)), "status": status, "words": words}


def at_publishing(out: Path, source: Path) -> dict:
    """Kill the last act, with an earlier store in place, at its first step, then its second, and so on."""
    forked(lambda: run(out, source))
    kills, missing = 0, 0
    atomic = merging.atomic
    while kills < 100:

        def doomed(target: Path, step: int = kills) -> object:
            die_at(step)
            return atomic(target)

        merging.atomic = doomed
        status, words = forked(lambda: run(out, source))
        if words or not os.WIFSIGNALED(status):
            break
        kills += 1
        missing += not (out / "manifest.json").exists()
    return {"kills": kills, "missing": missing, "status": status, "words": words}


def die_at(step: int) -> None:
    """Kill this process at the `step`-th call of a function that writes, renames or removes."""
    left = [step]

    def deadly(function: Callable) -> Callable:
        def counted(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted

    os.fsync = deadly(os.fsync)
    np.save = deadly(np.save)
    shutil.rmtree = deadly(shutil.rmtree)
    for owner, name in ((Path, "rename"), (Path, "mkdir"), (Pending, "commit"), (Pending, "keep")):
        setattr(owner, name, deadly(getattr(owner, name)))


def on_a_full_disk(out: Path, source: Path, limit: int) -> dict:
    """Let no file grow beyond `limit` bytes from the third chunk on; then build on without a limit."""

    def full(progress: Progress) -> None:
        if progress.done >= 12:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def limited() -> str:
        config = BuildConfig(out, batch=4, places=4, words="none", checkpoint_every=0)
        try:
            build(config, FolderSource(source), SlowLVLM(), random_sae(), full)
        except ExplorerError as error:
            return str(error)
        return ""

    _, words = forked(limited)
    folder = work.work_folder(out, None)
    states = sorted(path.name for path in folder.glob("state-*")) if folder.exists() else []
    left = sorted(path.name for path in out.parent.iterdir())
    status, after = forked(lambda: run(out, source))
    return {"words": words, "states": states, "left": left, "status": status, "after": after}


def main(folder: Path, source: Path) -> dict[str, dict]:
    """Crash in every way, each in a folder of its own."""
    jobs: dict[str, Callable[[Path], dict]] = {
        "moments": lambda out: at_random_moments(out, source, seed=7),
        "steps": lambda out: at_each_step(out, source, seed=7),
        "workers": lambda out: with_workers(out, source),
        "publishing": lambda out: at_publishing(out, source),
        "full at 2000": lambda out: on_a_full_disk(out, source, limit=2_000),
        "full at 60000": lambda out: on_a_full_disk(out, source, limit=60_000),
    }
    found = {}
    for name, job in jobs.items():
        (folder / name).mkdir()
        found[name] = job(folder / name / "store")
    return found


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:]))))
