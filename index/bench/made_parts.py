"""Finished parts of a build that never ran: states made of random numbers, in the amounts of real ones.

Arrays agree with each other as a pass would leave them, so that a merge cannot tell them from real parts.
Knows the layout of a state and of a part's folder; no models.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from explorer.errors import ExplorerError
from explorer.sae import SAE, ActivationRule
from explorer.store.histogram import BINS, bins_of, half_octaves
from explorer.store.pending import Pending, PendingImage
from explorer.store.sketch import side_of
from index import checkpoints
from index.checkpoints import Saved
from index.part import chunks_of, images_of, sample_rate
from index.stage.codes import ranks_in_runs, run_starts
from index.stage.intervals import INTERVALS, mix
from index.stage.places import EMPTY, map_lengths
from index.stage.sample import PATCHES, sampled
from index.stage.state import BuildState, StateShape
from index.work import PICTURES_NAME, Pins, Shard, SourceFacts, open_work, work_folder

_BATCH = 32
_MEDIAN_PATCHES, _SPREAD, _DENSE = 12, 1.0, 0.02
_DEAD = 0.05
_STEEPNESS = 0.35
_LEADER = np.uint64(2**32)


@dataclass(frozen=True)
class Size:
    """How large the parts are.

    parts; neurons; side: patches per row and column; width: of the vectors; images: in each part; labels:
    classes of which each image shows one; sample: images kept whole, in all parts together; firing:
    neurons that fire on an image, on average; thumbnail: bytes of one.
    """

    parts: int = 64
    neurons: int = 65_536
    side: int = 24
    width: int = 1024
    images: int = 20_000
    labels: int = 1_000
    sample: int = 4_096
    firing: int = 3_000
    thumbnail: int = 5_000

    def __post_init__(self) -> None:
        least = {"parts": 1, "neurons": 1, "side": 1, "width": 1, "images": _BATCH, "labels": 1}
        for name, bound in {**least, "sample": 1, "firing": 1, "thumbnail": 1}.items():
            if getattr(self, name) < bound:
                raise ExplorerError(f"{name} = {getattr(self, name)}: use {bound} or more")

    @property
    def total(self) -> int:
        """Images in all parts."""
        return self.parts * self.images

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.side**2


@cache
def made_sae(neurons: int, width: int) -> SAE:
    """An SAE of random weights."""
    weights = torch.randn(neurons, width, generator=torch.Generator().manual_seed(0))
    rule = ActivationRule("topk", k=min(20, neurons))
    sae = SAE(weights.T, torch.zeros(neurons), weights, torch.zeros(width), rule, site_block=1)
    return sae.eval().requires_grad_(False)


def make_part(size: Size, index: int, folder: Path, sae_id: str) -> Path:
    """Make part number `index` (from 1) inside `folder`, as if its build had ended; returns its folder."""
    pins = _pins(size, index, sae_id)
    facts = SourceFacts("pictures made up", tuple(("class", f"class {i}") for i in range(size.labels)), ())
    shape = StateShape(
        size.neurons,
        size.patches,
        size.side,
        size.side,
        size.width,
        n_labels=size.labels,
        sample_rate=sample_rate(pins),
    )
    part = work_folder(folder, Shard(index, size.parts))
    with open_work(part, pins, facts) as work:
        made = _MadeState(size, shape, _numbers(pins), np.random.default_rng([1, index]))
        chunks = len(chunks_of(pins))
        work.save(Saved(chunks, chunks, asdict(shape), made.arrays(), []))
        with Pending(part / PICTURES_NAME) as pending:
            pending.put(_picture(size, number, index) for number in made.holders.tolist())
            pending.commit()
    if checkpoints.progress(part) is None:
        raise ExplorerError(f"the part {part} was not saved")
    return part


def label_of(size: Size, numbers: np.ndarray) -> np.ndarray:
    """The class that each image shows: one after the other, as in folders of classes."""
    return (np.asarray(numbers) * size.labels // size.total).astype(np.int32)


def _pins(size: Size, index: int, sae_id: str) -> Pins:
    """What the part claims to be built from."""
    return Pins(
        model_id="made up",
        block=1,
        sae_id=sae_id,
        n_neurons=size.neurons,
        width=size.width,
        dtype="float32",
        device="cpu",
        preprocessing="none",
        list_hash="0" * 64,
        n_images=size.total,
        vocabulary="0" * 64,
        batch=_BATCH,
        score="mean",
        include_cls=False,
        places=16,
        sample=size.sample,
        shard=index,
        of=size.parts,
    )


def _numbers(pins: Pins) -> np.ndarray:
    """The numbers of the part's images, ascending int64."""
    chunks = np.array(chunks_of(pins), dtype=np.int64)
    numbers = (chunks[:, None] * pins.batch + np.arange(pins.batch)).reshape(-1)
    return numbers[: images_of(pins, len(chunks))]


