"""Training of a Matryoshka BatchTopK SAE on a stream of vectors, with checkpoints.

The vectors are scaled to unit mean square norm while training; the factor is folded back into the
biases and the threshold at the end, so the SAE that comes out takes raw vectors. Several processes may
share each batch: what they do together is what one would do with the whole batch, but for rounding.
Nothing here knows where the vectors come from.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import matryoshka
from explorer.sae.config import TrainConfig
from explorer.sae.files import replacing
from explorer.sae.model import SAE, ActivationRule
from explorer.sae.team import ALONE, Team

CHECKPOINT_VERSION = 1


class Halted(Exception):
    """The training was asked to stop; what `batches_taken` tells of its checkpoint is saved."""


class StepReport(NamedTuple):
    """What happened in one step (counted from 0).

    loss: all of it; error: squared error of the whole reconstruction per vector, in scaled units;
    aux: the auxiliary loss before its weight; cut: the smallest activation that the batch kept;
    threshold: its running mean (-1 before it starts); dead: dead neurons; lr: the learning rate used.
    """

    step: int
    loss: float
    error: float
    aux: float
    cut: float
    threshold: float
    dead: int
    lr: float


@dataclass(frozen=True)
class TrainMetrics:
    """Figures of a finished training.

    steps, vectors: trained on in all, over resumed runs; seconds: of this run; norm_factor: the
    root mean square norm of the raw vectors; last: the last step's report (None: no step was left).
    """

    steps: int
    vectors: int
    seconds: float
    norm_factor: float
    last: StepReport | None


class TrainResult(NamedTuple):
    """The trained SAE and the figures of its training."""

    sae: SAE
    metrics: TrainMetrics


class Forward(NamedTuple):
    """What a batch gives: loss, aux: scalars with their gradients, before the weight of the latter; error: as
    in StepReport; dead: dead neurons."""

    loss: Tensor
    error: Tensor
    aux: Tensor
    dead: int


class Trainer:
    """The state of a training: weights, optimiser, counters. `step` takes a scaled batch.

    encoder, decoder: rows [F, d]; threshold: in scaled units; unfired [F]: vectors since each
    neuron last fired; norm_factor: what the raw vectors are divided by; team: the processes that hold
    the same state and share each batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        width: int,
        norm_factor: float,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        self.config, self.width, self.norm_factor, self.team = config, width, norm_factor, team
        n = config.n_neurons(width)
        sizes = torch.tensor(config.group_sizes(n), device=device)
        self.boundaries = sizes.cumsum(0)
        self.weights = torch.tensor(config.weights, device=device)
        rows = torch.empty(n, width)
        torch.nn.init.kaiming_uniform_(rows, generator=torch.Generator().manual_seed(config.seed))
        self.decoder = matryoshka.unit_rows_(rows).to(device).requires_grad_()
        self.encoder = self.decoder.detach().clone().requires_grad_()
        self.b_enc = torch.zeros(n, device=device, requires_grad=True)
        self.b_dec = torch.zeros(width, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam(self.parameters, betas=(0.9, 0.999), fused=True)
        self.unfired = torch.zeros(n, dtype=torch.int64, device=device)
        self.steps_done, self.threshold, self.cut = 0, -1.0, 0.0

    @property
    def parameters(self) -> list[Tensor]:
        """The four trained tensors."""
        return [self.encoder, self.b_enc, self.decoder, self.b_dec]

    def step(self, x: Tensor) -> StepReport:
        """One optimiser step on the scaled batch x [B, d], or on this process's share of it."""
        config, step = self.config, self.steps_done
        if x.shape[1] != self.width:
            raise SAEError(f"the vectors have width {x.shape[1]}; this training began with {self.width}")
        if step == 0:
            self.b_dec.data = matryoshka.geometric_median(self.team.gathered(x))
        lr = config.peak_lr(len(self.encoder)) * config.lr_share(step)
        found = self.forward(x)
        loss = found.loss + config.aux_alpha * found.aux
        figures = self.team.mean(torch.stack([loss.detach(), found.error, found.aux.detach()])).tolist()
        if not math.isfinite(figures[0]):
            raise SAEError(f"the loss at step {step} is not finite: look for NaN in the vectors, or lower lr")
        self._update(loss, lr)
        self.steps_done += 1
        return StepReport(step, *figures, self.cut, self.threshold, found.dead, lr)

    def forward(self, x: Tensor) -> Forward:
        """The losses of the scaled batch x [B, d], with their gradients; counters and threshold move on."""
        centred = x - self.b_dec
        kept = self._select(centred.detach())
        values = matryoshka.KeptPreactivations.apply(centred, self.encoder, self.b_enc, kept)
        losses = matryoshka.group_losses(
            x, kept, values, self.decoder, self.b_dec, self.boundaries, self.weights
        )
        dead = self.count(kept.neurons, len(x) * self.team.size)
        aux = matryoshka.aux_loss(
            losses.residual, centred, dead, self.encoder, self.b_enc, self.decoder, self.team
        )
        return Forward(losses.loss, losses.groups[-1], aux, len(dead))

    def sae(self) -> SAE:
        """The SAE for raw vectors, with its inference rule: what lies above the running threshold.

        As long as there is none, above the smallest value that the last batch kept.
        """
        scale, threshold = self.norm_factor, self.threshold if self.threshold > 0 else self.cut
        return SAE(
            W_enc=self.encoder.detach().T.contiguous(),
            b_enc=self.b_enc.detach() * scale,
            W_dec=self.decoder.detach().clone(),
            b_dec=self.b_dec.detach() * scale,
            rule=ActivationRule("jumprelu", threshold * scale if threshold > 0 else 0.0, self.config.k),
            group_sizes=self.config.group_sizes(len(self.decoder)),
            facts={
                "method": "Matryoshka BatchTopK",
                "config": asdict(self.config),
                "steps": self.steps_done,
                "vectors": self.steps_done * self.config.batch,
                "norm_factor": scale,
                "processes": self.team.size,
            },
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint in one step. Raises SAEError when it cannot be written."""
        state = {
            "version": CHECKPOINT_VERSION,
            "config": asdict(self.config),
            "numbers": [self.width, self.norm_factor, self.steps_done, self.threshold, self.cut],
            "parameters": [p.detach() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "unfired": self.unfired,
        }
        with replacing(path) as part:
            try:
                torch.save(state, part)
            except RuntimeError as error:  # of a full disk
                raise SAEError(
                    f"cannot write the checkpoint {path} ({error}), most likely for want of room; what was "
                    "there before is unchanged: make room and resume from it"
                ) from error

    @classmethod
    def resume(
        cls, config: TrainConfig, path: Path, device: torch.device | str = "cpu", team: Team = ALONE
    ) -> Self:
        """Go on from a checkpoint of the same config. Raises SAEError otherwise."""
        state = _read_checkpoint(path)
        old, new = TrainConfig(**state["config"]), config
        changed = [n for n in asdict(new) if getattr(old, n) != getattr(new, n)]
        if changed:
            name = changed[0]
            raise SAEError(
                f"{path} was trained with {name} = {getattr(old, name)}, not {getattr(new, name)}; "
                "resume with the same settings or start anew"
            )
        width, norm_factor, steps_done, threshold, cut = state["numbers"]
        trainer = cls(config, width, norm_factor, torch.device(device), team)
        for parameter, saved in zip(trainer.parameters, state["parameters"], strict=True):
            parameter.data.copy_(saved)
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.unfired.copy_(state["unfired"])
        trainer.steps_done, trainer.threshold, trainer.cut = steps_done, threshold, cut
        return trainer

    def _select(self, centred: Tensor) -> matryoshka.Selection:
        config = self.config
        floor = 0.95 * self.cut
        if floor <= 0:
            guess = matryoshka.guess_floor(centred, self.encoder, self.b_enc, config.k)
            floor = float(self.team.mean(centred.new_tensor(guess)))
        wanted = config.k * len(centred) * self.team.size
        kept = matryoshka.select(centred, self.encoder, self.b_enc, wanted, floor, config.bf16, self.team)
        self.note_cut(kept.cut)
        return kept

    def note_cut(self, cut: float) -> None:
        """Note the smallest value that the batch kept; the running threshold follows it."""
        self.cut, keep = cut, self.config.threshold_decay
        if self.steps_done > self.config.threshold_start:
            self.threshold = cut if self.threshold < 0 else keep * self.threshold + (1 - keep) * cut

    def count(self, neurons: Tensor, vectors: int) -> Tensor:
        """Note which neurons [n] fired on so many vectors; return the dead ones [m]."""
        fired = torch.zeros_like(self.unfired)
        fired[neurons] = 1
        self.unfired = (self.unfired + vectors) * (self.team.total(fired) == 0)
        return (self.unfired >= self.config.dead_after).nonzero().flatten()

    def _update(self, loss: Tensor, lr: float) -> None:
        """Step down the gradient of the loss; the decoder's rows stay of length 1."""
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.parameters if self.team.size > 1 else ():
            parameter.grad = self.team.mean(parameter.grad)
        matryoshka.drop_parallel_(self.decoder.grad, self.decoder.data)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        matryoshka.unit_rows_(self.decoder.data)


def train(
    config: TrainConfig,
    batches: Iterator[Tensor],
    *,
    on_step: Callable[[StepReport], None] | None = None,
    resume_from: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1000,
    device: torch.device | str = "cpu",
    team: Team = ALONE,
    measure: Callable[[Trainer], None] | None = None,
    measure_every: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train an SAE on a stream of raw vectors [config.batch / team.size, d].

    The stream gives the batches for the norm first, then one per step. With `resume_from` it must
    go on where the interrupted one stopped, at batch number `batches_taken(resume_from)`: then the
    result is the same as without the interruption. A checkpoint is written every `checkpoint_every`
    steps, before each measurement and at the end, by the first process. measure: called after every
    `measure_every` steps (0: never), not after the last; again at once where a run is resumed there. stop:
    whether to save now and raise Halted, asked after each step.
    Raises SAEError when the stream ends early or its batches do not fit.
    """
    start = time.perf_counter()
    stream = _checked(config, batches, torch.device(device), team)
    if resume_from is None:
        factor = _norm_factor(config, stream, team)
        first = next(stream)
        trainer = Trainer(config, first.shape[1], factor, first.device, team)
        stream = chain([first], stream)
    else:
        trainer = Trainer.resume(config, resume_from, device, team)
    report, measure = None, measure if measure_every else None
    if measure is not None and _between(trainer, measure_every):
        measure(trainer)
    while trainer.steps_done < config.steps:
        report = trainer.step(next(stream) / trainer.norm_factor)
        if on_step is not None:
            on_step(report)
        done = trainer.steps_done
        halting = done < config.steps and _any(team, stop(), trainer.b_dec.device)
        measuring = measure is not None and _between(trainer, measure_every)
        due = halting or measuring or done % checkpoint_every == 0 or done == config.steps
        if checkpoint is not None and due and team.rank == 0:
            trainer.save(checkpoint)
        if halting:
            raise Halted
        if measuring:
            measure(trainer)
    metrics = TrainMetrics(
        steps=trainer.steps_done,
        vectors=trainer.steps_done * config.batch,
        seconds=time.perf_counter() - start,
        norm_factor=trainer.norm_factor,
        last=report,
    )
    return TrainResult(trainer.sae().eval().requires_grad_(False), metrics)


def _between(trainer: Trainer, every: int) -> bool:
    """Whether so many steps lie behind, once more or for the first time, and others ahead."""
    return 0 < trainer.steps_done < trainer.config.steps and trainer.steps_done % every == 0


def _any(team: Team, mine: bool, device: torch.device) -> bool:
    """Whether any process says so."""
    return mine if team.size == 1 else bool(team.total(torch.tensor(float(mine), device=device)))


def batches_taken(checkpoint: Path) -> int:
    """How many batches of its stream a checkpoint's run has used: those for the norm and the steps."""
    state = _read_checkpoint(checkpoint)
    return TrainConfig(**state["config"]).norm_batches + state["numbers"][2]


def _norm_factor(config: TrainConfig, stream: Iterator[Tensor], team: Team) -> float:
    """The root mean square norm of the vectors in the stream's first batches."""
    if not config.norm_batches:
        return 1.0
    squares = [team.mean(next(stream).square().sum(1).mean()) for _ in range(config.norm_batches)]
    factor = (sum(map(float, squares)) / len(squares)) ** 0.5
    if not 0 < factor < float("inf"):
        raise SAEError(
            f"the root mean square norm of the vectors is {factor}: there is nothing to learn from"
        )
    return factor


def _checked(
    config: TrainConfig, batches: Iterator[Tensor], device: torch.device, team: Team
) -> Iterator[Tensor]:
    """The stream as float32 on the device. Raises SAEError where it ends or a batch has another shape."""
    if config.batch % team.size:
        raise SAEError(f"a batch of {config.batch} vectors cannot be shared by {team.size} processes")
    taken, width, rows = 0, None, config.batch // team.size
    for batch in batches:
        if batch.ndim != 2 or len(batch) != rows or batch.shape[1] != (width or batch.shape[1]):
            expected = f"[{rows}, {width or 'd'}]"
            raise SAEError(f"batch {taken} has the shape {list(batch.shape)}; expected {expected}")
        width = batch.shape[1]
        yield batch.to(device, torch.float32)
        taken += 1
    raise SAEError(f"the stream of vectors ended after {taken} batches; {config.steps} steps need more")


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SAEError(f"there is no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise SAEError(f"{path} is not a whole checkpoint ({error})") from error
    if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
        raise SAEError(f"{path} is not a checkpoint of SAE training of version {CHECKPOINT_VERSION}")
    return state
