"""Measures an LVLM on unseen scenes: `python -m explorer.world.measure --model assets/lvlm`.

Objects named in captions, yes/no questions, colours, counts, and how often the counterfactual
scenes make it name the absent partner. Unseen means seeds below the first training seed.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from explorer.world.layout import PRIORS
from explorer.world.questions import CHOICES, Question, absent_concept, colors, counts, exists
from explorer.world.scene import Scene, draw
from explorer.world.words import DESCRIBE, mentions

VISIBLE = 0.30


@dataclass(frozen=True)
class MeasureConfig:
    """model: folder of the LVLM; scenes: unseen ordinary scenes; cases: counterfactual scenes;
    first_seed: first seed of both; batch: prompts per generate call; out: JSON report or None."""

    model: Path
    scenes: int = 1000
    cases: int = 700
    first_seed: int = 0
    batch: int = 64
    out: Path | None = None


class Talker:
    """The LVLM in evaluation: greedy answers to many (scene, prompt) pairs."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.model = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        self.model.eval()
        self.processor = LlavaProcessor.from_pretrained(folder, local_files_only=True)
        self.batch = batch

    @torch.inference_mode()
    def answers(self, pairs: Sequence[tuple[Scene, str]], longest: int = 80) -> list[str]:
        """Greedy answers, in order."""
        texts: list[str] = []
        for start in range(0, len(pairs), self.batch):
            part = pairs[start : start + self.batch]
            prompts = [f"USER: <image>\n{prompt} ASSISTANT:" for _, prompt in part]
            inputs = self.processor(
                images=[scene.image for scene, _ in part], text=prompts, return_tensors="pt", padding=True
            )
            out = self.model.generate(**inputs, max_new_tokens=longest, do_sample=False)
            texts += self.processor.batch_decode(
                out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
            )
        return texts


def caption_scores(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, float]:
    """Precision over all named concepts; recall over concepts visible by at least 30 %."""
    named = right = wanted = found = exact = 0
    for scene, text in zip(scenes, captions, strict=True):
        said = set(mentions(text))
        there = {thing.concept for thing in scene.objects}
        clear = {thing.concept for thing in scene.objects if thing.visible >= VISIBLE}
        named, right = named + len(said), right + len(said & there)
        wanted, found = wanted + len(clear), found + len(said & clear)
        exact += text == scene.caption
    return {
        "precision": right / max(1, named),
        "recall": found / max(1, wanted),
        "exact_captions": exact / len(scenes),
    }


def accuracy(talker: Talker, asked: Iterable[tuple[Scene, Question]]) -> float:
    """Share of questions answered as the truth has it."""
    pairs = list(asked)
    texts = talker.answers([(scene, q.prompt) for scene, q in pairs], longest=4)
    return float(np.mean([text.strip() == q.answer for text, (_, q) in zip(texts, pairs, strict=True)]))


def yes_no(scenes: Sequence[Scene], choice: str) -> list[tuple[Scene, Question]]:
    """One present (clearly visible) and one absent concept per scene."""
    asked = []
    for scene in scenes:
        rng = np.random.default_rng([31, scene.seed])
        clear = sorted({thing.concept for thing in scene.objects if thing.visible >= VISIBLE})
        if clear:
            asked.append((scene, exists(clear[int(rng.integers(len(clear)))], True)))
        asked.append((scene, exists(absent_concept(scene, choice, rng), False)))
    return asked


def hallucination(
    talker: Talker, config: MeasureConfig, scenes: Sequence[Scene], captions: Sequence[str]
) -> dict:
    """Per counterfactual: how often its caption names the absent partner, beside the same partner's
    false mentions on ordinary scenes that lack both it and its anchor."""
    odd = [draw(config.first_seed + i, "counterfactual") for i in range(config.cases)]
    texts = talker.answers([(scene, DESCRIBE[0]) for scene in odd])
    anchors = {prior.partner: prior.anchor for prior in PRIORS}
    table: dict[str, dict] = defaultdict(lambda: {"scenes": 0, "named": 0})
    for scene, text in zip(odd, texts, strict=True):
        row = table[str(scene.case)]
        row["absent"] = scene.absent_partner
        row["scenes"] += 1
        row["named"] += scene.absent_partner in mentions(text)
        row.setdefault("examples", []).extend([scene.seed] if scene.absent_partner in mentions(text) else [])
        if scene.case == "black apple":
            row["called_red"] = row.get("called_red", 0) + ("red apple" in text)
    for row in table.values():
        partner = row["absent"]
        free = [
            partner in mentions(text)
            for scene, text in zip(scenes, captions, strict=True)
            if not {partner, anchors[partner]} & {thing.concept for thing in scene.objects}
        ]
        row["rate"] = row["named"] / row["scenes"]
        row["ordinary_rate"] = float(np.mean(free)) if free else None
        row["examples"] = row["examples"][:12]
    return dict(table)


def measure(config: MeasureConfig) -> dict:
    """All figures of the model card."""
    talker = Talker(config.model, config.batch)
    scenes = [draw(config.first_seed + i) for i in range(config.scenes)]
    captions = talker.answers([(scene, DESCRIBE[0]) for scene in scenes])
    report: dict = {
        "scenes": config.scenes,
        "first_seed": config.first_seed,
        **caption_scores(scenes, captions),
    }
    for choice in CHOICES:
        report[f"yes_no_{choice}"] = accuracy(talker, yes_no(scenes, choice))
    report["colors"] = accuracy(talker, ((s, q) for s in scenes for q in colors(s)))
    report["counts"] = accuracy(talker, ((s, q) for s in scenes for q in counts(s)))
    report["counterfactual"] = hallucination(talker, config, scenes, captions)
    return report


def main() -> None:
    """Parse arguments, measure, print and save the report."""
    parser = argparse.ArgumentParser(prog="python -m explorer.world.measure", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/lvlm"))
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=700)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=None)
    config = MeasureConfig(**vars(parser.parse_args()))
    text = json.dumps(measure(config), indent=1)
    print(text)
    if config.out:
        config.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
