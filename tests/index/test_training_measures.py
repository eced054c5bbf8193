"""What a trained SAE is worth: its figures, captions under its reconstruction; and the record of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_site import ListSource, noise_pictures, unreadable

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule
from explorer.sae.quality import evaluate
from explorer.sae.training import Halted
from explorer.session import Session
from explorer.vlm import open_lvlm
from explorer.vlm.base import LVLM
from index.training.captions import agreement, preserved
from index.training.measures import Exam
from index.training.pictures import ChosenPictures
from index.training.record import Record
from index.training.run import config_of, progress
from index.training.stream import StreamConfig, once
from index.training.tower import Eye
from tests.vlm.families.made import made


@pytest.fixture(scope="module")
def lvlm(tiny_lvlm_folder: Path) -> LVLM:
    return open_lvlm(tiny_lvlm_folder)


def perfect(lvlm: LVLM) -> SAE:
    """Both directions of every dimension: nothing is lost but rounding."""
    both = torch.cat([torch.eye(32), -torch.eye(32)])
    sae = SAE(both.T, torch.zeros(64), both, torch.zeros(32), ActivationRule(), site_block=lvlm.read_block)
    return sae.eval().requires_grad_(False)


def silent(lvlm: LVLM) -> SAE:
    """It puts the same vector in the place of all."""
    sae = perfect(lvlm)
    sae.b_enc -= 1e6
    return sae


def test_captions_survive_a_perfect_sae_and_not_a_silent_one(lvlm: LVLM) -> None:
    images = [picture.image for picture in noise_pictures(10)]
    whole = preserved(lvlm, perfect(lvlm), images, max_new_tokens=6)
    assert whole is not None and whole.pictures == 10
    assert whole.captions == whole.tokens == 1.0 and whole.divergence == pytest.approx(0.0, abs=1e-4)
    lost = preserved(lvlm, silent(lvlm), images, max_new_tokens=6)
    assert lost is not None and lost.captions < 1 and lost.tokens < 1 and lost.divergence > 0.01
    assert preserved(lvlm, perfect(lvlm), []) is None


def test_captions_are_judged_by_the_formulas(lvlm: LVLM) -> None:
    """One picture: its share of tokens, and the divergence along the plain caption."""
    sae, image = silent(lvlm), noise_pictures(1)[0].image
    session = Session(lvlm, sae)
    view = session.look(image)
    plain, other = (session.answer(view, replace=replace, max_new_tokens=6) for replace in (False, True))
    found = preserved(lvlm, sae, [image], max_new_tokens=6)
    assert found is not None and found.captions == (plain == other)
    assert found.tokens == agreement(lvlm.answer_tokens(plain), lvlm.answer_tokens(other))
    p, q = (
        session.next_words([(view, ())], lvlm.default_prompt, plain, replace=how)[0] for how in (False, True)
    )
    by_place = [
        torch.nn.functional.kl_div(b, a, log_target=True, reduction="sum") for a, b in zip(p, q, strict=True)
    ]
    assert len(by_place) == len(lvlm.answer_tokens(plain)) + 1
    assert found.divergence == pytest.approx(float(torch.stack(by_place).mean()), rel=1e-3)


def test_agreement_counts_places_of_the_longer_answer() -> None:
    assert agreement([1, 2, 3], [1, 9, 3]) == pytest.approx(2 / 3)
    assert agreement([1, 2, 3, 4], [1]) == 0.25 and agreement([], [5]) == 0.0 and agreement([], []) == 1.0


def test_an_exam_measures_every_picture_and_asks_about_some(lvlm: LVLM) -> None:
    items = [*noise_pictures(5), unreadable()]
    pictures, told = ChosenPictures(ListSource(items), np.arange(6), "pictures"), []
    eye, stream = Eye(lvlm, lvlm.read_block), StreamConfig(tower_batch=2)
    measures = Exam(eye, pictures, stream, 3, told.extend, max_new_tokens=3).take(silent(lvlm))
    everything = torch.cat(list(once(eye, pictures, stream)))
    assert measures.quality == evaluate(silent(lvlm), everything)
    assert measures.preserved is not None and measures.preserved.pictures == 3
    assert [row.image_id for row in told] == ["bad/5"]
    assert json.loads(json.dumps(measures.facts()))["quality"]["vectors"] == 5 * 16
    text = "\n".join(measures.words(silent(lvlm)))
    assert "on 80 held-out vectors: explained variance -" in text and "on 3 held-out pictures" in text
    alone = Exam(eye, pictures, stream, 0, told.extend).take(perfect(lvlm))
    assert alone.preserved is None and "preserved" not in alone.facts()
    assert len(alone.words(perfect(lvlm))) == 2 and alone.quality.explained_variance == pytest.approx(1.0)


def test_an_exam_can_be_stopped(lvlm: LVLM) -> None:
    pictures = ChosenPictures(ListSource(noise_pictures(5)), np.arange(5), "pictures")

    def halt() -> None:
        raise Halted

    exam = Exam(Eye(lvlm, lvlm.read_block), pictures, StreamConfig(), 0, lambda rows: None, check=halt)
    with pytest.raises(Halted):
        exam.take(perfect(lvlm))


def test_a_record_keeps_what_was_measured_before_a_step(tmp_path: Path) -> None:
    record = Record(tmp_path / "run" / "state.pt")
    record.begin({"model": "a", "seed": 1})
    assert not record.has(2) and not record.resume({"model": "a", "seed": 1}), "no checkpoint yet"
    for step in (2, 4, 6):
        record.log({"step": step})
    with record.metrics.open("a") as file:
        file.write('{"step": 8, "quali')
    record.keep_until(4)
    assert [json.loads(line)["step"] for line in record.metrics.read_text().splitlines()] == [2, 4]
    assert record.has(4) and not record.has(6)
    for left in (".state.pt.abc", ".state.json.x"):
        (tmp_path / "run" / left).touch()
    record.checkpoint.touch()
    assert record.resume({"model": "a", "seed": 1})
    assert not list((tmp_path / "run").glob(".*"))
    with pytest.raises(SAEError, match="had seed = 1, not 2"):
        record.resume({"model": "a", "seed": 2})
    Record(tmp_path / "run" / "state.pt").begin({"model": "b"})
    assert not record.checkpoint.exists() and not record.metrics.exists(), "an earlier run is gone"
    with pytest.raises(SAEError, match=r"no run to resume: .*state.json is missing"):
        Record(tmp_path / "none" / "state.pt").resume({})


def test_only_the_first_process_writes_the_record(tmp_path: Path) -> None:
    second = Record(tmp_path / "state.pt", main=False)
    second.begin({"model": "a"})
    second.log({"step": 1})
    assert not list(tmp_path.iterdir())


def test_pictures_of_several_forms_are_asked_about_apart() -> None:
    """A family whose grid follows the picture's shape; one is too thin for it."""
    lvlm = made("qwen/qwen2").lvlm
    shapes = [(112, 56), (56, 112), (112, 56), (5000, 10)]
    sources = [picture.image.resize(shape) for picture, shape in zip(noise_pictures(4), shapes, strict=True)]
    width = lvlm.width(lvlm.read_block)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    weights = (both.T, torch.zeros(2 * width), both, torch.zeros(width))
    sae = SAE(*weights, rule=ActivationRule(), site_block=lvlm.read_block).requires_grad_(False)
    found = preserved(lvlm, sae, sources, max_new_tokens=3)
    assert found is not None and found.pictures == 3
    assert found.captions == 1.0 and found.divergence == pytest.approx(0.0, abs=1e-3)


def test_short_trainings_warm_up_decay_and_average_in_proportion() -> None:
    facts = [
        (one.warmup, one.decay_start, one.dead_after, one.threshold_start, one.norm_batches)
        for one in (config_of(steps, 64, None) for steps in (100_000, 400, 6))
    ]
    assert facts == [(1000, 80_000, 128_000, 1000, 100), (20, 320, 512, 100, 10), (0, 4, 64, 1, 1)]
    decays = [config_of(steps, 64, None).threshold_decay for steps in (100_000, 400, 6)]
    assert decays == pytest.approx([0.999, 0.975, 0.9]) and config_of(6, 64, 99).dead_after == 99


def test_the_progress_of_a_training_is_in_units_of_the_vectors() -> None:
    state = SimpleNamespace(
        unfired=torch.tensor([0, 5, 9, 20]),
        config=SimpleNamespace(dead_after=9, batch=64),
        steps_done=3,
        threshold=0.5,
        norm_factor=2.0,
    )
    assert progress(state) == {"vectors": 192, "threshold": 1.0, "dead_in_training": 0.5}
    state.threshold = -1.0
    assert progress(state)["threshold"] is None
