"""A whole build on a tiny stand-in: the store's rows, whatever the order; what failures leave behind."""

from __future__ import annotations

import io
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_site import FakeLVLM, ListSource, noise_pictures, random_sae
from PIL import Image

from explorer.errors import ExplorerError, ModelError, SAEError, SourceError, StoreError
from explorer.store import Store
from explorer.store.writer import SkippedRow
from index.activations import encode
from index.build import BuildConfig, Summary, build
from index.sources import FolderSource, Picture, SceneSource, list_hash


def tables(folder: Path) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    db = sqlite3.connect(folder / "index.sqlite")
    names = ["images", "exemplars", "neurons", "concepts", "probes", "skipped"]
    rows = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    db.close()
    return rows


def run(folder: Path, items: list[Picture], **config: object) -> Summary:
    """Build a store of pictures with the stand-ins."""
    return build(BuildConfig(folder, **config), ListSource(items), FakeLVLM(), random_sae())


def dense_scores(items: list[Picture]) -> np.ndarray:
    """Mean score [N, F] of each picture, computed plainly."""
    lvlm, sae = FakeLVLM(), random_sae()
    rows = []
    for item in items:
        hidden = lvlm.tower(lvlm.preprocess(item.image).pixel_values, 1)[0, 1:]
        rows.append((sae.encode(hidden).double().sum(0) / 16).float().numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def items() -> list[Picture]:
    return noise_pictures(60)


@pytest.fixture(scope="module")
def store(items: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("built") / "store"
    run(folder, items)
    return Store.open(folder)


def test_exemplars_are_the_strongest_images(store: Store, items: list[Picture]) -> None:
    scores = dense_scores(items)
    sae, lvlm = random_sae(), FakeLVLM()
    for neuron in range(24):
        order = sorted(range(60), key=lambda i: (-scores[i, neuron], items[i].image_id))
        expected = [i for i in order if scores[i, neuron] > 0][:16]
        found = store.exemplars(neuron)
        assert [e.image_id for e in found] == [items[i].image_id for i in expected]
        for exemplar, i in zip(found, expected, strict=True):
            assert exemplar.score == pytest.approx(scores[i, neuron], rel=1e-6)
            assert (exemplar.origin, exemplar.labels) == (f"here/{i}", ("noise",))
            hidden = lvlm.tower(lvlm.preprocess(items[i].image).pixel_values, 1)[0, 1:]
            true = sae.encode(hidden)[:, neuron].reshape(4, 4).numpy()
            np.testing.assert_allclose(exemplar.patch_map, true, atol=true.max() / 500)
            assert Image.open(io.BytesIO(exemplar.thumbnail)).size == (40, 40)
    assert store.exemplars(22) == store.exemplars(23) == []


def test_summaries_are_those_of_the_scores(store: Store, items: list[Picture]) -> None:
    scores = dense_scores(items)
    in_top = np.zeros(24)
    for row in scores:
        best = sorted(np.flatnonzero(row), key=lambda n, row=row: (-row[n], n))[:20]
        in_top[best] += 1
    for neuron, summary in store.summaries(range(24)).items():
        column = scores[:, neuron]
        assert summary.fires == (column > 0).mean()
        assert summary.in_top == pytest.approx(in_top[neuron] / 60)
        assert summary.peak == pytest.approx(column.max())
        assert summary.mean == pytest.approx(
            column[column > 0].mean(dtype=np.float64) if column.any() else 0, abs=1e-6
        )
        assert (summary.label, summary.precision) == ("", 0.0)


def test_manifest_names_its_parts(store: Store, items: list[Picture]) -> None:
    manifest = store.manifest
    assert (manifest.rows, manifest.cols, manifest.block, manifest.places) == (4, 4, 1, 16)
    assert (manifest.n_images, manifest.n_skipped, manifest.source) == (60, 0, "a list")
    assert manifest.image_list_hash == list_hash([item.image_id for item in reversed(items)])
    assert manifest.preprocessing == FakeLVLM.preprocessing
    store.check(model_id="fake@0123", block=1, sae_id=random_sae().id, n_neurons=24)
    store.verify()
    quantiles = [manifest.fvu_quantile(q) for q in (0.5, 0.9, 0.99, 0.995, 0.999)]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] > 0
    assert {path.name for path in store.folder.iterdir()} == set(manifest.files) | {"manifest.json"}


@pytest.mark.parametrize("score", ["mean", "max"])
def test_order_and_batches_do_not_change_a_row(tmp_path: Path, items: list[Picture], score: str) -> None:
    twins = [replace(item, image_id=f"twin/{i}") for i, item in enumerate(items[:20])]  # every score ties
    pool = [*items[:20], *twins]
    run(tmp_path / "one", pool, score=score, batch=7)
    shuffled = [pool[i] for i in np.random.default_rng(1).permutation(len(pool))]
    run(tmp_path / "two", shuffled, score=score, batch=3)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    one, two = Store.open(tmp_path / "one").manifest, Store.open(tmp_path / "two").manifest
    assert replace(one, created="", files={}) == replace(two, created="", files={})
    assert one.files == two.files
    assert tables(tmp_path / "one")["images"]


def test_pictures_without_truth_give_no_probe(store: Store) -> None:
    assert store.probe() is None and store.concepts() == []


def test_images_without_a_place_are_not_kept(tmp_path: Path, items: list[Picture]) -> None:
    run(tmp_path / "s", items, places=1)
    rows = tables(tmp_path / "s")
    assert [row[0] for row in rows["images"]] == list(range(len(rows["images"])))
    assert {row[2] for row in rows["exemplars"]} == {row[0] for row in rows["images"]}
    assert len(rows["images"]) <= 22


def test_interrupted_build_leaves_the_old_store(tmp_path: Path, items: list[Picture]) -> None:
    run(tmp_path / "s", items[:5])
    before = tables(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        build(BuildConfig(tmp_path / "s", batch=4), ListSource(items), FakeLVLM(fail_after=3), random_sae())
    assert tables(tmp_path / "s") == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    with pytest.raises(KeyboardInterrupt):
        build(BuildConfig(tmp_path / "t", batch=4), ListSource(items), FakeLVLM(fail_after=3), random_sae())
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


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
    assert not (tmp_path / "s").exists()
    anywhere = build(BuildConfig(tmp_path / "any"), source, FakeLVLM(), random_sae(block=None))
    assert anywhere.manifest.block == FakeLVLM.read_block
    for wrong in ({"score": "median"}, {"batch": 0}, {"places": 0}):
        with pytest.raises(ExplorerError):
            BuildConfig(tmp_path / "s", **wrong)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "dear.txt").touch()
    with pytest.raises(StoreError, match="not a store"):
        run(tmp_path / "s", items[:2])


def test_sources_without_a_readable_picture_are_refused(tmp_path: Path) -> None:
    rows = [SkippedRow("a.png", "a.png", "it is empty")]
    with pytest.raises(SourceError, match="none of the 1 pictures could be read; the first: it is empty"):
        build(BuildConfig(tmp_path / "s"), ListSource(rows), FakeLVLM(), random_sae())
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files_become_rows(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    pictures = [picture.image for picture in noise_pictures(3)]
    pictures[0].save(photos / "deep" / "a.png")
    pictures[1].save(photos / "b.JPG", "JPEG")
    pictures[2].resize((400, 300)).save(photos / "c.jpg")
    whole = (photos / "c.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (photos / "empty.png").touch()
    (photos / "text.png").write_text("not a picture")
    (photos / "notes.txt").write_text("left alone")
    (photos / ".hidden.png").write_text("left alone")
    done: list[int] = []
    source = FolderSource(photos)
    assert source.ids() == ["b.JPG", "c.jpg", "cut.jpg", "deep/a.png", "empty.png", "text.png"]
    summary = build(BuildConfig(tmp_path / "s"), source, FakeLVLM(), random_sae(), done.append)
    assert sum(done) == 6
    assert [row.image_id for row in summary.skipped] == ["cut.jpg", "empty.png", "text.png"]
    store = Store.open(tmp_path / "s")
    assert (store.manifest.n_images, store.manifest.n_skipped) == (3, 3)
    skipped = store.skipped()
    assert [row.image_id for row in skipped] == ["cut.jpg", "empty.png", "text.png"]
    assert all(row.reason and row.origin.endswith(row.image_id) for row in skipped)
    wide = next(e for n in range(24) for e in store.exemplars(n) if e.image_id == "c.jpg")
    assert Image.open(io.BytesIO(wide.thumbnail)).size == (192, 144)


def test_scenes_give_labels_and_concepts(tmp_path: Path) -> None:
    summary = build(BuildConfig(tmp_path / "s"), SceneSource(40, seed=7), FakeLVLM(), random_sae())
    assert summary.manifest.source == "ordinary scenes, seeds 7 to 46"
    store = Store.open(tmp_path / "s")
    assert store.concepts()
    for concept in store.concepts():
        found = store.find(concept, k=40)
        assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
        assert all(f.score > 0 and f.concept == concept for f in found)
        for neuron, _, _, precision in found[:2]:
            shown = [concept in e.labels for e in store.exemplars(neuron)]
            assert precision == pytest.approx(sum(shown) / len(shown))
    probe = store.probe()
    assert probe is not None and probe.concepts == tuple(SceneSource.concepts)
    assert probe.weight.shape == (len(probe.concepts) + 1, 6) and np.isfinite(probe.weight).all()
    assert set(store.concepts()) <= {
        c for c, b in zip(probe.concepts, probe.bias, strict=False) if b > -np.inf
    }
    labelled = [s for s in store.summaries(range(24)).values() if s.label]
    assert labelled
    for summary_ in labelled:
        shown = [summary_.label in e.labels for e in store.exemplars(summary_.neuron)]
        assert summary_.precision == pytest.approx(sum(shown) / len(shown))


def test_order_and_batches_of_scenes_do_not_change_a_row(tmp_path: Path) -> None:
    scenes = list(SceneSource(12, seed=3))
    orders = {"one": scenes, "two": [scenes[i] for i in np.random.default_rng(2).permutation(12)]}
    for batch, (name, pool) in zip((5, 2), orders.items(), strict=True):
        source = ListSource(pool, SceneSource.concepts)
        build(BuildConfig(tmp_path / name, batch=batch), source, FakeLVLM(), random_sae())
    rows = tables(tmp_path / "one")
    assert rows == tables(tmp_path / "two") and rows["probes"] and rows["concepts"]


def test_codes_of_a_batch_are_split_by_image() -> None:
    items, lvlm, sae = noise_pictures(4), FakeLVLM(), random_sae()
    for item, encoded in zip(items, encode(lvlm, sae, 1, items), strict=True):
        alone = encode(lvlm, sae, 1, [item])[0]
        assert encoded.picture is item
        assert encoded.fvu == pytest.approx(alone.fvu, rel=1e-5)
        for ours, theirs in zip(encoded.codes[:3], alone.codes[:3], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert encoded.codes.tokens.max() < 16
