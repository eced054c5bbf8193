"""The command that trains the embedded LVLM: `python -m explorer.world.train --out runs/lvlm`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from explorer.world.training import TrainConfig, train


def main() -> None:
    """Parse arguments and train; a stopped run resumes."""
    parser = argparse.ArgumentParser(prog="python -m explorer.world.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/lvlm"), help="checkpoints, log and model go here"
    )
    parser.add_argument("--batch", type=int, default=64, help="scenes per step")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the steps of every stage")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="faster on a CPU; needs a C++ compiler")
    args = parser.parse_args()
    log = args.out / "log.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(line, flush=True)
        with log.open("a") as file:
            file.write(line + "\n")

    print(train(TrainConfig(**vars(args)), say))


if __name__ == "__main__":
    main()