def _picture(size: Size, number: int, seed: int) -> PendingImage:
    """A picture with a thumbnail of bytes that nothing packs."""
    blob = _blob(seed)
    start = (number * 8_191) % (len(blob) - 2 * size.thumbnail)
    length = size.thumbnail // 2 + number * 7_919 % size.thumbnail
    label = int(label_of(size, np.array([number]))[0])
    name = f"n{label:08d}/n{label:08d}_{number}.JPEG"
    origin = f"/data/imagenet/train/{name}"
    return PendingImage(number, name, origin, size.side, size.side, blob[start : start + length], (label,))


@cache
def _blob(seed: int) -> bytes:
    return np.random.default_rng([2, seed]).bytes(1 << 20)


class _MadeState:
    """The arrays of a state over images with some numbers."""

    def __init__(self, size: Size, shape: StateShape, numbers: np.ndarray, rng: np.random.Generator) -> None:
        self._size, self._shape, self._numbers, self._rng = size, shape, numbers, rng
        whole = np.random.default_rng(0)
        rate = whole.lognormal(-5.3, 2.1, size.neurons)  # half fire in less than 0.5 % of the images
        rate *= min(size.firing, size.neurons / 2) / max(rate.sum(), 1e-9)
        self._rate = np.where(whole.random(size.neurons) < _DEAD, 0, np.minimum(rate, 0.9))
        self._usual = whole.lognormal(-4, 1, size.neurons)
        self._fires = rng.binomial(len(numbers), self._rate)
        self._peak = np.zeros(size.neurons, dtype=np.float32)
        self._tables = {"top": self._top(), "intervals": self._intervals()}
        self.holders = np.unique(np.concatenate([t["numbers"] for t in self._tables.values()]))

    def arrays(self) -> dict[str, np.ndarray]:
        """As `BuildState.arrays` gives them."""
        found = {f"{name}.{c}": column for name, t in self._tables.items() for c, column in t.items()}
        labels = np.bincount(label_of(self._size, self._numbers), minlength=self._size.labels)
        found |= {"labels.images": labels, "labels.labelled": np.array(len(self._numbers))}
        return found | self._statistics() | self._sample()

    def _top(self) -> dict[str, np.ndarray]:
        """The places of the strongest images; some images are busier than others."""
        places, rng, n = self._shape.places, self._rng, len(self._numbers)
        held = np.minimum(self._fires, min(places, n))[:, None] > np.arange(places)
        level = np.log(np.maximum(self._fires, 1)) + rng.gumbel(size=len(held))
        falls = rng.standard_exponential(held.shape) / np.arange(1, places + 1)
        heights = level[:, None] - np.cumsum(falls, axis=1) + falls[:, :1]
        scores = (self._usual[:, None] * np.exp(_STEEPNESS * heights)).astype(np.float32)
        busy = np.cumsum(rng.lognormal(0, 1, max(1, n - places)))
        drawn = np.sort(np.searchsorted(busy, rng.random(held.shape) * busy[-1]), axis=1)
        drawn = np.maximum.accumulate(drawn - np.arange(places), axis=1) + np.arange(places)
        images = rng.permuted(drawn % n, axis=1)  # all different, in no order
        key = (~scores.view(np.uint32)).astype(np.uint64) * _LEADER + self._numbers[images].astype(np.uint64)
        key[~held] = EMPTY
        key.sort(axis=1)
        some = key[held]
        kept = (~(some >> np.uint64(32)).astype(np.uint32)).view(np.float32)
        self._peak[held[:, 0]] = kept[np.flatnonzero(np.nonzero(held)[1] == 0)]
        return self._records(key, (some % _LEADER).astype(np.uint32), kept, side_of(self._size.width))

    def _intervals(self) -> dict[str, np.ndarray]:
        """One image for most half-octaves below the peaks: a low hash among those that take part."""
        rng, neurons = self._rng, self._size.neurons
        luck = mix(self._numbers)
        part = np.flatnonzero(luck < self._shape.detailed_rate * 2.0**32)
        part = part[np.argsort(luck[part])]
        share = np.maximum(self._rate / 4, 1e-9)[:, None]
        nth = rng.standard_exponential((neurons, INTERVALS)) / share
        tags = half_octaves(np.maximum(self._peak, 1e-6)).astype(np.int64)[:, None] - np.arange(INTERVALS)
        held = (nth < len(part)) & (self._peak > 0)[:, None] & (tags > 0)
        bits = (tags << 22 | rng.integers(0, 1 << 22, tags.shape)).astype(np.uint32)
        scores = np.minimum(bits.view(np.float32), self._peak[:, None])
        image = part[np.where(held, nth, 0).astype(np.int64)] if len(part) else np.zeros(tags.shape, int)
        row = np.arange(neurons)[:, None] * INTERVALS + tags % INTERVALS
        order = np.argsort(row[held])
        key = np.full((neurons * INTERVALS, 1), EMPTY)
        key[row[held], 0] = (511 - tags[held]).astype(np.uint64) * _LEADER + luck[image[held]]
        numbers = self._numbers[image[held]][order].astype(np.uint32)
        return self._records(key, numbers, scores[held][order], 0)

    def _records(self, key: np.ndarray, numbers: np.ndarray, scores: np.ndarray, side: int) -> dict:
        """The columns of a table, with maps and sketches."""
        n, rng, patches = len(numbers), self._rng, self._size.patches
        lengths, data = _some_maps(patches, 0)
        begin = int(rng.integers(len(lengths)))
        which = np.arange(begin, begin + n) % len(lengths)
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        runs = [data[ends[a] : ends[b]] for a, b in _wrapped(begin, n, len(lengths))]
        found = {
            "key": key,
            "numbers": numbers,
            "scores": scores,
            "scales": (scores * np.float32(patches / 4 / 255)).astype(np.float32),
            "lengths": lengths[which],
            "maps": np.concatenate([np.zeros(0, np.uint8), *runs]),
        }
        if side:
            found["sketches"] = np.frombuffer(rng.bytes(n * side), dtype=np.int8).reshape(n, side)
        return found

    def _statistics(self) -> dict[str, np.ndarray]:
        """Counts and sums that fit the places."""
        found = BuildState(StateShape(self._size.neurons, 1, 1, 1, 0, places=1)).statistics.arrays()
        fires, mean = self._fires, self._usual
        patch_fires = np.minimum(fires * 15, len(self._numbers) * self._size.patches)
        found["statistics.images"] = np.array(len(self._numbers))
        found["statistics.fires"], found["statistics.patch_fires"] = fires, patch_fires
        found["statistics.in_top"] = fires // 100
        found["statistics.peak"], found["statistics.active_peak"] = self._peak, self._peak * np.float32(16)
        found["statistics.score_histogram"] = _histogram(fires, self._peak)
        found["statistics.active_histogram"] = _histogram(
            (patch_fires * self._shape.detailed_rate).astype(np.int64), self._peak * np.float32(16)
        )
        found["statistics.fvu"][1_000:1_200] = len(self._numbers) // 200
        found["statistics.fvu"][1_000] += len(self._numbers) % 200
        for name, total in (
            ("score_total", fires * mean),
            ("score_square", fires * mean**2 * 1.5),
            ("active_total", patch_fires * mean * 4),
            ("active_square", patch_fires * mean**2 * 32),
        ):
            found[f"statistics.{name}.whole"] = np.rint(total).astype(np.int64)
            found[f"statistics.{name}.rest"] = np.rint((total - np.rint(total)) * 2.0**40).astype(np.int64)
        return found

    def _sample(self) -> dict[str, np.ndarray]:
        """The sampled images: who fires how strongly, and on 16 patches."""
        rng = self._rng
        numbers = self._numbers[sampled(self._numbers, self._shape.sample_rate)]
        rows = [np.flatnonzero(rng.random(self._size.neurons) < self._rate) for _ in numbers]
        each = [np.sort(rng.choice(row, min(20, len(row)), False)) for row in rows for _ in range(PATCHES)]
        neurons = np.concatenate([np.zeros(0, int), *rows]).astype(np.int32)
        scores = self._usual[neurons] * rng.standard_exponential(len(neurons)) + 1e-6
        columns = {
            "numbers": numbers,
            "embeddings": rng.standard_normal((len(numbers), self._size.width), dtype=np.float32) + 1,
            "score_starts": _starts(rows),
            "score_neurons": neurons,
            "score_values": np.minimum(scores, self._peak[neurons]).astype(np.float32),
            "patch_starts": _starts(each),
            "patch_neurons": np.concatenate([np.zeros(0, int), *each]).astype(np.int32),
            "label_starts": np.arange(len(numbers) + 1),
            "labels": label_of(self._size, numbers),
        }
        return {f"sample.{name}": column for name, column in columns.items()}


