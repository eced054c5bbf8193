"""A whole build beside the bare loop: decode, preprocess, tower, SAE, and nothing else.

Same pictures, same batches, same device, by turns, so that noise falls on both. Knows the builder as a user
does; nothing of its parts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from explorer.sae import SAE
from explorer.session import site_block
from explorer.vlm.base import LVLM
from index.build import BuildConfig, build
from index.loading import chunk_count
from index.merge import merge
from index.part import Progress
from index.sources.base import Source
from index.stopping import Unheard
from index.work import Shard


class Turn(NamedTuple):
    """One part of the pictures: how many, and the seconds of the bare loop and of the build."""

    images: int
    bare: float
    build: float


class Whole(NamedTuple):
    """All turns together: images per second of both, the build's share of the bare loop's rate, and the
    seconds that merging the parts and writing the store took."""

    bare: float
    build: float
    share: float
    finish: float


def run(
    source: Source,
    lvlm: LVLM,
    sae: SAE,
    batch: int = 32,
    turns: int = 4,
    dtype: str = "float32",
    device: str = "cpu",
) -> Iterator[Turn | Whole]:
    """Build a store of the source in `turns` parts, each after a bare loop over the same pictures.

    Pictures are read in this process, so that both do the same with one core as with many. The last thing
    told is the sum.
    """
    block = site_block(lvlm, sae)
    encode = torch.bfloat16 if dtype in ("bfloat16", "float16") and device != "cpu" else torch.float32
    _bare(source, lvlm, sae, block, range(1), batch, encode)
    with tempfile.TemporaryDirectory(prefix="bench-build-") as place:
        parts = Path(place) / "parts"
        found = []
        for turn in range(turns):
            chunks = range(turn, chunk_count(len(source), batch), turns)
            config = BuildConfig(parts, batch=batch, shard=Shard(turn + 1, turns), dtype=dtype, device=device)
            seen: list[Progress] = []
            bare = _timed(lambda c=chunks: _bare(source, lvlm, sae, block, c, batch, encode))
            took = _timed(lambda c=config, s=seen: build(c, source, lvlm, sae, s.append, Unheard()))
            found.append(Turn(seen[-1].of, bare, took))
            yield found[-1]
        finish = _timed(lambda: merge([parts], Path(place) / "store", sae))
    images, bare, built = (sum(column) for column in zip(*found, strict=True))
    yield Whole(images / bare, images / built, bare / built, finish)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.inference_mode()
def _bare(
    source: Source, lvlm: LVLM, sae: SAE, block: int, chunks: range, batch: int, dtype: torch.dtype
) -> None:
    """Decode, preprocess, tower, SAE: what any index must do."""
    for chunk in chunks:
        numbers = range(chunk * batch, min(len(source), (chunk + 1) * batch))
        ready = [lvlm.preprocess(source.read(n).image, fixed=True) for n in numbers]
        hidden = lvlm.tower(torch.cat([one.pixel_values for one in ready]), block, ready[0])
        patches = ready[0].patches(hidden).float()
        codes = sae.encode_sparse(patches.flatten(0, 1), dtype=dtype)
        codes.values.cpu()
