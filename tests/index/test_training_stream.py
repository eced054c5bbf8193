"""The stream of vectors: the same from any batch on, bounded, shuffled, and over what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_site import FakeLVLM, ListSource, noise_folder, noise_pictures, unreadable
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ModelError, SAEError, SourceError
from explorer.store.writer import SkippedRow
from index.sources import FolderSource, Picture
from index.training.pictures import ChosenPictures, Order, ScenePictures, SkippedFile, split, split_scenes
from index.training.stream import Share, StreamConfig, batches, once
from index.training.tower import Eye, together

EYE = Eye(FakeLVLM(), 1)
PATCHES = 16


def pictures(count: int = 12, bad: tuple[int, ...] = (3, 7)) -> ChosenPictures:
    """Pictures of noise, some of them unreadable; of the last bad one the model makes NaN."""
    items: list[Picture | Exception] = list(noise_pictures(count))
    for number in bad:
        items[number] = unreadable()
    if bad:
        black = Image.new("RGB", (32, 32))
        items[bad[-1]] = Picture(bad[-1], f"noise/{bad[-1]:05d}", "here", black)
    return ChosenPictures(ListSource(items), np.arange(count), "pictures")


def taken(count: int, config: StreamConfig, batch: int = 24, **more: object) -> list[torch.Tensor]:
    return list(islice(batches(EYE, pictures(), batch, config, **more), count))


@settings(max_examples=12, deadline=None)
@given(
    first=st.integers(0, 40),
    buffer=st.integers(40, 600),
    reuse=st.integers(1, 3),
    share=st.sampled_from([Share(0, 1), Share(0, 2), Share(1, 2)]),
)
def test_the_stream_may_start_at_any_batch(first: int, buffer: int, reuse: int, share: Share) -> None:
    config = StreamConfig(buffer * share.size, reuse, tower_batch=2)
    batch = 12 if buffer < 96 else 24
    whole = taken(first + 3, config, batch, share=share)
    part = taken(3, config, batch, first=first, share=share)
    assert all(torch.equal(a, b) for a, b in zip(whole[first:], part, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_half_a_buffer_serves_each_vector_as_often_as_asked(workers: int) -> None:
    config = StreamConfig(buffer=2 * 3 * PATCHES, reuse=2, tower_batch=2, workers=workers)
    fine = pictures(12, bad=())
    everything = torch.cat(list(once(EYE, fine, config)))
    assert everything.shape == (12 * PATCHES, 6) and everything.dtype == torch.float32
    stream = batches(EYE, fine, 16, StreamConfig(2 * 4 * PATCHES, 2, 2, workers), last=24)
    served = [torch.cat(list(islice(stream, 8))) for _ in range(3)]
    stream.close()
    for half in served:
        rows, times = half.unique(dim=0, return_counts=True)
        assert len(rows) == 4 * PATCHES and times.unique().tolist() == [2]
        assert half[: 4 * PATCHES].tolist() != half[4 * PATCHES :].tolist(), "shuffled anew for each use"
    assert sorted(torch.cat(served).unique(dim=0).tolist()) == sorted(everything.unique(dim=0).tolist())


def test_only_what_is_needed_is_read_and_the_buffer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    fine, read = pictures(12, bad=()), []
    plain = ChosenPictures.image
    monkeypatch.setattr(ChosenPictures, "image", lambda self, n: read.append(n) or plain(self, n))
    config = StreamConfig(buffer=2 * 4 * PATCHES, reuse=1, tower_batch=2)
    stream = batches(EYE, fine, 16, config, last=8)
    known: list[int] = []
    for _ in range(8):
        next(stream)
        known.append(len(read) - 1)  # one was read to see how many vectors a picture has
    assert known == [6, 6, 8, 8, 8, 8, 8, 8], "the other half fills while one is served; none beyond the last"
    next(stream)
    assert len(read) == 1 + 8 + 4


def test_what_cannot_be_used_is_told_and_others_take_its_place() -> None:
    told: list[SkippedRow] = []
    config = StreamConfig(buffer=2 * 4 * PATCHES, reuse=1, tower_batch=2)
    stream = batches(EYE, pictures(), 32, config, skipped=told.extend)
    served = torch.cat(list(islice(stream, 30)))
    assert torch.isfinite(served).all() and served.shape == (30 * 32, 6)
    assert {row.image_id for row in told} == {"bad/3", "noise/00007"}
    assert {row.reason for row in told} == {
        "it is empty",
        "the model gives values that are not finite for this picture",
    }
    alone: list[SkippedRow] = []
    assert len(torch.cat(list(once(EYE, pictures(), config, skipped=alone.extend)))) == 10 * PATCHES
    assert sorted(alone) == sorted(set(told))


def test_a_long_run_of_unreadable_pictures_is_no_end() -> None:
    """Whole halves without a picture, at the beginning too."""
    mostly_bad = pictures(40, bad=tuple(range(39)))
    config = StreamConfig(buffer=2 * PATCHES, reuse=1, tower_batch=1)
    whole = list(islice(batches(EYE, mostly_bad, 8, config), 30))
    assert len(torch.cat(whole).unique(dim=0)) == PATCHES
    for first in (1, 7, 20):
        part = next(batches(EYE, mostly_bad, 8, config, first=first))
        assert torch.equal(part, whole[first])


def test_two_processes_read_different_pictures_and_all_of_them() -> None:
    orders = [Order(11, 5, rank, 2).numbers(range(22)) for rank in (0, 1)]
    alone = Order(11, 5).numbers(range(44))
    assert orders[0] == alone[::2] and orders[1] == alone[1::2]
    turns = [alone[i : i + 11] for i in range(0, 44, 11)]
    assert all(sorted(turn) == list(range(11)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 4, "shuffled anew for each turn"
    parts = [torch.cat(list(once(EYE, pictures(), StreamConfig(), Share(rank, 2)))) for rank in (0, 1)]
    whole = torch.cat(list(once(EYE, pictures(), StreamConfig())))
    assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())


def test_the_cls_token_is_read_when_it_is_asked_for() -> None:
    fine = pictures(4, bad=())
    both = torch.cat(list(once(Eye(FakeLVLM(), 1, include_cls=True), fine, StreamConfig())))
    assert both.shape == (4 * 17, 6)
    assert (both == 9.0).all(1).sum() == 4, "the fake model's CLS token is all nines"
    assert not (torch.cat(list(once(EYE, fine, StreamConfig()))) == 9.0).all(1).any()
    towers_without = FakeLVLM()
    towers_without.has_cls = False
    with pytest.raises(ModelError, match="no CLS token; leave out --include-cls"):
        Eye(towers_without, 1, include_cls=True).check()
    with pytest.raises(ModelError, match="block 2 cannot matter"):
        Eye(FakeLVLM(), 2).check()


def test_pictures_of_other_grids_do_not_share_a_batch() -> None:
    square = FakeLVLM().preprocess(Image.new("RGB", (32, 32)))
    tall = replace(square, grid=replace(square.grid, rows=8, cols=2))
    with pytest.raises(SourceError, match="grids of 4 x 4 and 8 x 2 do not fit one batch"):
        together([square, square, tall], [0, 1, 2])
    both = together([square, square], [4, 7])
    assert both.pixels.shape == (2, 3, 32, 32) and both.numbers == (4, 7) and together([], []) is None


def test_streams_that_cannot_be_are_refused() -> None:
    with pytest.raises(SourceError, match="buffer of 31 vectors cannot hold two pictures of 16;"):
        next(batches(EYE, pictures(), 8, StreamConfig(buffer=31)))
    with pytest.raises(SourceError, match="two pictures of 16 for each of 2 processes"):
        next(batches(EYE, pictures(), 8, StreamConfig(buffer=63), share=Share(0, 2)))
    with pytest.raises(SourceError, match="used 2 times, does not fill a batch of 99"):
        next(batches(EYE, pictures(), 99, StreamConfig(buffer=32, reuse=2)))
    with pytest.raises(SourceError, match="none of the pictures can be read"):
        next(batches(EYE, pictures(3, (0, 1, 2)), 8, StreamConfig()))
    with pytest.raises(SourceError, match="buffer = 0"):
        StreamConfig(buffer=0)


def test_pictures_that_become_unreadable_later_end_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = batches(EYE, pictures(4, ()), 8, StreamConfig(buffer=64, reuse=1))
    next(stream)

    def gone(self: ChosenPictures, number: int) -> Image.Image:
        raise unreadable()

    monkeypatch.setattr(ChosenPictures, "image", gone)
    with pytest.raises(SourceError, match="none of the pictures can be read"):
        list(islice(stream, 100))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_that_vanishes_is_told_in_one_line(tmp_path: Path, workers: int) -> None:
    folder = noise_folder(tmp_path / "photos", 8)
    some = split(FolderSource(folder), 2).train
    config = StreamConfig(tower_batch=2, workers=workers)
    assert len(list(once(EYE, some, config))) == 3
    folder.rename(tmp_path / "away")
    with pytest.raises(SourceError, match=r"photos is gone") as caught:
        list(once(EYE, some, config))
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 60), data=st.data())
def test_held_out_pictures_are_spread_and_never_trained_on(count: int, data: st.DataObject) -> None:
    held_out = data.draw(st.integers(1, count - 1))
    source = ListSource(noise_pictures(1) * count)
    source.image_id = lambda number: f"{number:03}"
    train, kept = split(source, held_out)

    def ids(some: ChosenPictures) -> Iterator[int]:
        return (int(some.name(number)[0]) for number in range(len(some)))

    assert sorted([*ids(train), *ids(kept)]) == list(range(count)) and len(kept) == held_out
    gaps = np.diff([-1, *ids(kept), count])
    assert gaps.max() <= -(-count // held_out) + 1


def test_splits_that_cannot_be_are_refused() -> None:
    source = ListSource(noise_pictures(5))
    with pytest.raises(SAEError, match="5 pictures are too few to keep 5"):
        split(source, 5)
    with pytest.raises(SAEError, match="some pictures are needed to measure on"):
        split(source, 0)
    with pytest.raises(SAEError, match="some pictures are needed to measure on"):
        split_scenes(5, 0, 0.0, 0)
    with pytest.raises(
        SAEError, match=r"899990 to 900009 include those kept for measuring \(900000 to 900003"
    ):
        split_scenes(20, 899_990, 0.1, 4)
    with pytest.raises(SourceError, match="0 scenes"):
        ScenePictures(0, 5)
    with pytest.raises(SourceError, match="from seed -1"):
        ScenePictures(1, -1)
    with pytest.raises(SourceError, match=r"with a share of 1\.5"):
        ScenePictures(1, 0, 1.5)
    assert ScenePictures(1, 0).name(0)[0] == "scene:ordinary:0"


def test_counterfactual_scenes_are_spread_evenly() -> None:
    plain, mixed = ScenePictures(8, 50), ScenePictures(8, 50, 0.25)
    differ = [plain.image(n).tobytes() != mixed.image(n).tobytes() for n in range(8)]
    assert differ == [False, False, False, True] * 2
    assert mixed.name(3) == ("scene:counterfactual:53",) * 2 and mixed.name(2)[0] == "scene:ordinary:52"


def test_skipped_pictures_are_kept_on_disk_once_each(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    one, other = SkippedFile(path), SkippedFile(path)
    assert one.rows() == []
    rows = [SkippedRow("b", "here/b", "torn"), SkippedRow("a", "here/a", "empty")]
    one.add(rows)
    one.add(rows)
    other.add(rows[:1])
    with path.open("a") as file:
        file.write('{"image_id": "c", "ori')
    assert SkippedFile(path).rows() == [rows[1], rows[0]] and len(path.read_text().splitlines()) == 4
    one.clear()
    assert one.rows() == []
    with pytest.raises(SAEError, match="cannot write"):
        SkippedFile(tmp_path / "none" / "file").add(rows)
