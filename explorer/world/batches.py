"""Turns scenes into training batches: dense patch labels, and conversations packed behind one picture.

All turns of one scene share the picture's tokens: each turn sees the prefix and itself, never
another turn, and its positions start right behind the picture, just as when it is asked alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast

from explorer.world.concepts import COLORS, CONCEPTS, THEMES
from explorer.world.questions import Question, training_questions
from explorer.world.scene import TRAIN_SIZE, Scene, draw

IGNORE = -100
FIRST_TRAINING_SEED = 1_000_000
ROW = 128
"""Tokens of a packed row: one shape for every batch, so that a compiled model is compiled once."""
_SURE, _CLEAR = 0.4, 0.1


@dataclass
class Batch:
    """One batch of B scenes; P patches; L text tokens of all packed turns.

    pixels [B, 3, S, S] float32 normalised; concept, color, count [B, P] and theme [B] int64
    (IGNORE where unknown; concept len(CONCEPTS) is background); place [B, P, 4] float32: the
    object's centre relative to the patch and its box size, as shares of the picture;
    text, turn, position, label [B, L] int64; weight [B, L] float32.
    """

    pixels: Tensor
    concept: Tensor
    color: Tensor
    count: Tensor
    theme: Tensor
    place: Tensor
    text: Tensor
    turn: Tensor
    position: Tensor
    label: Tensor
    weight: Tensor


def pixels_of(scene: Scene) -> Tensor:
    """[3, S, S] float32, normalised as the model's image processor does."""
    array = np.asarray(scene.image, np.float32) / 255
    return torch.from_numpy((array - 0.5) / 0.25).permute(2, 0, 1)


def dense_labels(scene: Scene, grid: int) -> dict[str, np.ndarray]:
    """Per-patch truth of a scene; patches that an object covers only partly are left out (IGNORE)."""
    sure = scene.patch_objects(grid, grid, _SURE).reshape(-1)
    touched = scene.patch_objects(grid, grid, _CLEAR).reshape(-1)
    counts = {kind.concept: kind.count for kind in scene.kinds}
    names = [CONCEPTS.index(thing.concept) for thing in scene.objects]
    tints = [COLORS.index(thing.color) if thing.color else IGNORE for thing in scene.objects]
    many = [min(counts[thing.concept], 3) - 1 for thing in scene.objects]
    concept = np.where(sure >= 0, np.array([*names, 0])[sure], np.where(touched >= 0, IGNORE, len(CONCEPTS)))
    boxes = np.array([thing.box for thing in scene.objects] + [(0, 0, 0, 0)], np.float32)[sure] / TRAIN_SIZE
    axis = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    here = np.stack([np.tile(axis, grid), np.repeat(axis, grid)], -1)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 - here
    return {
        "concept": concept,
        "color": np.array([*tints, IGNORE])[sure],
        "count": np.array([*many, IGNORE])[sure],
        "place": np.concatenate([center, boxes[:, 2:] - boxes[:, :2]], -1),
    }


class Packer:
    """Tokenises questions and packs them into one row. `prefix` are the tokens before the picture."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, patches: int) -> None:
        self.tokenizer = tokenizer
        self.prefix: list[int] = tokenizer("USER:")["input_ids"]
        self.first_position = len(self.prefix) + patches

    def pack(self, questions: list[Question]) -> dict[str, list]:
        """Rows text, turn, position, label, weight of all turns, one after the other, up to ROW tokens."""
        row: dict[str, list] = {"text": [], "turn": [], "position": [], "label": [], "weight": []}
        for number, asked in enumerate(questions):
            ids = self.tokenizer(
                [f"{asked.prompt} ASSISTANT:", f"{asked.answer}</s>"], add_special_tokens=False
            )["input_ids"]
            head, tail = ids
            words = head + tail
            if len(row["text"]) + len(words) > ROW:
                break
            silent = len(head) - 1
            row["text"] += words
            row["turn"] += [number] * len(words)
            row["position"] += range(self.first_position, self.first_position + len(words))
            row["label"] += [IGNORE] * silent + tail + [IGNORE]
            spoken = [1.0] * len(tail) if asked.kind == "describe" else [3.0] + [0.3] * (len(tail) - 1)
            row["weight"] += [0.0] * silent + spoken + [0.0]
        return row


_FILL = {"text": 0, "turn": -1, "position": 0, "label": IGNORE, "weight": 0.0}


def collate(scenes: list[Scene], packed: list[dict[str, list]], grid: int) -> Batch:
    """Stack scenes and their packed turns; rows are padded to ROW tokens."""
    dense = [dense_labels(scene, grid) for scene in scenes]
    rows = {
        key: torch.tensor([row[key] + [fill] * (ROW - len(row[key])) for row in packed])
        for key, fill in _FILL.items()
    }
    stacked = {key: torch.from_numpy(np.stack([d[key] for d in dense])) for key in dense[0]}
    return Batch(
        pixels=torch.stack([pixels_of(scene) for scene in scenes]),
        theme=torch.tensor([THEMES.index(scene.theme) for scene in scenes]),
        **stacked,
        **rows,
    )


class SceneBatches(IterableDataset):
    """Endless batches of ordinary scenes from `first_seed` on: batch k holds fixed seeds, so it resumes."""

    def __init__(self, packer: Packer, batch: int, grid: int, first_step: int, talk: bool) -> None:
        super().__init__()
        self.packer, self.batch, self.grid = packer, batch, grid
        self.first_step, self.talk = first_step, talk

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.first_step + number
        while True:
            seeds = range(
                FIRST_TRAINING_SEED + step * self.batch, FIRST_TRAINING_SEED + (step + 1) * self.batch
            )
            scenes = [draw(seed) for seed in seeds]
            packed = [
                self.packer.pack(
                    training_questions(s, np.random.default_rng([7, s.seed])) if self.talk else []
                )
                for s in scenes
            ]
            yield collate(scenes, packed, self.grid)
            step += workers


def loader(
    packer: Packer, batch: int, grid: int, first_step: int, talk: bool, workers: int
) -> Iterator[Batch]:
    """Batches drawn in worker processes, in order."""
    data = SceneBatches(packer, batch, grid, first_step, talk)
    return iter(
        DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None)
    )
