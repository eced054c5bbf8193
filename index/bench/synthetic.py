"""Made-up activations in the amounts of real ones. Knows numpy and the stage's records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from explorer.errors import ExplorerError
from explorer.records import Box, Grid
from explorer.store.sketch import side_of
from index.loading import Item
from index.stage.codes import Codes, EncodedChunk


@dataclass(frozen=True)
class Load:
    """What comes in.

    neurons; side: patches per row and column of the grid; active: neurons that fire on each patch; batch:
    images per chunk; width: of the patch vectors, 0 for none (then no centroids are kept); skewed: whether
    some neurons fire far more often than others (log-uniform), as in real SAEs; otherwise all do equally,
    which is the hardest for any index.
    """

    neurons: int = 65_536
    side: int = 24
    active: int = 20
    batch: int = 32
    width: int = 0
    skewed: bool = False

    def __post_init__(self) -> None:
        if min(self.neurons, self.side, self.active, self.batch) < 1 or self.width < 0:
            raise ExplorerError("neurons, side, active and batch are counts: use 1 or more")

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.side**2


def chunks(load: Load, first: int = 0, seed: int = 0) -> Iterator[EncodedChunk]:
    """Chunks without end, fresh activations in each; images are numbered from `first` chunks on."""
    rng = np.random.default_rng([seed, first])
    entries = load.batch * load.patches * load.active
    place = np.repeat(np.arange(load.batch * load.patches, dtype=np.int32), load.active)
    image, token = np.divmod(place, np.int32(load.patches))
    fvu = np.full(load.batch, 0.3, dtype=np.float32)
    embeddings = rng.standard_normal((load.batch, load.width), dtype=np.float32)
    shape = load.batch, load.patches, side_of(load.width)
    sketches = rng.standard_normal(shape, dtype=np.float32)
    number = first * load.batch
    while True:
        if load.skewed:
            neuron = (load.neurons ** rng.random(entries, dtype=np.float32)).astype(np.int32) - 1
            neuron = np.clip(neuron, 0, load.neurons - 1)
        else:
            neuron = rng.integers(0, load.neurons, entries, dtype=np.int32)
        value = rng.standard_exponential(entries, dtype=np.float32) + np.float32(0.25)
        codes = Codes(image, token, neuron, value, load.batch, load.patches)
        items = [_item(load, number + i) for i in range(load.batch)]
        yield EncodedChunk(items, [], codes, fvu, embeddings, sketches, {})
        number += load.batch


def _item(load: Load, number: int) -> Item:
    grid = Grid(load.side, load.side, 336, 336, Box(0, 0, 336, 336))
    return Item(number, f"{number:09d}", "synthetic", (), grid, b"", None)
