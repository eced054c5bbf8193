"""Loading: the same chunks here and in workers, unreadable pictures, and workers that die or are left."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.errors import ImageError, SourceError
from explorer.records import Box, Grid
from explorer.vlm.base import Prepared
from index.loading import Chunk, chunk_count, load_chunks, thumbnail
from index.sources import FolderSource, SceneSource

ROOT = Path(__file__).parents[2]


def prepare(image: Image.Image) -> Prepared:
    """8 x 8 px of the middle square, in 4 x 4 patches."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = Box(left, top, left + side, top + side)
    pixels = np.asarray(image.resize((8, 8), box=box), dtype=np.float32)
    return Prepared(torch.tensor(pixels).permute(2, 0, 1)[None], Grid(4, 4, image.width, image.height, box))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures; numbers 2, 5, 6, 7 and 8 cannot be read."""
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (30, 20 + 4 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    for i in (2, 5, 6, 7):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    (tmp_path / "8.png").write_bytes(b"")
    return tmp_path


def same(one: Chunk, other: Chunk) -> bool:
    """Whether two chunks are equal to the last bit."""
    if (one.pixels is None) != (other.pixels is None) or one.skipped != other.skipped:
        return False
    if one.pixels is not None and not torch.equal(one.pixels, other.pixels):
        return False
    for a, b in zip(one.items, other.items, strict=True):
        if a[:-1] != b[:-1] or (a.truth is None) != (b.truth is None):
            return False
        if a.truth is not None and not all(map(np.array_equal, a.truth, b.truth)):
            return False
    return one.index == other.index


OTHERS: set[int] = set()
"""Processes that other tests started and still use, a browser's among them."""


@pytest.fixture(autouse=True)
def _leave_others_alone() -> None:
    OTHERS.clear()
    OTHERS.update(children())


