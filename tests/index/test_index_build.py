"""A whole build on a tiny stand-in: the store's rows against plain arithmetic, whatever the order of work."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_site import FakeLVLM, ListSource, contents, noise_image, noise_pictures, random_sae, unreadable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.errors import ExplorerError, ModelError, SAEError, SourceError, StoreError
from explorer.store import Store
from index.build import BuildConfig, Summary, build
from index.sources import FolderSource, Picture, SceneSource
from index.work import Shard

Items = list[Picture | Exception]


def run(folder: Path, items: Items, **config: object) -> Summary:
    """Build a store of pictures with the stand-ins."""
    return build(BuildConfig(folder, words="none", **config), ListSource(items), FakeLVLM(), random_sae())


def dense(items: Items) -> np.ndarray:
    """Activations [N, 17, 24] of each picture, computed plainly: CLS first."""
    lvlm, sae = FakeLVLM(), random_sae()
    hidden = [lvlm.tower(lvlm.preprocess(item.image).pixel_values, 1)[0] for item in items]
    return np.stack([sae.encode(one).numpy() for one in hidden])


def pooled(activations: np.ndarray, score: str = "mean", include_cls: bool = False) -> np.ndarray:
    """Image scores [N, 24] of dense activations."""
    counted = activations if include_cls else activations[:, 1:]
    if score == "max":
        return counted.max(1)
    return (counted.astype(np.float64).sum(1) / counted.shape[1]).astype(np.float32)


@pytest.fixture(scope="module")
def items() -> list[Picture]:
    return noise_pictures(60)


@pytest.fixture(scope="module")
def store(items: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("built") / "store"
    run(folder, items)
    return Store.open(folder)


@pytest.mark.parametrize("how", [{}, {"score": "max"}, {"include_cls": True}, {"places": 3, "batch": 7}])
def test_exemplars_are_the_strongest_images(tmp_path: Path, items: list[Picture], how: dict) -> None:
    run(tmp_path / "s", items, **how)
    store = Store.open(tmp_path / "s")
    activations = dense(items)
    scores = pooled(activations, how.get("score", "mean"), how.get("include_cls", False))
    assert store.manifest.include_cls is how.get("include_cls", False)
    for neuron in range(24):
        order = sorted(range(60), key=lambda i: (-scores[i, neuron], i))
        expected = [i for i in order if scores[i, neuron] > 0][: how.get("places", 16)]
        found = store.exemplars(neuron)
        assert [e.image_id for e in found] == [items[i].image_id for i in expected]
        for exemplar, i in zip(found, expected, strict=True):
            assert exemplar.score == pytest.approx(scores[i, neuron], rel=1e-6)
            assert (exemplar.origin, exemplar.labels) == (f"here/{i}", ("noise",) * (i % 2 == 0))
            true = activations[i, 1:, neuron].reshape(4, 4)
            np.testing.assert_allclose(exemplar.patch_map, true, atol=true.max() / 500)
            assert Image.open(io.BytesIO(exemplar.thumbnail)).size == (40, 40)
    assert store.exemplars(22) == store.exemplars(23) == []
    store.verify()


def test_summaries_are_those_of_the_activations(store: Store, items: list[Picture]) -> None:
    activations = dense(items)
    scores, patches = pooled(activations), activations[:, 1:].reshape(-1, 24)
    in_top = np.zeros(24)
    for row in scores:
        in_top[sorted(np.flatnonzero(row), key=lambda n, row=row: (-row[n], n))[:20]] += 1
    for neuron, summary in store.summaries(range(24)).items():
        column, active = scores[:, neuron].astype(np.float64), patches[:, neuron].astype(np.float64)
        fires, on = column[column > 0], active[active > 0]
        assert summary.fires == (column > 0).mean()
        assert summary.patch_fires == pytest.approx((active > 0).mean())
        assert summary.in_top == pytest.approx(in_top[neuron] / 60)
        for values, mean, variance, peak in (
            (fires, summary.mean, summary.variance, summary.peak),
            (on, summary.active_mean, summary.active_variance, summary.active_peak),
        ):
            wanted = (values.mean(), values.var(), values.max()) if len(values) else (0, 0, 0)
            assert (mean, variance, peak) == pytest.approx(wanted, abs=1e-6)
        assert store.histogram(neuron, "score").counts.sum() == len(fires)
        assert store.histogram(neuron, "active").counts.sum() == len(on)


def test_intervals_hold_one_image_per_half_octave(store: Store, items: list[Picture]) -> None:
    scores = pooled(dense(items))
    number = {item.image_id: i for i, item in enumerate(items)}
    seen = 0
    for neuron in range(24):
        places = {number[e.image_id] for e in store.exemplars(neuron)}
        for found in store.interval_exemplars(neuron):
            i, peak = number[found.image_id], scores[:, neuron].max()
            assert i not in places and found.score == pytest.approx(scores[i, neuron], rel=1e-6)
            half = [2 * math.frexp(v)[1] + (math.frexp(v)[0] >= 0.75) for v in (float(peak), found.score)]
            assert half[0] - half[1] == found.interval < 10
            seen += 1
    assert seen > 5


def test_labels_come_from_the_exemplars(store: Store) -> None:
    named = [s for s in store.summaries(range(24)).values() if s.label]
    assert named and {s.label for s in named} == {"noise"} and {s.kind for s in named} == {"word"}
    for summary in named:
        shown = ["noise" in e.labels for e in store.exemplars(summary.neuron)]
        assert summary.precision == pytest.approx(sum(shown) / len(shown))
        assert summary.lift == pytest.approx(summary.precision / 0.5)
        assert store.labels(summary.neuron)[0].images == 30
    assert store.search("noi")
    partners = [p for n in range(24) for p in store.partners(n)]
    assert partners and all(0 < p.together <= 1 and 0 < p.cosine <= 1 + 1e-9 for p in partners)


def test_manifest_names_its_parts(store: Store, items: list[Picture]) -> None:
    manifest = store.manifest
    assert (manifest.rows, manifest.cols, manifest.block, manifest.places) == (4, 4, 1, 16)
    assert (manifest.n_images, manifest.n_skipped, manifest.source) == (60, 0, "a list")
    assert (manifest.batch, manifest.sample, manifest.n_parts, manifest.dtype) == (32, 4096, 1, "float32")
    assert manifest.image_list_hash == ListSource(items[::-1]).list_hash()
    store.check(model_id="fake@0123", block=1, sae_id=random_sae().id, n_neurons=24)
    store.verify()
    quantiles = [manifest.fvu_quantile(q) for q in (0.5, 0.9, 0.99, 0.995, 0.999)]
    assert quantiles == sorted(quantiles) and quantiles[0] > 0
    assert manifest.monosemanticity_baseline is not None
    assert {path.name for path in store.folder.iterdir()} >= set(manifest.files) | {"manifest.json"}


def test_equal_scores_are_ordered_by_number(tmp_path: Path, items: list[Picture]) -> None:
    twins = [replace(items[i % 20], number=i, image_id=f"t{i:02d}") for i in range(40)]
    run(tmp_path / "s", twins, batch=1)
    for neuron in range(24):
        found = Store.open(tmp_path / "s").exemplars(neuron)
        keys = [(-e.score, e.image_id) for e in found]
        assert keys == sorted(keys)


@given(seed=st.integers(0, 99), workers=st.integers(0, 1), every=st.sampled_from([0.0, 1e9]))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_workers_and_checkpoints_do_not_change_a_row(
    tmp_path_factory: pytest.TempPathFactory, seed: int, workers: int, every: float
) -> None:
    items = noise_pictures(30, seed)
    folder = tmp_path_factory.mktemp("same")
    run(folder / "one", items, batch=4)
    run(folder / "two", items, batch=4, workers=workers, checkpoint_every=every)
    assert contents(folder / "one") == contents(folder / "two")


def test_images_without_a_place_are_not_kept(tmp_path: Path, items: list[Picture]) -> None:
    run(tmp_path / "s", items, places=1)
    rows = contents(tmp_path / "s")
    assert [row[0] for row in rows["images"]] == list(range(len(rows["images"])))
    held = {row[2] for name in ("exemplars", "interval_exemplars") for row in rows[name]}
    assert held == {row[0] for row in rows["images"]} and len(held) < 60


def test_what_does_not_fit_is_refused(tmp_path: Path, items: list[Picture]) -> None:
    source, other = ListSource(items[:2]), random_sae()
    other.model_id = "fake@4567"
    for error, words, sae in (
        (ModelError, "block 2 cannot matter", random_sae(block=2)),
        (SAEError, "vectors of width 5, but block 1 of fake@0123 gives 6", random_sae(width=5)),
        (SAEError, "trained on the model fake@4567, this one is fake@0123", other),
    ):
        with pytest.raises(error, match=words):
            build(BuildConfig(tmp_path / "s"), source, FakeLVLM(), sae)
    assert list(tmp_path.iterdir()) == []
    anywhere = build(BuildConfig(tmp_path / "any", words="none"), source, FakeLVLM(), random_sae(block=None))
    assert anywhere.merged is not None and anywhere.merged.manifest.block == FakeLVLM.read_block
    wrong = ({"score": "median"}, {"batch": 0}, {"places": 0}, {"places": 256}, {"workers": -1})
    wrong = (*wrong, {"words": "all"}, {"words": False})
    for changes in (*wrong, {"sample": -1}, {"shard": Shard(3, 2)}, {"checkpoint_every": -1.0}):
        with pytest.raises(ExplorerError):
            BuildConfig(tmp_path / "s", **changes)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "dear.txt").touch()
    with pytest.raises(StoreError, match="not a store"):
        run(tmp_path / "s", items[:2])


def test_unreadable_pictures_become_rows(tmp_path: Path) -> None:
    pictures: Items = [*noise_pictures(10)]
    pictures[3] = unreadable("it is cut short")
    pictures[7] = replace(pictures[7], image=Image.new("RGB", (40, 40)))  # the fake tower gives NaN
    summary = run(tmp_path / "s", pictures, batch=4)
    store = Store.open(tmp_path / "s")
    assert (store.manifest.n_images, store.manifest.n_skipped) == (8, 2)
    assert (summary.n_images, summary.fresh, len(summary.skipped)) == (8, 10, 2)
    reasons = {row.image_id: row.reason for row in store.skipped()}
    assert reasons.keys() == {"bad/3", "noise/00007"}
    assert reasons["bad/3"] == "it is cut short" and "not finite" in reasons["noise/00007"]
    left = [item for i, item in enumerate(pictures) if i not in (3, 7)]
    scores = pooled(dense(left))
    for neuron in range(24):
        order = sorted(range(8), key=lambda i, n=neuron: (-scores[i, n], i))
        wanted = [left[i].image_id for i in order if scores[i, neuron] > 0]
        assert [e.image_id for e in store.exemplars(neuron)] == wanted


def test_sources_without_a_readable_picture_are_refused(tmp_path: Path) -> None:
    for _ in range(2):  # also when the same command is run again
        with pytest.raises(SourceError, match="none of the 3 pictures could be read; the first: it is empty"):
            run(tmp_path / "s", [unreadable()] * 3)
        assert not (tmp_path / "s").exists()


def test_a_folder_of_all_kinds_of_files(tmp_path: Path) -> None:
    photos, rng = tmp_path / "photos", np.random.default_rng(0)
    (photos / "deep").mkdir(parents=True)
    noise_image(rng).save(photos / "deep" / "a.png")
    noise_image(rng).save(photos / "b.JPG", "JPEG")
    noise_image(rng).resize((400, 300)).save(photos / "c.jpg")
    whole = (photos / "c.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (photos / "empty.png").touch()
    (photos / "text.png").write_text("not a picture")
    seen = []
    config = BuildConfig(tmp_path / "s", batch=4, workers=1, words="none")
    build(config, FolderSource(photos), FakeLVLM(), random_sae(), seen.append)
    assert [tuple(progress) for progress in seen] == [(0, 6, 0), (4, 6, 1), (6, 6, 3)]
    store = Store.open(tmp_path / "s")
    assert [row.image_id for row in store.skipped()] == ["cut.jpg", "empty.png", "text.png"]
    wide = next(e for n in range(24) for e in store.exemplars(n) if e.image_id == "c.jpg")
    assert Image.open(io.BytesIO(wide.thumbnail)).size == (192, 144)
    assert wide.origin == str(photos / "c.jpg")


def test_scenes_give_labels_and_concepts(tmp_path: Path) -> None:
    build(BuildConfig(tmp_path / "s", words="none"), SceneSource(40, seed=7), FakeLVLM(), random_sae())
    store = Store.open(tmp_path / "s")
    assert store.manifest.source == "ordinary scenes, seeds 7 to 46"
    assert store.concepts()
    for concept in store.concepts():
        found = store.find(concept, k=40)
        assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
        for neuron, _, _, precision in found[:2]:
            shown = [concept in e.labels for e in store.exemplars(neuron)]
            assert precision == pytest.approx(sum(shown) / len(shown))
    probe = store.probe()
    assert probe is not None and probe.concepts == tuple(SceneSource.concepts)
    assert probe.weight.shape == (len(probe.concepts) + 1, 6) and np.isfinite(probe.weight).all()
    named = [s for s in store.summaries(range(24)).values() if s.label]
    assert named and {s.kind for s in named} == {"concept"}
    store.verify()
