"""What contrastive neuron steering adds to a complete answer: each pair of times is taken in turns.

Every answer is made without drafts, on a memory of its own, unless said otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from explorer.session import Session, View
from explorer.steer import Contrast, noisy_pixels
from explorer.vlm.memory import Memory


class Costs(NamedTuple):
    """Seconds of one picture.

    plain, steered: an answer on the opened picture, its noisy pass made at opening; reminded: the steered
    answer after the untouched one, on the same memory; raw, raw_steered: looking and answering, in one
    batched pass through the tower; raw_apart: the same with a second pass; single, batched: the tower alone,
    on the clean picture and on both; same_length: both answers have as many tokens.
    """

    plain: float
    steered: float
    reminded: float
    raw: float
    raw_steered: float
    raw_apart: float
    single: float
    batched: float
    same_length: bool


def measure(session: Session, images: Iterable[Image.Image], max_new_tokens: int) -> dict:
    """Medians over pictures, and what CNS adds as a share of the time without it.

    Without a store nobody knows the always-on neurons, and none are left alone.
    """
    contrast = Contrast(suppress_always_on=session.store is not None)
    found = [_costs(session, image, contrast, max_new_tokens, bool(i % 2)) for i, image in enumerate(images)]
    return {"all": _summary(found), "same_length": _summary([costs for costs in found if costs.same_length])}


def _costs(
    session: Session, image: Image.Image, contrast: Contrast, max_new_tokens: int, turned: bool
) -> Costs:
    view = session.look(image, contrasts=(contrast,))
    lengths: dict[bool, int] = {}

    def answer(view: View, steered: bool) -> None:
        chosen = contrast if steered else None
        for step in session.steps(view, None, (), contrast=chosen, max_new_tokens=max_new_tokens):
            lengths[steered] = len(step.tokens)

    def on_its_own(steered: bool) -> Callable[[], None]:
        fresh = replace(view, memory=Memory())
        return lambda: answer(fresh, steered)

    def raw(steered: bool, batched: bool = True) -> None:
        answer(session.look(image, contrasts=(contrast,) if steered and batched else ()), steered)

    form, pixels = view.prepared, view.prepared.pixel_values
    both = torch.cat([pixels, noisy_pixels(pixels, contrast.step, contrast.seed, session.lvlm.tied)])
    works: dict[str, Callable[[], object]] = {
        "plain": on_its_own(False),
        "steered": on_its_own(True),
        "raw": lambda: raw(False),
        "raw_steered": lambda: raw(True),
        "raw_apart": lambda: raw(True, False),
        "single": lambda: session.lvlm.tower(pixels, session.block, form),
        "batched": lambda: session.lvlm.tower(both, session.block, form),
    }
    order = list(works)[:: -1 if turned else 1]
    seconds = {name: _timed(works[name]) for name in order}
    answer(view, False)
    reminded = _timed(lambda: answer(view, True))
    return Costs(**seconds, reminded=reminded, same_length=lengths[False] == lengths[True])


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _summary(found: Sequence[Costs]) -> dict:
    """Medians in milliseconds; what is added, as a share, from the medians of each picture's ratio."""
    if not found:
        return {"pictures": 0}

    def median(values: Sequence[float]) -> float:
        return round(float(np.median(values)), 4)

    report: dict = {"pictures": len(found)}
    for name in Costs._fields[:-1]:
        report[f"{name}_ms"] = median([1e3 * getattr(costs, name) for costs in found])
    added = {
        "opened_adds": ("steered", "plain"),
        "reminded_adds": ("reminded", "plain"),
        "raw_adds": ("raw_steered", "raw"),
        "raw_apart_adds": ("raw_apart", "raw"),
    }
    for name, (one, other) in added.items():
        report[name] = median([getattr(costs, one) / getattr(costs, other) - 1 for costs in found])
    report["batched_over_two_passes"] = median([costs.batched / (2 * costs.single) for costs in found])
    return report
