"""The stage alone: top-16 and statistics from sparse activations, beside the running top-k of peers.

One thread, no model. Knows the stage; nothing of pictures or stores.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from index.bench.synthetic import Load, chunks
from index.stage.codes import Codes, EncodedChunk, beating, pool, runs_of, select
from index.stage.places import Places, bids_by_score
from index.stage.state import BuildState, StateShape

SAMPLE = 4096
COMPARED = 24
"""Chunks on which the ways are compared, after the run."""


class Window(NamedTuple):
    """Images `begin` to `end` of a run: images per second, and the most memory so far in GiB."""

    begin: int
    end: int
    rate: float
    memory: float


class Compared(NamedTuple):
    """Images per second of the whole stage, of our top-16 alone, and of the quickest running top-k of peers
    (pooling to dense scores included), all on the same chunks; `peer` names it."""

    stage: float
    top: float
    peers: float
    peer: str


def run(load: Load, images: int, windows: int = 10, seed: int = 0) -> Iterator[Window | Compared]:
    """Take in `images` synthetic images, telling of each window; at the end compare with peers."""
    torch.set_num_threads(1)
    rate = min(1.0, SAMPLE / max(images, 1))
    shape = StateShape(load.neurons, load.patches, load.side, load.side, load.width, sample_rate=rate)
    state = BuildState(shape)
    source = chunks(load, seed=seed)
    n_chunks = max(1, images // load.batch)
    edges = [0, *(round(n_chunks * (w + 1) / windows) for w in range(windows))]
    for begin, end in pairwise(edges):
        spent = sum(_timed(lambda chunk: state.take(chunk), next(source)) for _ in range(begin, end))
        count = (end - begin) * load.batch
        if count:
            yield Window(begin * load.batch, end * load.batch, count / spent, memory())
    yield compare(state, load, [next(source) for _ in range(COMPARED)])


def memory() -> float:
    """The most memory that this process ever held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare(state: BuildState, load: Load, some: list[EncodedChunk]) -> Compared:
    """The whole stage, our top-16 and the peers' on the same chunks, by turns."""
    ours = Places(load.neurons, 16, load.patches)
    ours.absorb("top", [state.top.arrays("top")])
    ways = {
        "stage": state.take,
        "top": lambda chunk: _top_alone(ours, chunk, load.neurons),
        **{name: way(state.top.score, load.neurons) for name, way in PEERS.items()},
    }
    spent = dict.fromkeys(ways, 0.0)
    for chunk in some:
        for name, take in ways.items():
            spent[name] += _timed(take, chunk)
    rates = {name: len(some) * load.batch / seconds for name, seconds in spent.items()}
    peer = max(PEERS, key=rates.__getitem__)
    return Compared(rates["stage"], rates["top"], rates[peer], peer)


def _timed(take: Callable[[EncodedChunk], object], chunk: EncodedChunk) -> float:
    started = time.perf_counter()
    take(chunk)
    return time.perf_counter() - started


def _top_alone(table: Places, chunk: EncodedChunk, n_neurons: int) -> None:
    """What of the stage gives the exemplars and their maps."""
    numbers = np.array([item.number for item in chunk.items], dtype=np.int64)
    pools = pool(chunk.codes, n_neurons, "mean")
    groups = beating(pools, table.least)
    bids = bids_by_score(table, groups, numbers)
    runs = runs_of(pools, select(groups, bids.group))
    table.take(bids._replace(group=np.arange(len(bids.row))), runs)


def dense_scores(codes: Codes, n_neurons: int) -> torch.Tensor:
    """Mean activations as a dense table, a row per neuron: [F, b] float32."""
    place = torch.from_numpy(codes.neuron.astype(np.int64) * codes.n_images + codes.image)
    pooled = torch.zeros(n_neurons * codes.n_images)
    pooled.scatter_add_(0, place, torch.from_numpy(codes.value))
    return pooled.view(n_neurons, codes.n_images).div_(codes.n_patches)


def _topk(sort: bool) -> Callable[[np.ndarray, int], Callable[[EncodedChunk], None]]:
    """The running `cat` and `topk` in torch; the scores so far are [F, 16]."""

    def start(scores: np.ndarray, n_neurons: int) -> Callable[[EncodedChunk], None]:
        best, ids = torch.from_numpy(scores.copy()), torch.zeros(scores.shape, dtype=torch.int64)

        def take(chunk: EncodedChunk) -> None:
            nonlocal best, ids
            new = torch.tensor([item.number for item in chunk.items]).expand(n_neurons, -1)
            both = torch.cat([best, dense_scores(chunk.codes, n_neurons)], 1)
            best, at = both.topk(16, dim=1, sorted=sort)
            ids = torch.cat([ids, new], 1).gather(1, at)

        return take

    return start


def _argpartition(scores: np.ndarray, n_neurons: int) -> Callable[[EncodedChunk], None]:
    """The same with numpy's argpartition."""
    best, ids = scores.copy(), np.zeros(scores.shape, dtype=np.int64)

    def take(chunk: EncodedChunk) -> None:
        nonlocal best, ids
        new = np.array([item.number for item in chunk.items])
        both = np.concatenate([best, dense_scores(chunk.codes, n_neurons).numpy()], axis=1)
        names = np.concatenate([ids, np.broadcast_to(new, (n_neurons, len(new)))], axis=1)
        at = np.argpartition(both, -16, axis=1)[:, -16:]
        best, ids = np.take_along_axis(both, at, axis=1), np.take_along_axis(names, at, axis=1)

    return take


PEERS = {"topk": _topk(True), "topk, unsorted": _topk(False), "argpartition": _argpartition}
