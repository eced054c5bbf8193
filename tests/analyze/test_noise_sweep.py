"""Noise sweeps: change ratios against sets and against `explorer.steer`, and sweeps of a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.analyze.changes import CLASSES, change_by_class, changes
from explorer.analyze.noise import averaged, noise_curve, noise_sweep
from explorer.errors import EditError
from explorer.sae import SAE, ActivationRule, SparseCodes
from explorer.session import Session, View
from explorer.steer import Contrast, image_level, patch_level
from explorer.vlm import open_lvlm

NEURONS, PATCHES = 96, 16
ALWAYS = (3, 17, 40)


def sparse(z: np.ndarray) -> SparseCodes:
    token, neuron = z.nonzero()
    values = torch.from_numpy(z[token, neuron]).float()
    return SparseCodes(torch.from_numpy(token), torch.from_numpy(neuron), values)


def drawn(seed: int, share: float = 0.3) -> np.ndarray:
    """Activations, of which those of ALWAYS are large where there are any."""
    draw = np.random.default_rng(seed)
    z = draw.uniform(0.1, 9, (PATCHES, NEURONS)) * (draw.random((PATCHES, NEURONS)) < share)
    z[:, list(ALWAYS)] *= 2.5
    return z


def strongest(row: np.ndarray, k: int) -> set[int]:
    firing = [int(n) for n in np.argsort(-row, kind="stable") if row[n] > 0]
    return set(firing[:k])


def by_sets(clean: np.ndarray, noisy: np.ndarray, k: int) -> list[float]:
    """The four ratios of one row, with sets as the equation has them."""
    top, more, after, below = (
        strongest(*one) for one in ((clean, k), (clean, 2 * k), (noisy, k), (noisy, 2 * k))
    )
    always = set(ALWAYS)
    pairs = [(top, after), (top & always, after), (top - always, after), (more - top - always, below)]
    return [len(kind - stays) / len(kind) if kind else float("nan") for kind, stays in pairs]


@pytest.mark.parametrize(("seed", "k", "share"), [(0, 5, 0.3), (1, 20, 0.3), (2, 20, 0.2), (3, 60, 0.9)])
def test_change_ratios_are_those_of_the_sets(seed: int, k: int, share: float) -> None:
    clean, noisy = drawn(seed, share), drawn(seed + 100, share) + drawn(seed, share)
    always = torch.zeros(NEURONS, dtype=torch.bool)
    always[list(ALWAYS)] = True
    got = change_by_class(torch.from_numpy(clean), torch.from_numpy(noisy), always, k).numpy()
    rows = [by_sets(one, other, k) for one, other in zip(clean, noisy, strict=True)]
    assert got.shape == (PATCHES, len(CLASSES)) and np.allclose(got, rows, equal_nan=True)
    found = changes(sparse(clean), sparse(noisy), PATCHES, ALWAYS, k)
    assert np.allclose(found.patch, np.nanmean(rows, axis=0), equal_nan=True)
    assert np.allclose(found.image, by_sets(clean.mean(0), noisy.mean(0), k), equal_nan=True)


def test_change_ratios_agree_with_those_of_steering() -> None:
    clean, noisy = sparse(drawn(5)), sparse(drawn(6))
    found = changes(clean, noisy, PATCHES, ALWAYS, 10)
    others = sorted(set(range(NEURONS)) - set(ALWAYS))
    for place, among in enumerate((None, ALWAYS, others)):
        settings = {"k": 10, "active_only": True, "among": among}
        assert found.image[place] == pytest.approx(image_level(clean, noisy, PATCHES, NEURONS, **settings))
        patches = patch_level(clean, noisy, PATCHES, NEURONS, **settings)
        assert found.patch[place] == pytest.approx(float(patches.nanmean()))


def test_nothing_changes_without_noise_and_everything_with_other_neurons() -> None:
    clean = drawn(7)
    same = changes(sparse(clean), sparse(clean), PATCHES, ALWAYS, 10)
    assert np.nanmax(same.image) == np.nanmax(same.patch) == 0 and np.allclose(same.kept, 1)
    left, right = clean.copy(), clean.copy()
    left[:, 48:], right[:, :48] = 0, 0
    gone = changes(sparse(left), sparse(right), PATCHES, ALWAYS, 10)
    assert np.allclose(gone.image, 1) and np.allclose(gone.patch, 1) and np.allclose(gone.kept, 0)
    nobody = changes(sparse(clean), sparse(clean), PATCHES, (), 10)
    assert np.isnan(nobody.image[1]) and nobody.image[2] == nobody.image[0]
    silent = changes(sparse(np.zeros_like(clean)), sparse(np.zeros_like(clean)), PATCHES, ALWAYS)
    assert np.isnan([silent.image, silent.patch, silent.kept]).all()


def test_kept_is_the_share_of_the_classes_sums() -> None:
    clean = drawn(8)
    noisy = clean.copy()
    noisy[:, list(ALWAYS)] *= 3
    noisy[:, [n for n in range(NEURONS) if n not in ALWAYS]] *= 0.25
    top = strongest(clean.mean(0), 20)
    share = clean[:, sorted(top & set(ALWAYS))].sum() / clean[:, sorted(top)].sum()
    found = changes(sparse(clean), sparse(noisy), PATCHES, ALWAYS, 20)
    assert np.allclose(found.kept, [3 * share + 0.25 * (1 - share), 3, 0.25, 0.25])


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    draw = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(NEURONS, 32, generator=draw), dim=1)
    sae = SAE(rows.T, torch.zeros(NEURONS), rows, torch.zeros(32), ActivationRule("topk", k=6))
    return Session(open_lvlm(tiny_lvlm_folder), sae.eval().requires_grad_(False))


def look(session: Session, seed: int = 0) -> View:
    pixels = np.random.default_rng(seed).integers(0, 256, (44, 70, 3), dtype=np.uint8)
    return session.look(Image.fromarray(pixels))


def test_a_sweep_follows_the_sessions_own_noise(session: Session) -> None:
    view = look(session)
    found = noise_sweep(session, view, (0, 300, 999), (4, 5), [7, 2, 7], always_on=ALWAYS, k=8)
    assert found.neurons == (7, 2) and found.always_on == ALWAYS and found.captions == found.contrasted == ()
    assert found.activations.shape == (3, 2, 2) and found.maps.shape == (3, 2, 4, 4)
    assert np.allclose(found.clean_maps, [view.map(7), view.map(2)]) and found.clean[0] == view.map(7).mean()
    for s, step in enumerate(found.steps):
        alone = [session.noisy(view, step, seed) for seed in (4, 5)]
        dense = [session.sae.encode(one.hidden[1:]).numpy() for one in alone]
        assert np.allclose(found.activations[s], [z[:, [7, 2]].mean(0) for z in dense], atol=1e-5)
        assert np.allclose(found.maps[s, 1].ravel(), np.mean([z[:, 2] for z in dense], axis=0), atol=1e-5)
        for r, one in enumerate(alone):
            here = changes(view.codes, one.codes, PATCHES, ALWAYS, 8)
            for name in ("image", "patch", "kept"):
                part = getattr(found.changes, name)[s, r]
                assert np.allclose(part, getattr(here, name), equal_nan=True)
    assert found.changes.patch[0, :, 0].max() < found.changes.patch[2, :, 0].min()


def test_a_sweep_captions_the_noisy_and_the_contrasted_picture(session: Session) -> None:
    view = look(session, 1)
    contrast = Contrast(step=1, strength=2.0, suppress_always_on=False)
    found = noise_sweep(
        session, view, (0, 800), (9,), captions=True, contrast=contrast, prompt="a cat", max_new_tokens=6
    )
    assert found.neurons == tuple(a.neuron for a in view.top(20))
    for step, noisy, steered in zip(found.steps, found.captions, found.contrasted, strict=True):
        features = session.lvlm.features(session.noisy(view, step, 9).hidden, session.block)
        assert noisy == session.lvlm.generate(features, "a cat", 6)
        used = Contrast(step=step, strength=2.0, seed=9, suppress_always_on=False)
        assert steered == session.answer(view, "a cat", contrast=used, max_new_tokens=6)
    assert len({*found.captions, *found.contrasted}) > 1


def test_a_curve_is_the_mean_over_pictures_of_the_means_over_draws(session: Session) -> None:
    views = [look(session, seed) for seed in range(4)]
    curve = noise_curve(session, iter(views), (200, 900), (0, 1), k=8, always_on=ALWAYS)
    sweeps = [noise_sweep(session, view, (200, 900), (0, 1), k=8, always_on=ALWAYS) for view in views]
    assert curve.pictures == 4 and curve.mean.image.shape == (2, 4)
    for name in ("image", "patch", "kept"):
        single = np.array([getattr(sweep.changes, name)[..., 0].mean(axis=1) for sweep in sweeps])
        error = single.std(axis=0, ddof=1) / 2
        assert np.allclose(getattr(curve.mean, name)[:, 0], single.mean(axis=0))
        high, low = single.mean(axis=0) + 1.96 * error, single.mean(axis=0) - 1.96 * error
        if name != "kept":
            high, low = high.clip(max=1), low.clip(min=0)
        assert np.allclose(getattr(curve.high, name)[:, 0], high)
        assert np.allclose(getattr(curve.low, name)[:, 0], low)


def test_pictures_that_lack_a_class_are_left_out_of_its_mean() -> None:
    """Always-on neurons that two of three pictures do not have at all."""
    codes = [sparse(drawn(seed)) for seed in range(3)]
    silent = [
        SparseCodes(*(part[~torch.isin(one.neurons, torch.tensor(ALWAYS))] for part in one)) for one in codes
    ]
    views = [
        SimpleNamespace(codes=one, grid=SimpleNamespace(rows=4, cols=4)) for one in (codes[0], *silent[1:])
    ]
    noisy = SimpleNamespace(codes=sparse(drawn(9)))
    session = SimpleNamespace(noisy_many=lambda view, draws: [noisy for _ in draws], store=None)
    curve = noise_curve(session, views, (5,), (0, 1), k=80, always_on=ALWAYS)
    alone = changes(codes[0], noisy.codes, PATCHES, ALWAYS, 80)
    assert curve.mean.image[0, 1] == alone.image[1] and np.isnan(curve.low.image[0, 1])
    assert curve.low.image[0, 0] < curve.mean.image[0, 0] < curve.high.image[0, 0]


def test_averages_leave_out_what_is_not_there() -> None:
    values = np.array([[[1.0, np.nan], [3.0, np.nan]], [[2.0, 5.0], [np.nan, np.nan]]])
    found = averaged(values)
    assert np.array_equal(found.mean, [[2, np.nan], [2, 5]], equal_nan=True)
    assert np.array_equal(found.spread, [[1, np.nan], [0, 0]], equal_nan=True)


Call = Callable[[Session, View], object]


def refused() -> Iterator[tuple[Call, str]]:
    yield lambda s, v: noise_sweep(s, v, ()), r"^0 steps and 1 seeds of noise: name at least one"
    yield lambda s, v: noise_sweep(s, v, (5,), ()), r"^1 steps and 0 seeds"
    yield lambda s, v: noise_sweep(s, v, (5, 1000)), r"noise step must be .*0.*999, not 1000"
    yield lambda s, v: noise_sweep(s, v, (-1,)), "noise step must be"
    yield lambda s, v: noise_sweep(s, v, (5,), neurons=[3, NEURONS]), rf"no neuron {NEURONS}: this SAE has"
    yield lambda s, v: noise_sweep(s, v, (5,), neurons=[]), "name at least one neuron"
    yield lambda s, v: noise_sweep(s, v, (5,), k=0), "k = 0 is too few"
    yield lambda s, v: noise_curve(s, [], (5,)), "no pictures"
    yield lambda s, v: noise_curve(s, [v], (1001,)), "noise step must be"


@pytest.mark.parametrize(("call", "words"), list(refused()))
def test_sweeps_that_make_no_sense_are_refused(session: Session, call: Call, words: str) -> None:
    with pytest.raises(EditError, match=words):
        call(session, look(session))