def _starts(rows: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *map(len, rows)], dtype=np.int64)


def _wrapped(begin: int, n: int, period: int) -> list[tuple[int, int]]:
    """The ranges that n numbers from `begin` on fall into when they start again at `period`."""
    found = []
    while n > 0:
        end = min(begin + n, period)
        found.append((begin, end))
        n -= end - begin
        begin = 0
    return found


def _histogram(counts: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Histograms [F, 64] that add up to `counts` and reach up to the peaks."""
    found = np.zeros((len(counts), BINS), dtype=np.int64)
    live = np.flatnonzero(counts)
    top, left = bins_of(peaks[live]), counts[live] - 1
    np.add.at(found, (live, top), 1)
    for below in range(1, 12):
        here = left // 4
        np.add.at(found, (live, np.maximum(top - below, 0)), here)
        left = left - here
    np.add.at(found, (live, np.maximum(top - 12, 0)), left)
    return found


@cache
def _some_maps(n_patches: int, seed: int, count: int = 1 << 18) -> tuple[np.ndarray, np.ndarray]:
    """Maps as `Places` keeps them: their lengths [count] int32, and their bytes one after the other.

    Few patches for most (log-normal), all for a few; steps of random height at random patches.
    """
    rng = np.random.default_rng([3, seed])
    patches = np.clip(rng.lognormal(np.log(_MEDIAN_PATCHES), _SPREAD, count), 1, n_patches).astype(np.int64)
    patches[rng.random(count) < _DENSE] = n_patches
    lengths = map_lengths(patches, n_patches)
    ends = np.cumsum(lengths, dtype=np.int64)
    data = rng.integers(1, 256, int(ends[-1]), dtype=np.uint8)
    thin = np.flatnonzero(lengths != n_patches)
    owner = np.repeat(thin, patches[thin])
    nth = ranks_in_runs(run_starts(owner), len(owner))
    token = ((nth + rng.random(len(owner))) * (n_patches / patches[owner])).astype(np.int64)
    at = (ends - lengths)[owner] + 3 * nth
    data[at], data[at + 1] = token & 0xFF, token >> 8
    return lengths, data
