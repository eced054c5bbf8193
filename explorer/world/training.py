"""Trains the embedded LVLM from scratch in four stages, with checkpoints.

1. tower: each patch learns to tell the object that covers it (concept, colour, place, count);
2. readout: the projector and the language model learn to talk about what the frozen tower sees;
3. joint: everything together, the dense task kept as an auxiliary loss;
4. polish: the language side alone again, its learning rate going to zero.
Only the blocks that the LVLM reads (vision_feature_layer -2) are run and trained.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, LlavaForConditionalGeneration
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from explorer.world.batches import IGNORE, Batch, Packer, loader
from explorer.world.concepts import COLORS, CONCEPTS, THEMES
from explorer.world.model import PATCH, build_model, build_processor, build_tokenizer, save
from explorer.world.scene import TRAIN_SIZE

GRID = TRAIN_SIZE // PATCH


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    tower, language: learning rates (start, end) of the two sides, with a cosine between; a side of
    rate 0 is frozen. dense: weight of the dense loss; talk: whether the language loss counts.
    """

    name: str
    steps: int
    tower: tuple[float, float]
    language: tuple[float, float]
    dense: float
    talk: bool

    def rate(self, side: str, step: int) -> float:
        """The learning rate of a side at a step: a short linear warm-up, then the cosine."""
        start, end = self.tower if side == "tower" else self.language
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / 100) * (end + (start - end) * cosine)


@dataclass(frozen=True)
class TrainConfig:
    """What `python -m explorer.world.train` needs.

    out: folder of checkpoints, log and the finished model; batch: scenes per step; workers:
    drawing processes; device: "cpu" or "cuda"; scale: multiplies the steps of every stage;
    save_every: steps between checkpoints; compile: compile the language model (needs a C++ compiler).
    """

    out: Path
    batch: int = 64
    workers: int = 1
    device: str = "cpu"
    scale: float = 1.0
    save_every: int = 200
    seed: int = 0
    compile: bool = False

    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""

        def n(steps: int) -> int:
            return max(1, round(steps * self.scale))

        return (
            Stage("tower", n(2400), (1.2e-3, 4e-5), (0.0, 0.0), 1.0, False),
            Stage("readout", n(500), (0.0, 0.0), (1.5e-3, 1e-3), 0.0, True),
            Stage("joint", n(650), (5e-4, 2e-5), (1e-3, 1e-3), 0.25, True),
            Stage("polish", n(1000), (0.0, 0.0), (1e-3, 2e-5), 0.0, True),
        )