def children() -> set[int]:
    """The processes that this one started since the test began and that live on."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(entry.name))
    found -= OTHERS
    return found


def test_chunks_are_counted() -> None:
    assert [chunk_count(n, 4) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_unreadable_pictures_leave_their_chunk(folder: Path) -> None:
    source = FolderSource(folder)
    chunks = list(load_chunks(source, prepare, range(5), 2))
    assert [chunk.index for chunk in chunks] == list(range(5))
    assert [[item.number for item in chunk.items] for chunk in chunks] == [[0, 1], [3], [4], [], [9]]
    assert [[row.image_id for row in chunk.skipped] for chunk in chunks] == [
        [], ["2.png"], ["5.png"], ["6.png", "7.png"], ["8.png"],
    ]  # fmt: skip
    assert chunks[3].pixels is None
    assert chunks[2].skipped[0].origin == str(folder / "5.png")
    assert "empty" in chunks[4].skipped[0].reason
    for chunk in chunks:
        for place, item in enumerate(chunk.items):
            picture = source.read(item.number)
            assert item[:4] == (item.number, picture.image_id, picture.origin, picture.labels)
            expected = prepare(picture.image)
            assert torch.equal(chunk.pixels[place], expected.pixel_values[0])
            assert item.grid == expected.grid
            assert item.truth is None
            assert item.thumbnail == thumbnail(picture.image, expected.grid)


@pytest.mark.parametrize("indices", [range(5), [4, 0, 2], [3], []])
def test_workers_change_nothing(folder: Path, indices: list[int]) -> None:
    here = list(load_chunks(FolderSource(folder), prepare, indices, 2))
    there = list(load_chunks(FolderSource(folder), prepare, indices, 2, workers=2))
    assert [chunk.index for chunk in there] == list(indices)
    assert all(map(same, here, there))
    assert not children()


def test_truth_and_labels_come_along() -> None:
    source = SceneSource(5)
    here, there = (list(load_chunks(source, prepare, range(3), 2, workers)) for workers in (0, 2))
    assert all(map(same, here, there))
    for item in (item for chunk in there for item in chunk.items):
        truth = source.read(item.number).truth(item.grid)
        assert all(map(np.array_equal, item.truth, truth))
        assert item.labels == source.read(item.number).labels


def test_a_thumbnail_is_what_the_grid_covers() -> None:
    image = Image.new("RGB", (800, 400), "red")
    image.paste("blue", (200, 0, 600, 400))
    small = Image.open(io.BytesIO(thumbnail(image, prepare(image).grid)))
    assert (small.format, small.size) == ("JPEG", (192, 192))
    assert np.asarray(small.convert("RGB"))[..., 2].min() > 240


class Odd(SceneSource):
    """Scenes; what happens at number 5 is for subclasses to say."""

    def read(self, number):
        return super().read(number) if number != 5 else self.trouble()

    def trouble(self):
        raise SourceError("the disk is gone; bring it back")


class Deadly(Odd):
    def trouble(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Buggy(Odd):
    def trouble(self):
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_vanished_source_keeps_its_words(workers: int) -> None:
    with pytest.raises(SourceError) as caught:
        list(load_chunks(Odd(9), prepare, range(9), 1, workers))
    assert str(caught.value) == "the disk is gone; bring it back"
    assert not children()


@pytest.mark.parametrize("workers", [0, 2])
def test_bugs_are_not_hidden(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(load_chunks(Buggy(9), prepare, range(9), 1, workers))


def test_a_killed_worker_is_told_in_plain_words() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    arrived = []
    with pytest.raises(SourceError, match="use fewer --workers"):
        for chunk in load_chunks(Deadly(9), prepare, range(9), 1, workers=2):
            arrived.append(chunk.index)
            time.sleep(0.05)  # while the main process is busy elsewhere, nothing bursts in
    assert arrived == list(range(len(arrived)))
    assert set(arrived) <= {0, 1, 2, 3, 4}
    assert not children()
    assert signal.getsignal(signal.SIGCHLD) is before


def test_leaving_early_leaves_no_workers() -> None:
    chunks = load_chunks(SceneSource(200), prepare, range(100), 2, workers=2)
    assert next(chunks).index == 0
    assert len(children()) == 2
    chunks.close()
    assert not children()


def test_workers_from_another_thread() -> None:
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.extend(
            chunk.index for chunk in load_chunks(SceneSource(6), prepare, range(3), 2, workers=1)
        )
    )
    thread.start()
    thread.join()
    assert found == [0, 1, 2]


def test_an_interrupt_leaves_no_orphans() -> None:
    code = """
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
        sys.path.insert(0, "tests/index")
        from test_loading import children, prepare
        from index.loading import load_chunks
        from index.sources import SceneSource
        try:
            for chunk in load_chunks(SceneSource(10**6), prepare, range(10**5), 8, workers=2):
                print(*children(), flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_pictures_of_different_grids_do_not_fit() -> None:
    def by_size(image: Image.Image) -> Prepared:
        made = prepare(image)
        values, grid = made.pixel_values, made.grid
        return Prepared(values, Grid(4, 4 + image.info.get("more", 0), 8, 8, grid.covered))

    class Mixed(SceneSource):
        def read(self, number):
            picture = super().read(number)
            picture.image.info["more"] = number // 3
            return picture

    with pytest.raises(SourceError, match=r"scene:ordinary:3 has a 4 x 5 grid.*one grid for all"):
        list(load_chunks(Mixed(4), by_size, [0], 4))


def test_a_picture_that_the_model_refuses_is_skipped() -> None:
    def picky(image: Image.Image) -> Prepared:
        raise ImageError("too thin for this model")

    (chunk,) = load_chunks(SceneSource(1), picky, [0], 4)
    assert chunk.pixels is None
    assert chunk.skipped[0] == ("scene:ordinary:0", "scene:ordinary:0", "too thin for this model")


def test_wrong_numbers_are_refused() -> None:
    for batch, workers in ((0, 0), (1, -1)):
        with pytest.raises(SourceError, match="cannot load"):
            load_chunks(SceneSource(3), prepare, [0], batch, workers)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            list(load_chunks(SceneSource(3), prepare, [index], 1))
