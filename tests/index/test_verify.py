"""Recomputing exemplars through the live model: what passes, what drifts, and pictures that are gone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_site import FakeLVLM, noise_folder, noise_image, random_sae

from explorer.errors import ExplorerError, StoreError
from explorer.store import Store
from explorer.vlm.base import Prepared
from index.build import BuildConfig, build
from index.commands.verify import describe
from index.sources import FolderSource
from index.verify import VerifyConfig, chosen, verify


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return noise_folder(tmp_path / "photos", 30)


def built(photos: Path, **how: object) -> Store:
    """A store of a folder."""
    out = photos.parent / "store"
    config = BuildConfig(out, batch=8, words="none", **how)
    build(config, FolderSource(photos), FakeLVLM(), random_sae())
    return Store.open(out)


class Drifting(FakeLVLM):
    """The same model, a little off."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def tower(self, pixel_values: torch.Tensor, block: int, like: Prepared | None = None) -> torch.Tensor:
        """All values larger by a factor."""
        return super().tower(pixel_values, block, like) * self._factor


@pytest.mark.parametrize("how", [{}, {"score": "max"}, {"include_cls": True}])
def test_a_fresh_store_passes(photos: Path, how: dict) -> None:
    report = verify(built(photos, **how), FakeLVLM(), random_sae(), VerifyConfig(samples=50))
    assert report.passed and not report.lost and len(report.drifts) >= 10
    assert max(drift.score for drift in report.drifts) < 1e-6
    assert max(drift.steps for drift in report.drifts) <= 0.51
    assert describe(report).splitlines()[-1].startswith("PASS: nothing is off")


@pytest.mark.parametrize(("factor", "passes"), [(1.0005, True), (1.01, False)])
def test_drift_is_measured_against_the_tolerance(photos: Path, factor: float, passes: bool) -> None:
    store = built(photos)
    report = verify(store, Drifting(factor), random_sae(), VerifyConfig(samples=8))
    assert report.passed is passes
    assert np.median([drift.score for drift in report.drifts]) == pytest.approx(factor - 1, rel=0.05)
    assert verify(store, Drifting(factor), random_sae(), VerifyConfig(samples=8, tolerance=0.02)).passed
    if not passes:
        words = describe(report).splitlines()
        assert words[-1].startswith("FAIL: 8 of 8 exemplars are off by more than the tolerance 0.001")


def test_another_picture_in_the_same_place_fails(photos: Path) -> None:
    store = built(photos)
    for path in sorted(photos.iterdir())[:20]:
        noise_image(np.random.default_rng(99)).save(path)
    assert not verify(store, FakeLVLM(), random_sae(), VerifyConfig(samples=50)).passed


def test_pictures_that_are_gone_are_listed(photos: Path) -> None:
    store = built(photos)
    gone = sorted(photos.iterdir())[::2]
    for path in gone:
        path.unlink()
    report = verify(store, FakeLVLM(), random_sae(), VerifyConfig(samples=50))
    assert report.passed and report.lost
    assert {lost.image_id for lost in report.lost} <= {path.name for path in gone}
    assert f"{len(report.lost)} pictures cannot be opened any more" in describe(report)
    for path in photos.iterdir():
        path.unlink()
    report = verify(store, FakeLVLM(), random_sae(), VerifyConfig())
    assert not report.passed
    assert describe(report).splitlines()[-1].startswith("FAIL: no exemplar could be recomputed")


def test_a_changed_map_fails(photos: Path) -> None:
    store = built(photos)
    store.close()
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("UPDATE exemplars SET scale = scale * 1.5")
    report = verify(Store.open(store.folder), FakeLVLM(), random_sae(), VerifyConfig())
    assert not report.passed and min(drift.steps for drift in report.drifts) > 50
    with pytest.raises(StoreError, match="damaged"):
        Store.open(store.folder).verify()


def test_the_choice_is_random_but_repeats(photos: Path) -> None:
    store = built(photos)
    picks = [[(e.neuron, e.rank) for e in chosen(store, 5, seed)] for seed in (1, 1, 2)]
    assert picks[0] == picks[1] != picks[2]
    assert len({neuron for neuron, _ in picks[0]}) == 5


def test_another_site_is_refused(photos: Path) -> None:
    store, other = built(photos), FakeLVLM()
    other.model_id = "fake@9999"
    with pytest.raises(StoreError, match="its model is fake@0123, the session's is fake@9999"):
        verify(store, other, random_sae(), VerifyConfig())
    with pytest.raises(StoreError, match="its SAE is"):
        verify(store, FakeLVLM(), random_sae(seed=1), VerifyConfig())
    for wrong in ({"samples": 0}, {"seed": -1}, {"tolerance": 0.0}):
        with pytest.raises(ExplorerError):
            VerifyConfig(**wrong)
