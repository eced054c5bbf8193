"""Checks exemplars of a store through the live model: each picture is opened again and indexed alone.

What a picture scores alone may differ from what it scored in its batch by rounding; more than that means that
the model, the SAE, the preprocessing or the picture is not what it was. Knows stores, models and origins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from explorer.errors import ExplorerError, ImageError, SourceError
from explorer.records import Exemplar
from explorer.sae import SAE
from explorer.session import site_block
from explorer.store import Store
from explorer.store.maps import STEPS
from explorer.vlm.base import LVLM
from index.sources.reopen import open_origin

TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far a score may be off, as a share of itself, by the precision that the store was built in."""
STEPS_OFF = 2
"""How many steps of a patch map's 255 rounding alone may move a patch, beside the tolerance."""


@dataclass(frozen=True)
class VerifyConfig:
    """How to check. Raises ExplorerError for what cannot be.

    samples: exemplars to recompute.
    seed: of their choice.
    tolerance: largest relative difference of a score that passes; None takes it from the build's precision.
    """

    samples: int = 32
    seed: int = 0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or self.seed < 0:
            raise ExplorerError(f"cannot check {self.samples} exemplars with seed {self.seed}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ExplorerError(f"the tolerance {self.tolerance} must be above 0")


class Drift(NamedTuple):
    """How far one exemplar is off: score as a share of the stored one, map in steps of 1/255 of its peak
    where the neuron fires both times; flips: patches where it fires only one time, by more than a step, of
    the `firing` ones where it fires at all."""

    neuron: int
    rank: int
    image_id: str
    score: float
    steps: float
    flips: int
    firing: int


class Lost(NamedTuple):
    """An exemplar whose picture cannot be opened any more."""

    neuron: int
    image_id: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What was found: drifts of the exemplars that could be recomputed, the lost ones, and what passes."""

    drifts: tuple[Drift, ...]
    lost: tuple[Lost, ...]
    tolerance: float

    @property
    def failed(self) -> list[Drift]:
        """The exemplars that are further off than rounding explains."""
        return [drift for drift in self.drifts if not self._passes(drift)]

    def _passes(self, drift: Drift) -> bool:
        """Whether rounding explains it. At its threshold a neuron may flip on a few patches."""
        alike = drift.steps <= STEPS_OFF + self.tolerance * STEPS
        return drift.score <= self.tolerance and alike and drift.flips <= 1 + drift.firing // 10

    @property
    def passed(self) -> bool:
        """Whether some were recomputed and none is too far off."""
        return bool(self.drifts) and not self.failed


def verify(
    store: Store,
    lvlm: LVLM,
    sae: SAE,
    config: VerifyConfig,
    seen: Callable[[], None] = lambda: None,
) -> Report:
    """Recompute random exemplars; `seen` hears of each. Raises StoreError for another model or SAE."""
    block = site_block(lvlm, sae)
    store.check(
        model_id=lvlm.model_id,
        block=block,
        sae_id=sae.id,
        n_neurons=sae.n_neurons,
        preprocessing=lvlm.preprocessing,
    )
    drifts: list[Drift] = []
    lost: list[Lost] = []
    for exemplar in chosen(store, config.samples, config.seed):
        try:
            image = open_origin(exemplar.origin)
        except (ImageError, SourceError) as error:
            lost.append(Lost(exemplar.neuron, exemplar.image_id, str(error)))
        else:
            drifts.append(_drift(exemplar, store, _activations(image, lvlm, sae, block, exemplar.neuron)))
        seen()
    tolerance = config.tolerance or TOLERANCES.get(store.manifest.dtype, max(TOLERANCES.values()))
    return Report(tuple(drifts), tuple(lost), tolerance)


def chosen(store: Store, samples: int, seed: int) -> Sequence[Exemplar]:
    """Random exemplars: of random living neurons, one place each, as long as there are neurons."""
    dice = np.random.default_rng(seed)
    live = np.flatnonzero(store.classes() != "dead")
    dice.shuffle(live)
    found = []
    for neuron in live[:samples].tolist():
        exemplars = store.exemplars(neuron)
        found.append(exemplars[int(dice.integers(len(exemplars)))])
    return found


class _Alone(NamedTuple):
    """Activations of one neuron on a picture alone: on its patches [T], and on the CLS token, 0 without."""

    patches: np.ndarray
    cls: float


@torch.inference_mode()
def _activations(image, lvlm: LVLM, sae: SAE, block: int, neuron: int) -> _Alone:
    """Run one picture through the tower, and one neuron of the SAE's answer."""
    prepared = lvlm.preprocess(image, fixed=True)
    hidden = lvlm.tower(prepared.pixel_values, block, prepared)[0].float()
    patches = prepared.patches(hidden)
    codes = sae.encode_sparse(patches)
    fires = (codes.neurons == neuron) & (codes.values > 0)
    on_patches = np.zeros(len(patches), dtype=np.float32)
    on_patches[codes.tokens[fires].cpu().numpy()] = codes.values[fires].cpu().numpy()
    return _Alone(on_patches, max(float(sae.encode(hidden[:1])[0, neuron]), 0.0) if lvlm.has_cls else 0.0)


def _drift(exemplar: Exemplar, store: Store, alone: _Alone) -> Drift:
    """Compare what a picture gives alone with what is stored."""
    manifest = store.manifest
    values = alone.patches.astype(np.float64)
    tokens = np.append(values, alone.cls) if manifest.include_cls else values
    score = tokens.max() if manifest.score == "max" else tokens.mean()
    stored = exemplar.patch_map.reshape(-1).astype(np.float64)
    where = exemplar.neuron, exemplar.rank, exemplar.image_id
    if stored.shape != values.shape or not stored.any():
        return Drift(*where, np.inf, np.inf, len(values), 0)
    step = stored.max() / STEPS
    both = (stored > 0) & (values > 0)
    flips = (np.maximum(stored, values) > step) & ~both
    off = np.abs(values - stored)[both].max(initial=0.0) / step
    share = abs(score - exemplar.score) / exemplar.score
    firing = np.count_nonzero((stored > 0) | (values > 0))
    return Drift(*where, float(share), float(off), int(flips.sum()), firing)