def short_softmax_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float = 1.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention by two batched products and a softmax in the working precision.

    On a CPU in bfloat16 this is 2.4 to 4 times as fast, forward and backward, as the fused kernel
    at 200 tokens (see LOG.md). Shapes [B, heads, T, head_dim]; returns [B, T, heads, head_dim].
    """
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, -1, dtype=scores.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


class Heads(nn.Module):
    """The linear heads of the dense task on patch tokens [B, P, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.sizes = (len(CONCEPTS) + 1, len(COLORS), 3, len(THEMES), 4)
        self.linear = nn.Linear(width, sum(self.sizes))

    def loss(self, patches: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The dense loss, and the share of object patches whose concept is right."""
        concept, color, count, theme, place = self.linear(self.norm(patches)).float().split(self.sizes, -1)
        weight = torch.ones(len(CONCEPTS) + 1, device=patches.device)
        weight[-1] = 0.25
        loss = F.cross_entropy(concept.flatten(0, 1), batch.concept.flatten(), weight, ignore_index=IGNORE)
        known = batch.color.flatten() != IGNORE
        if bool(known.any()):
            loss = loss + 0.4 * F.cross_entropy(color.flatten(0, 1)[known], batch.color.flatten()[known])
        loss = loss + 0.3 * F.cross_entropy(count.flatten(0, 1), batch.count.flatten(), ignore_index=IGNORE)
        themes = batch.theme[:, None].expand(-1, patches.shape[1])
        loss = loss + 0.1 * F.cross_entropy(theme.flatten(0, 1), themes.flatten())
        things = (batch.concept >= 0) & (batch.concept < len(CONCEPTS))
        loss = loss + 2.0 * F.smooth_l1_loss(place[things], batch.place[things], beta=0.1)
        right = (concept.argmax(-1) == batch.concept)[things].float().mean()
        return loss, right


def see(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """[B, 1 + P, width]: what the LVLM reads, without the blocks after it."""
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for block in tower.encoder.layers[: model.config.vision_feature_layer + 1]:
        hidden = block(hidden, None)
    return hidden


def visibility(batch: Batch, prefix: int) -> Tensor:
    """[B, 1, T, T] bool: the prefix is causal, a turn sees the prefix and its own past."""
    turn = batch.turn
    rows, length = turn.shape
    total = prefix + length
    causal = torch.ones(total, total, dtype=torch.bool, device=turn.device).tril()
    allowed = causal.expand(rows, total, total).clone()
    allowed[:, prefix:, prefix:] &= turn[:, :, None] == turn[:, None, :]
    return allowed[:, None]


def talk_loss(
    model: LlavaForConditionalGeneration, hidden: Tensor, batch: Batch, prefix_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted next-token loss of all packed turns, and the share of answer tokens that are right."""
    inner = model.model
    image = inner.multi_modal_projector(hidden[:, 1:])
    embed = inner.language_model.embed_tokens
    before = embed(prefix_ids).expand(len(hidden), -1, -1)
    inputs = torch.cat([before.to(image.dtype), image, embed(batch.text).to(image.dtype)], 1)
    prefix = before.shape[1] + image.shape[1]
    start = torch.arange(prefix, device=hidden.device).expand(len(hidden), -1)
    positions = torch.cat([start, batch.position], 1)
    allowed = visibility(batch, prefix)
    mask = torch.zeros(allowed.shape, dtype=image.dtype, device=hidden.device)
    mask.masked_fill_(~allowed, -1e4)
    out = inner.language_model(
        inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
    )
    spoken = batch.label != IGNORE
    logits = model.lm_head(out.last_hidden_state[:, prefix:][spoken]).float()
    target, weight = batch.label[spoken], batch.weight[spoken]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    return loss, (logits.argmax(-1) == target).float().mean()


class Trainer:
    """Model, heads and optimiser of one run, and where it stands."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer).to(config.device)
        if config.device == "cpu":
            AttentionInterface.register("short_softmax", short_softmax_attention)
            AttentionMaskInterface.register("short_softmax", eager_mask)
            self.model.set_attn_implementation("short_softmax")
        if config.compile:
            self.model.model.language_model.compile(dynamic=False)
        self.heads = Heads(self.model.config.vision_config.hidden_size).to(config.device)
        self.packer = Packer(self.tokenizer, GRID * GRID)
        self.prefix_ids = torch.tensor([self.packer.prefix], device=config.device)
        tower = [*self.model.model.vision_tower.parameters(), *self.heads.parameters()]
        seen = {id(p) for p in tower}
        language = [p for p in self.model.parameters() if id(p) not in seen]
        groups = [{"params": tower, "side": "tower"}, {"params": language, "side": "language"}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
        self.stage, self.step, self.drawn = 0, 0, 0

    @property
    def checkpoint(self) -> Path:
        """The file that a stopped run resumes from."""
        return self.config.out / "checkpoint.pt"

    def store(self) -> None:
        """Save everything atomically."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "at": (self.stage, self.step, self.drawn),
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def resume(self) -> bool:
        """Continue from the checkpoint when there is one."""
        if not self.checkpoint.is_file():
            return False
        state = torch.load(self.checkpoint, map_location=self.config.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stage, self.step, self.drawn = state["at"]
        return True

    def losses(self, stage: Stage, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The stage's loss on a batch, and what to print."""
        device = self.config.device
        batch = Batch(**{key: value.to(device, non_blocking=True) for key, value in vars(batch).items()})
        facts: dict[str, float] = {}
        total = torch.zeros((), device=device)
        with torch.autocast(device, torch.bfloat16):
            with torch.set_grad_enabled(stage.tower[0] > 0):
                hidden = see(self.model, batch.pixels)
            if stage.dense:
                loss, right = self.heads.loss(hidden[:, 1:], batch)
                total = total + stage.dense * loss
                facts |= {"dense": loss.item(), "patches": right.item()}
            if stage.talk:
                loss, right = talk_loss(self.model, hidden, batch, self.prefix_ids)
                total = total + loss
                facts |= {"talk": loss.item(), "tokens": right.item()}
        return total, facts

    def run_stage(self, stage: Stage, say: Callable[[str], None]) -> None:
        """Run one stage from where it stands to its end."""
        config = self.config
        batches = loader(self.packer, config.batch, GRID, self.drawn, stage.talk, config.workers)
        since, began, sums = self.step, time.perf_counter(), {}
        while self.step < stage.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = stage.rate(group["side"], self.step)
            loss, facts = self.losses(stage, next(batches))
            loss.backward()
            for group in self.optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self.drawn += 1
            sums = {key: sums.get(key, 0.0) + value for key, value in facts.items()}
            if self.step % 50 == 0:
                span = self.step - since
                rate = span * config.batch / (time.perf_counter() - began)
                means = {key: round(value / span, 4) for key, value in sums.items()}
                say(
                    json.dumps(
                        {
                            "stage": stage.name,
                            "step": self.step,
                            "of": stage.steps,
                            "scenes/s": round(rate, 1),
                            **means,
                        }
                    )
                )
                since, began, sums = self.step, time.perf_counter(), {}
            if self.step % config.save_every == 0:
                self.store()


def train(config: TrainConfig, say: Callable[[str], None] = print) -> Path:
    """Train to the end, resuming a stopped run in `config.out`; returns the finished model's folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(json.dumps(asdict(config), default=str, indent=1))
    trainer = Trainer(config)
    if trainer.resume():
        say(f"resumed at stage {trainer.stage + 1}, step {trainer.step}")
    stages = config.stages()
    while trainer.stage < len(stages):
        trainer.run_stage(stages[trainer.stage], say)
        trainer.stage, trainer.step = trainer.stage + 1, 0
        trainer.store()
    finished = config.out / "model"
    trainer.model.set_attn_implementation("sdpa")
    save(finished, trainer.model.to(torch.float16), build_processor(trainer.tokenizer))
    return finished
