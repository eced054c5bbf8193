"""A step of SAE training beside a plain dense implementation of the same loss, by turns on the same batches.

Only the forward and backward pass differ: both start from the same weights and share optimiser, clipping and
the decoder's normalisation. Knows the trainer; nothing of pictures.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from explorer.errors import SAEError
from explorer.sae.config import TrainConfig
from explorer.sae.training import Forward, StepReport, Trainer

WARM = 2
"""Steps of either side before any is timed."""
PARTS, SHOWN, NOISE = 4096, 16, 0.1
"""Made-up vectors: of so many directions about so many at once, and noise of this share of their length."""


class DenseTrainer(Trainer):
    """The same training with dense activations: all but the largest are zeros, multiplied like the rest."""

    def forward(self, x: Tensor) -> Forward:
        """The losses by the dense formulas, as peers' trainers compute them."""
        config = self.config
        p = torch.relu(torch.addmm(self.b_enc, x - self.b_dec, self.encoder.T))
        top = p.flatten().topk(config.k * len(x), sorted=False)
        z = torch.zeros_like(p).flatten().scatter(0, top.indices, top.values).view_as(p)
        recon, start, groups = self.b_dec.expand_as(x), 0, []
        for end in self.boundaries.tolist():
            recon = recon + z[:, start:end] @ self.decoder[start:end]
            groups.append((x - recon).square().sum(1).mean())
            start = end
        kept = top.values.detach() > 0
        self.note_cut(float(top.values.detach()[kept].min()) if bool(kept.any()) else 0.0)
        dead = self.count(top.indices[kept] % len(self.encoder), len(x))
        loss = (torch.stack(groups) * self.weights).mean()
        return Forward(loss, groups[-1].detach(), self._aux((x - recon).detach(), p, dead), len(dead))

    def _aux(self, residual: Tensor, p: Tensor, dead: Tensor) -> Tensor:
        """How badly the dead neurons alone explain the residual, from all pre-activations p [B, F]."""
        if not len(dead):
            return residual.new_zeros(())
        others = torch.ones(p.shape[1], dtype=torch.bool, device=p.device)
        others[dead] = False
        best = p.masked_fill(others, -torch.inf).topk(min(self.width // 2, len(dead)))
        explained = torch.zeros_like(p).scatter(1, best.indices, best.values) @ self.decoder
        spread = (residual - residual.mean(0)).square().sum(1).mean()
        return ((residual - explained).square().sum(1).mean() / spread).nan_to_num(0.0)


class Load(NamedTuple):
    """What is measured: the width d of the vectors, F neurons, K of them active, vectors per step."""

    width: int = 1024
    neurons: int = 16_384
    k: int = 20
    batch: int = 1024
    bf16: bool = False
    device: str = "cpu"


class Turn(NamedTuple):
    """A step of either side on the same batch.

    ours, dense: seconds; ours_memory, dense_memory: the most bytes in use meanwhile beyond those before (None
    where the system does not tell); apart: how far their losses are apart, as a share.
    """

    ours: float
    dense: float
    ours_memory: int | None
    dense_memory: int | None
    apart: float


class Bound(NamedTuple):
    """What arithmetic and memory allow, of one step.

    encode: multiplications and additions of the one dense product that both need; ours, dense: of all
    products; traffic: bytes that optimiser, clipping and normalisation move, at least; rate, bandwidth: what
    this machine reaches, per second, in a bare product of these shapes and in a bare Adam step; ours_seconds,
    dense_seconds: what follows for either side; ratio: of these.
    """

    encode: float
    ours: float
    dense: float
    traffic: float
    rate: float
    bandwidth: float
    ours_seconds: float
    dense_seconds: float

    @property
    def ratio(self) -> float:
        """How many times quicker the sparse step could be, at most."""
        return self.dense_seconds / self.ours_seconds


class Summary(NamedTuple):
    """All turns together. ours, dense: median seconds; ratio: how many times quicker ours was, in the median
    over the turns; bound: what is possible."""

    ours: float
    dense: float
    ratio: float
    bound: Bound


def run(load: Load, turns: int = 5, seed: int = 0) -> Iterator[Turn | Summary]:
    """Step both by turns, telling of each; at the end the summary. Raises SAEError for odd sizes."""
    trainers = [
        kind(config_of(load), load.width, 1.0, torch.device(load.device)) for kind in (Trainer, DenseTrainer)
    ]
    source = vectors(load, seed)
    for _ in range(WARM):
        batch = next(source)
        for trainer in trainers:
            trainer.step(batch)
    seen = []
    for number in range(turns):
        batch = next(source)
        order = trainers if number % 2 == 0 else trainers[::-1]
        found = {type(trainer): _measured(trainer, batch) for trainer in order}
        ours, dense = found[Trainer], found[DenseTrainer]
        apart = abs(ours.report.loss - dense.report.loss) / dense.report.loss
        seen.append(Turn(ours.seconds, dense.seconds, ours.memory, dense.memory, apart))
        yield seen[-1]
    del trainers, trainer, order, found
    ours, dense = (median(getattr(turn, name) for turn in seen) for name in ("ours", "dense"))
    yield Summary(ours, dense, median(turn.dense / turn.ours for turn in seen), bound(load))


def config_of(load: Load) -> TrainConfig:
    """The training that is measured. No neuron is dead, and the threshold runs."""
    if load.neurons % load.width:
        raise SAEError(f"{load.neurons} neurons are no multiple of the width {load.width}")
    return TrainConfig(
        expansion=load.neurons // load.width,
        k=load.k,
        batch=load.batch,
        warmup=1,
        threshold_start=0,
        norm_batches=0,
        bf16=load.bf16,
    )


def vectors(load: Load, seed: int = 0) -> Iterator[Tensor]:
    """Batches [B, d] of made-up vectors without end: sparse sums of directions, of mean length 1."""
    dice = torch.Generator().manual_seed(seed)
    parts = normalize(torch.randn(PARTS, load.width, generator=dice), dim=1)
    while True:
        shown = torch.rand(load.batch, PARTS, generator=dice)
        weights = torch.rand(load.batch, PARTS, generator=dice) * (shown < SHOWN / PARTS)
        x = weights @ parts
        x += NOISE * x.norm(dim=1).mean() * normalize(torch.randn(x.shape, generator=dice), dim=1)
        yield (x / x.norm(dim=1).mean()).to(load.device)


def bound(load: Load) -> Bound:
    """What arithmetic allows: products over B vectors and Adam's state, at this machine's own speed."""
    encode = 2.0 * load.batch * load.width * load.neurons
    entries = 2.0 * load.batch * load.k * load.width
    ours, dense = encode + 5 * entries, 6 * encode
    weights = 2.0 * load.width * load.neurons
    traffic = (
        28 * weights
    )  # Adam reads weight, gradient and two moments, and writes three of them, 4 bytes each
    rate, bandwidth = encode / _product_seconds(load), traffic / _adam_seconds(load)
    moved = traffic / bandwidth
    return Bound(encode, ours, dense, traffic, rate, bandwidth, ours / rate + moved, dense / rate + moved)


class _Measured(NamedTuple):
    seconds: float
    memory: int | None
    report: StepReport


def _measured(trainer: Trainer, batch: Tensor) -> _Measured:
    """One step."""
    device = batch.device
    before = _forget_peak(device)
    _wait(device)
    started = time.perf_counter()
    report = trainer.step(batch)
    _wait(device)
    seconds, peak = time.perf_counter() - started, _peak(device)
    return _Measured(seconds, None if peak is None or before is None else max(0, peak - before), report)


def _quickest(work: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """Seconds of the quickest of a few runs."""
    found = []
    for _ in range(times):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - started)
    return min(found)


def _product_seconds(load: Load) -> float:
    """The bare product of a batch with the encoder."""
    x, encoder = (torch.randn(n, load.width, device=load.device) for n in (load.batch, load.neurons))
    return _quickest(lambda: x @ encoder.T, x.device)


def _adam_seconds(load: Load) -> float:
    """A bare step of Adam on both matrices."""
    shape = (load.neurons, load.width)
    weights = [torch.randn(shape, device=load.device, requires_grad=True) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    adam = torch.optim.Adam(weights, fused=True)
    return _quickest(adam.step, weights[0].device)


def _wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> int | None:
    """Begin anew to watch for the most memory in use; the bytes in use now, None where the system is mute."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(
            0
        )  # what was freed goes back to the system, and counts when taken again
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _peak(device)


def _peak(device: torch.device) -> int | None:
    """The most bytes in use since then; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return None if found is None else int(found[1]) * 1024
