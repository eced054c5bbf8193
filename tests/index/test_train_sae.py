"""The training command: a stream that starts anywhere, a whole run, a resumed run, and refusals."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_site import FakeLVLM
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ExplorerError, SAEError, SourceError
from explorer.sae import load_sae
from index import train_sae
from index.vectors import FolderPictures, ScenePictures, StreamConfig, batches, patch_vectors


class Noise:
    """Twelve pictures of noise, two of them unreadable."""

    description = "noise"

    def __len__(self) -> int:
        return 12

    def image(self, number: int) -> Image.Image | None:
        if number in (3, 7):
            return None
        dice = np.random.default_rng(number)
        return Image.fromarray(dice.integers(0, 256, (32, 32, 3), dtype=np.uint8))


LVLM = FakeLVLM()
CONFIG = StreamConfig(chunk=5, reuse=2, tower_batch=2)


@settings(max_examples=8, deadline=None)
@given(first=st.integers(0, 40))
def test_the_stream_may_start_at_any_batch(first: int) -> None:
    whole = list(islice(batches(LVLM, 1, Noise(), 24, CONFIG), first + 3))
    part = list(islice(batches(LVLM, 1, Noise(), 24, CONFIG, first), 3))
    assert all(torch.equal(a, b) for a, b in zip(whole[first:], part, strict=True))


def test_a_chunk_uses_each_vector_as_often_as_asked() -> None:
    config = StreamConfig(chunk=3, reuse=2, tower_batch=2)
    vectors = patch_vectors(LVLM, 1, Noise(), 0, 3, config)
    assert vectors.shape == (48, 6) and vectors.dtype == torch.float32
    taken = torch.cat(list(islice(batches(LVLM, 1, Noise(), 12, config), 8)))
    assert sorted(taken.tolist()) == sorted(vectors.tolist() * 2)
    assert taken[:48].tolist() != vectors.tolist()


def test_streams_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="chunk of 1 pictures does not fill a batch of 99"):
        next(batches(LVLM, 1, Noise(), 99, StreamConfig(chunk=1, reuse=2)))
    with pytest.raises(SourceError, match="none of 1 pictures can be read"):
        patch_vectors(LVLM, 1, Noise(), 3, 1, CONFIG)
    with pytest.raises(SourceError, match="chunk = 0"):
        StreamConfig(chunk=0)
    with pytest.raises(SourceError, match="0 scenes"):
        ScenePictures(0, 5)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="too few pictures"):
        FolderPictures(tmp_path, slice(-1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_that_vanishes_is_told_in_one_line(tmp_path: Path, workers: int) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(8):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    pictures = FolderPictures(tmp_path / "photos")
    config = StreamConfig(tower_batch=2, workers=workers)
    assert patch_vectors(LVLM, 1, pictures, 0, 8, config).shape == (8 * 16, 6)
    (tmp_path / "photos").rename(tmp_path / "away")
    with pytest.raises(SourceError, match=r"photos is gone") as caught:
        patch_vectors(LVLM, 1, pictures, 0, 8, config)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_counterfactual_scenes_are_spread_evenly() -> None:
    plain, mixed = ScenePictures(8, 50), ScenePictures(8, 50, 0.25)
    differ = [plain.image(n).tobytes() != mixed.image(n).tobytes() for n in range(8)]
    assert differ == [False, False, False, True] * 2


def parsed(folder: Path, model: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train_sae.add_arguments(parser)
    small = "--steps 6 --batch 64 --chunk 8 --reuse 2 --held-out 4 --expansion 2 --k 3 --quiet"
    small += "" if "--images" in more else " --scenes 20"
    files = f"--out {folder}/sae.safetensors --checkpoint {folder}/run/state.pt --checkpoint-every 2"
    return parser.parse_args(
        [*small.split(), *files.split(), "--model", str(model), "--device", "cpu", *more]
    )


def test_trains_resumes_and_says_what_it_did(
    tmp_path: Path,
    tiny_lvlm_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert train_sae.run(parsed(tmp_path / "a", tiny_lvlm_folder)) == 0
    printed = capsys.readouterr().out
    assert "64 neurons of width 32 at block 2" in printed and "explained variance" in printed
    sae = load_sae(tmp_path / "a" / "sae.safetensors")
    assert (sae.site_block, sae.rule.kind, sae.rule.k, sum(sae.group_sizes)) == (2, "jumprelu", 3, 64)
    assert sae.model_id is not None and "@" in sae.model_id
    assert sae.facts["trained_on"] == "drawn scenes, seeds 10000000 to 10000019, 10% counterfactual"
    assert sae.facts["quality"]["vectors"] == 4 * 16

    plain = train_sae._show

    def interrupt(bar: object, report: object) -> None:
        plain(bar, report)
        if report.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_sae, "_show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_sae.run(parsed(tmp_path / "b", tiny_lvlm_folder))
    monkeypatch.undo()
    assert not (tmp_path / "b" / "sae.safetensors").exists()
    with pytest.raises(SAEError, match="had chunk = 8, not 9"):
        train_sae.run(parsed(tmp_path / "b", tiny_lvlm_folder, "--resume", "--chunk", "9"))
    assert train_sae.run(parsed(tmp_path / "b", tiny_lvlm_folder, "--resume")) == 0
    assert load_sae(tmp_path / "b" / "sae.safetensors").id == sae.id


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--resume"], "no run to resume"),
        (["--steps", "0"], "steps = 0"),
        (["--first-seed", "899990"], "include those kept for measuring"),
        (["--held-out", "0"], "some pictures are needed"),
        (["--block", "3"], "block 3 cannot matter"),
        (["--images", "nowhere"], "no folder nowhere"),
        (["--out", "/"], "/ is a folder"),
        (["--checkpoint", "/proc/nowhere/state.pt"], "cannot write /proc/nowhere/state.json: .*--checkpoint"),
        (["--out", "/proc/nowhere/sae.safetensors"], "cannot write in /proc/nowhere: .*--out"),
    ],
)
def test_mistakes_get_plain_words(
    tmp_path: Path, tiny_lvlm_folder: Path, more: list[str], words: str
) -> None:
    with pytest.raises(ExplorerError, match=words):
        train_sae.run(parsed(tmp_path, tiny_lvlm_folder, *more))


def test_trains_on_a_folder(tmp_path: Path, tiny_lvlm_folder: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Noise().image(11 - number % 3).resize((40, 32)).save(photos / f"{number:02}.png")
    (photos / "03.png").write_text("not a picture")
    args = parsed(tmp_path, tiny_lvlm_folder, "--images", str(photos), "--half")
    assert train_sae.run(args) == 0
    assert load_sae(args.out).facts["trained_on"] == "8 pictures of the folder photos"
