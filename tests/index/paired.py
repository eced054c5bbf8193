"""Trains as two processes over gloo. A program of its own: python paired.py FOLDER MODEL.

The parent never computes, so that forking it is safe. The children first take the same steps on halves of
fixed batches; then they run `train-sae` as the command line does, once undisturbed, once stopped by the
second of them and resumed. What they found is left in FOLDER.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import count
from pathlib import Path

import accelerate.utils  # noqa: F401  # loaded once, for both children
import loaded_once  # noqa: F401
import torch

import index.commands.train_sae
import index.training.run  # noqa: F401
from explorer.sae.config import TrainConfig
from explorer.sae.team import ALONE, Team
from explorer.sae.training import StepReport, Trainer, train
from index.__main__ import main
from index.stopping import StopRequests
from index.training.processes import join

CONFIG = TrainConfig(
    expansion=4, k=2, steps=12, batch=32, warmup=3, decay_start=8, threshold_start=2,
    norm_batches=2, dead_after=100, lr=1e-2,
)  # fmt: skip


def environment() -> dict[str, str]:
    """Of programs like this one: they find the packages, and compute in one thread."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def fixed_batches() -> list[torch.Tensor]:
    """Batches [32, 6] for the norm and the steps; a third of the neurons will be dead."""
    dice = torch.Generator().manual_seed(3)
    parts = torch.randn(12, 6, generator=dice)
    weights = torch.rand(14, 32, 12, generator=dice) * (torch.rand(14, 32, 12, generator=dice) < 0.15)
    return list(5 * weights @ parts + torch.randn(6, generator=dice))


def steps(config: TrainConfig, batches: Iterator[torch.Tensor], team: Team = ALONE) -> dict[str, object]:
    """What a training finds: the reports of all steps, and the state before the last one."""
    reports: list[StepReport] = []
    found: list[list] = []

    def keep(trainer: Trainer) -> None:
        found.append(deepcopy([[p.detach() for p in trainer.parameters], trainer.unfired]))

    train(config, batches, team=team, on_step=reports.append, measure=keep, measure_every=11)
    parameters, unfired = found[0]
    return {"parameters": parameters, "unfired": unfired, "reports": [tuple(one) for one in reports]}


def words(folder: Path, model: str, *more: str) -> list[str]:
    """A small training by the command line."""
    small = "--scenes 24 --steps 8 --batch 64 --buffer 512 --reuse 2 --held-out 5 --expansion 2 --k 3"
    small += " --captions 3 --evaluate-every 3 --checkpoint-every 2 --tower-batch 2 --quiet --device cpu"
    files = ["--out", f"{folder}/sae.safetensors", "--checkpoint", f"{folder}/run/state.pt"]
    return ["train-sae", *small.split(), *files, "--model", model, *more]


def child(rank: int, port: int, folder: Path, model: str) -> int:
    """What each of the two does."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    sys.stdout = (folder / f"out-{rank}.txt").open("w")
    team = join("cpu").team
    assert team.gathered(torch.arange(3 * rank)).tolist() == [0, 1, 2], "of different lengths"
    assert team.gathered(torch.zeros(0, 4)).shape == (0, 4)
    for bf16 in (False, True):
        mine = iter([batch.chunk(2)[rank] for batch in fixed_batches()])
        torch.save(steps(replace(CONFIG, bf16=bf16), mine, team), folder / f"steps-{rank}-{bf16}.pt")
    whole = main(words(folder, model))
    asked = StopRequests.asked
    times = count()
    StopRequests.asked = lambda self: rank == 1 and next(times) == 4
    halted = main(words(folder / "b", model))
    StopRequests.asked = asked
    (folder / f"code-{rank}.txt").write_text(str(halted))
    resumed = main(words(folder / "b", model, "--resume"))
    sys.stdout.flush()
    return whole or resumed


def spawn(folder: Path, model: str) -> list[int]:
    """Fork the two, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in (0, 1):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = child(rank, port, folder, model)
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


if __name__ == "__main__":
    sys.exit(max(spawn(Path(sys.argv[1]), sys.argv[2])))
