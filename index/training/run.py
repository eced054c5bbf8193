"""One training from pictures to a measured SAE: the stream, the steps, the measures, the record.

Knows the parts and their order; nothing of command lines.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import SAE
from explorer.sae.config import TrainConfig
from explorer.sae.team import Team
from explorer.sae.training import Halted, StepReport, Trainer, TrainMetrics, batches_taken, train
from explorer.store.writer import SkippedRow
from explorer.vlm.base import LVLM
from index.training.measures import Exam, Measures
from index.training.pictures import Material
from index.training.processes import Placed
from index.training.record import Record
from index.training.stream import Share, StreamConfig, batches
from index.training.tower import Eye


@dataclass(frozen=True)
class Plan:
    """What a run is told.

    material: the pictures; config, stream: of the steps and of the vectors; block: of the tower (None: that
    which the language model reads); include_cls: whether the CLS token is trained on too; captions: held-out
    pictures that are captioned (0: none); evaluate_every: steps between measurements (0: only at the end);
    checkpoint, checkpoint_every: where the progress is kept, and after how many steps; resume: go on from
    it; dtype: what the model was opened in, for the record.
    """

    material: Material
    config: TrainConfig
    stream: StreamConfig
    checkpoint: Path
    block: int | None = None
    include_cls: bool = False
    captions: int = 0
    evaluate_every: int = 0
    checkpoint_every: int = 500
    resume: bool = False
    dtype: str = "float32"


class Outcome(NamedTuple):
    """A finished run. skipped: the pictures that could not be used; pictures: how many there are in all."""

    sae: SAE
    metrics: TrainMetrics
    measures: Measures
    skipped: list[SkippedRow]
    pictures: int


def run(
    plan: Plan,
    lvlm: LVLM,
    placed: Placed,
    on_step: Callable[[StepReport], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda words: None,
) -> Outcome:
    """Train, or go on training, and measure.

    stop: asked after each step, and by a single process also between pictures where nothing is trained
    meanwhile; `explorer.sae.training.Halted` is raised once the progress is saved. tell: hears of
    measurements on the way. Every process of the team must call it; the first one writes.
    Raises an ExplorerError for what cannot be, in plain words.
    """
    team = placed.team
    eye = Eye(lvlm, lvlm.read_block if plan.block is None else plan.block, plan.include_cls)
    eye.check()
    record = Record(plan.checkpoint, main=team.rank == 0)
    first = _begin(plan, eye, record, placed)

    def check() -> None:
        if team.size == 1 and stop():
            raise Halted

    exam = Exam(
        eye, plan.material.held_out, plan.stream, plan.captions, record.skipped.add, team=team, check=check
    )

    def measure(trainer: Trainer) -> None:
        if record.has(trainer.steps_done):
            return
        sae = trainer.sae().eval().requires_grad_(False)
        label(sae, eye, plan)
        measures = exam.take(sae)
        record.log({"step": trainer.steps_done, **progress(trainer), **measures.facts()})
        quality, _, *captions = measures.words(sae)
        tell("\n".join([f"after {trainer.steps_done:,} steps, {quality}", *captions]))

    with closing(_stream(plan, eye, record, team, first, check)) as stream:
        sae, metrics = train(
            plan.config,
            stream,
            on_step=on_step,
            resume_from=plan.checkpoint if first else None,
            checkpoint=plan.checkpoint,
            checkpoint_every=plan.checkpoint_every,
            device=placed.device,
            team=team,
            measure=measure,
            measure_every=plan.evaluate_every,
            stop=stop,
        )
    label(sae, eye, plan)
    measures = exam.take(sae)
    together(team, placed.device)
    skipped = _close(record, sae, metrics, measures)
    return Outcome(sae, metrics, measures, skipped, sum(map(len, plan.material)))


def _close(record: Record, sae: SAE, metrics: TrainMetrics, measures: Measures) -> list[SkippedRow]:
    """Write the last figures into the SAE and the record; the pictures that could not be used."""
    skipped = record.skipped.rows()
    sae.facts.update(measures.facts(), skipped=len(skipped))
    done = {"step": metrics.steps, "vectors": metrics.vectors, "norm_factor": metrics.norm_factor}
    record.keep_until(metrics.steps - 1)
    record.log({**done, **measures.facts(), "final": True, "skipped": len(skipped)})
    return skipped


def _stream(
    plan: Plan, eye: Eye, record: Record, team: Team, first: int, check: Callable[[], None]
) -> Generator[Tensor, None, None]:
    """The batches of this process, from number `first` on."""
    return batches(
        eye,
        plan.material.train,
        plan.config.batch // team.size,
        plan.stream,
        first=first,
        last=plan.config.norm_batches + plan.config.steps,
        share=Share(team.rank, team.size),
        skipped=record.skipped.add,
        check=check,
    )


def _begin(plan: Plan, eye: Eye, record: Record, placed: Placed) -> int:
    """Open the record; the number of the first batch that the run still needs (0: it begins)."""
    config, team = plan.config, placed.team
    if config.batch % team.size:
        raise SAEError(f"a batch of {config.batch} vectors cannot be shared by {team.size} processes")
    neurons = config.n_neurons(eye.lvlm.width(eye.block))
    if config.k > neurons:
        raise SAEError(f"k = {config.k}: the SAE has {neurons} neurons; use a smaller --k")
    facts = {
        "model": eye.lvlm.model_id,
        "block": eye.block,
        "include_cls": eye.include_cls,
        "pictures": plan.material.train.description,
        "ids": plan.material.train.list_hash(),
        "buffer": plan.stream.buffer,
        "reuse": plan.stream.reuse,
        "tower_batch": plan.stream.tower_batch,
        "seed": plan.stream.seed,
        "dtype": plan.dtype,
        "device": placed.device.partition(":")[0],
        "processes": team.size,
    }
    found = False
    if plan.resume:
        found = record.resume(facts)
    else:
        record.begin(facts)
    together(team, placed.device)
    if not found:
        return 0
    first = batches_taken(plan.checkpoint)
    record.keep_until(first - config.norm_batches)
    return first


def together(team: Team, device: str) -> None:
    """Wait until every process of the team is here."""
    team.total(torch.zeros(1, device=device))


def label(sae: SAE, eye: Eye, plan: Plan) -> None:
    """Write into the SAE what it belongs to and what it was made of."""
    sae.site_block, sae.model_id = eye.block, eye.lvlm.model_id
    sae.facts.update(
        tokens="all" if eye.include_cls else "patches",
        trained_on=plan.material.train.description,
        measured_on=plan.material.held_out.description,
        torch=torch.__version__,
    )


def progress(trainer: Trainer) -> dict[str, Any]:
    """The state of a training as JSON values."""
    dead = int((trainer.unfired >= trainer.config.dead_after).sum())
    return {
        "vectors": trainer.steps_done * trainer.config.batch,
        "threshold": trainer.threshold * trainer.norm_factor if trainer.threshold > 0 else None,
        "dead_in_training": dead / len(trainer.unfired),
    }


def config_of(steps: int, batch: int, dead_after: int | None, **others: Any) -> TrainConfig:
    """A training of so many steps; short ones warm up, decay and average in proportion.

    others: fields of TrainConfig.
    """
    return TrainConfig(
        steps=steps,
        batch=batch,
        warmup=min(1000, steps // 20),
        decay_start=steps * 4 // 5,
        dead_after=dead_after or max(batch, steps * batch // 50),
        threshold_start=min(1000, steps // 4),
        threshold_decay=max(0.9, min(0.999, 1 - 10 / steps)) if steps else 0.999,
        norm_batches=min(100, max(1, steps // 40)),
        **others,
    )
