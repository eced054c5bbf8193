"""What is written is read back; what does not fit is refused in words that help."""

from __future__ import annotations

import json
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from store_maker import (
    N_NEURONS,
    fill,
    make_store,
    some_directions,
    some_histograms,
    some_manifest,
    some_map,
    some_mean_patch,
    some_probe,
    some_summary,
)

from explorer.errors import StoreError
from explorer.records import Found, LabelEvidence, NeuronSummary, Partner, Word
from explorer.store import Store, StoreWriter, atomic, is_outdated, is_upgradable
from explorer.store.classes import count
from explorer.store.maps import pack, quantise, unpack

FILES = {"index.sqlite", "directions.faiss", "centroids.faiss"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "one")


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store.open(folder)


def test_exemplars_come_back_in_order_with_their_maps(store: Store) -> None:
    for neuron in range(N_NEURONS):
        found = store.exemplars(neuron)
        assert [e.rank for e in found] == list(range(min(neuron, 4)))
        for exemplar in found:
            assert exemplar.neuron == neuron
            assert exemplar.score == 3.0 * neuron - exemplar.rank
            assert exemplar.image_id == f"i{exemplar.rank}"
            assert exemplar.origin == f"from/i{exemplar.rank}"
            assert exemplar.thumbnail == bytes([exemplar.rank, 255])
            assert exemplar.labels == ("cake", "fork")[: exemplar.rank % 3]
            assert exemplar.patch_map.shape == (2, 3)
            assert exemplar.patch_map.dtype == np.float32
            true = some_map(neuron, exemplar.rank)
            np.testing.assert_allclose(exemplar.patch_map.ravel(), true, atol=true.max() / 509)


def test_images_of_lower_intervals_come_back(store: Store) -> None:
    assert store.interval_exemplars(0) == []
    for neuron in range(1, N_NEURONS):
        peak = 3.0 * neuron
        found = store.interval_exemplars(neuron)
        assert [(e.rank, e.interval, e.score, e.image_id) for e in found] == [
            (0, 2, peak / 2, "i4"),
            (1, 4, peak / 4, "i5"),
        ]
        for exemplar in found:
            assert exemplar.low <= exemplar.score < exemplar.high <= 2 * exemplar.low
            assert exemplar.neuron == neuron and exemplar.patch_map.shape == (2, 3)
            true = some_map(neuron, int(exemplar.image_id[1]))
            np.testing.assert_allclose(exemplar.patch_map.ravel(), true, atol=true.max() / 509)


def test_labels_words_and_partners_come_back(store: Store) -> None:
    assert store.labels(3) == [
        LabelEvidence("concept", "cake", 1.0, 4.0, 0.75, 12),
        LabelEvidence("category", "wine glass", 0.5, 2.0, None, 3),
    ]
    assert store.words(2) == [Word("zebra", 3.5), Word("stripe", 1.25)]
    assert store.partners(3) == [Partner(5, 0.5, 0.75), Partner(1, 0.25, 0.125)]
    assert store.labels(0) == store.words(0) == store.partners(0) == []


def test_histograms_come_back(store: Store) -> None:
    for neuron in range(N_NEURONS):
        for which, times in (("score", 1), ("active", 2)):
            edges, counts = store.histogram(neuron, which)
            assert edges.shape == (65,) and np.array_equal(counts, times * some_histograms()[neuron])
    with pytest.raises(StoreError, match="no histogram 'median'; use 'score' or 'active'"):
        store.histogram(0, "median")


def test_every_field_of_a_summary_comes_back(store: Store) -> None:
    for neuron in range(N_NEURONS):
        assert store.summary(neuron) == some_summary(neuron)


def test_unknown_facts_and_classes_are_filled_in(tmp_path: Path) -> None:
    with atomic(tmp_path / "s") as work, StoreWriter(work) as writer:
        fill(writer)
        writer._db.execute("DELETE FROM neurons")
        rows = [NeuronSummary(n, n / 10, 0.0, n, n, average_precision=float("nan")) for n in range(N_NEURONS)]
        writer.add_neurons(rows, some_histograms(), some_histograms())
        writer.finish(some_manifest())
    store = Store.open(tmp_path / "s")
    assert [store.summary(n).neuron_class for n in (0, 1)] == ["dead", "image_specific"]
    assert store.summary(2).average_precision is store.summary(2).monosemanticity is None


def test_classes_of_the_store_and_of_other_shares(store: Store) -> None:
    assert store.classes().tolist() == [some_summary(n).neuron_class for n in range(N_NEURONS)]
    assert count(store.classes()) == (2, 3, 0, 1)
    other = store.classes(always_share=0.5, rare_share=0.6)
    assert other.tolist() == ["dead", "always_on", "always_on", "always_on", "always_on", "rare"]


def test_summaries_keep_the_order_asked_for(store: Store) -> None:
    found = store.summaries([4, 1, 4])
    assert list(found) == [4, 1]
    assert found[4] == store.summary(4) == some_summary(4)
    assert store.summaries([]) == {}


@pytest.mark.parametrize("words", ["wine_glass", "Wine Glass", "  wine-glass ", "WINE  GLASS"])
def test_find_normalises_the_words(store: Store, words: str) -> None:
    assert store.find(words, k=2) == [Found(5, "wine_glass", 4.0, 0.75), Found(4, "wine_glass", 3.0, 0.75)]


def test_find_without_an_answer(store: Store) -> None:
    assert store.find("zebra") == []
    assert store.find("wine_glass", k=0) == store.find("wine_glass", k=-1) == []
    assert store.concepts() == ["cake", "wine_glass"]


def test_the_probe_comes_back_bit_by_bit(store: Store) -> None:
    found, written = store.probe(), some_probe()
    assert found is not None and found.concepts == written.concepts == ("wine_glass", "cake", "zebra")
    for ours, theirs in ((found.weight, written.weight), (found.bias, written.bias)):
        assert ours.dtype == np.float32 and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    vectors = np.random.default_rng(2).normal(size=(200, written.weight.shape[1])).astype(np.float32)
    rows = found.shown(vectors)
    assert rows.tolist() == [int(np.argmax(written.weight @ v + written.bias)) for v in vectors]
    assert set(rows.tolist()) == {0, 1, 3}  # the last stands for none; the zebra was never seen


def test_the_mean_patch_comes_back(store: Store, tmp_path: Path) -> None:
    found = store.mean_patch()
    assert found is not None and found.dtype == np.float32
    assert found.tolist() == some_mean_patch().astype(np.float32).tolist()
    assert Store.open(make_store(tmp_path / "bare", truth=False)).mean_patch() is None


def test_the_probe_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(folder)
    first = store.probe()
    store.close()
    assert first is not None and store.probe() is first


def test_a_store_without_truth_has_no_probe(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "bare", truth=False))
    assert store.probe() is None and store.concepts() == store.find("cake") == []


def test_similar_is_the_cosine_without_the_neuron_itself(store: Store) -> None:
    rows = some_directions()
    lengths = np.linalg.norm(rows, axis=1)
    for neuron in range(N_NEURONS - 1):
        cosines = rows @ rows[neuron] / np.where(lengths > 0, lengths, 1) / lengths[neuron]
        order = sorted((n for n in range(N_NEURONS) if n != neuron), key=lambda n: -cosines[n])
        found = store.similar(neuron, 3)
        assert [a.neuron for a in found] == order[:3]
        np.testing.assert_allclose([a.value for a in found], cosines[order[:3]], atol=1e-5)
    assert store.similar(0, 1)[0].neuron == 1
    assert len(store.similar(2, 1000)) == N_NEURONS - 1
    assert store.similar(2, 0) == []


def test_always_on_takes_a_least_frequency(store: Store) -> None:
    assert store.always_on() == [1, 3]
    assert store.always_on(0.99) == [1, 3, 4]
    assert store.always_on(0.0) == list(range(N_NEURONS))


def test_skipped_pictures_and_manifest(store: Store) -> None:
    assert [tuple(row) for row in store.skipped()] == [("bad.png", "from/bad.png", "it is cut short")]
    assert store.manifest.fvu_quantile(0.995) == 0.35
    assert set(store.manifest.files) == FILES
    store.verify()
    with pytest.raises(StoreError, match=r"no 0\.25 quantile"):
        store.manifest.fvu_quantile(0.25)


@pytest.mark.parametrize("neuron", [-1, N_NEURONS, 10**9])
def test_unknown_neurons_are_refused(store: Store, neuron: int) -> None:
    for ask in (
        *(store.exemplars, store.interval_exemplars, store.summary, store.similar, store.histogram),
        *(store.labels, store.words, store.partners, store.note, store.lists_of),
    ):
        with pytest.raises(StoreError, match=f"no neuron {neuron}; the store has neurons 0 to 5"):
            ask(neuron)


def test_check_says_what_differs(store: Store) -> None:
    store.check()
    store.check(model_id="fake@0123", block=1, sae_id="ab" * 32, n_neurons=N_NEURONS)
    with pytest.raises(StoreError) as caught:
        store.check(model_id="llava@99", block=22, sae_id="ab" * 32, n_neurons=65536)
    text = str(caught.value)
    for part in (
        "fake@0123",
        "llava@99",
        "block is 1",
        "22",
        "neurons is 6",
        "65536",
        "python -m index build",
    ):
        assert part in text
    assert "SAE is" not in text
    with pytest.raises(StoreError, match=r"its SAE is (ab){6}, the session's is ff\."):
        store.check(sae_id="ff")
    with pytest.raises(StoreError, match=r"preprocessing is none, the session's is resized;.*score is"):
        store.check(preprocessing="resized", score="max")


def test_check_knows_a_model_by_its_weights(store: Store) -> None:
    store.check(model_id="moved/elsewhere@0123")
    with pytest.raises(StoreError, match="its model is fake@0123, the session's is fake@9999"):
        store.check(model_id="fake@9999")


def test_stores_of_format_1_are_refused_with_the_command_to_build(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for source, words in (
        ("train scenes, seeds 0 to 3999", "--scenes 4000"),
        ("pictures of the folder x", "--images FOLDER"),
    ):
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "source": source}))
        with pytest.raises(StoreError) as caught:
            Store.open(folder)
        assert (
            f"has format 1, this program reads format 3; build it again with: python -m index build {words}"
            in (str(caught.value))
        )
        assert is_outdated(folder) and not is_upgradable(folder)
    assert not is_outdated(make_store(folder)) and Store.open(folder).manifest.format == 3
    assert not is_outdated(tmp_path / "nowhere")


def test_threads_read_at_once(store: Store) -> None:
    wrong: list[str] = []

    def read(start: int) -> None:
        for step in range(200):
            neuron = (start + step) % N_NEURONS
            if len(store.exemplars(neuron)) != min(neuron, 4) or store.summary(neuron).neuron != neuron:
                wrong.append(f"neuron {neuron}")
            store.similar(neuron, 2)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_reading_changes_nothing(folder: Path, store: Store) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    store.exemplars(3)
    Store.open(folder).close()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == FILES | {"manifest.json"}


def test_an_open_store_outlives_its_replacement(tmp_path: Path) -> None:
    old = Store.open(make_store(tmp_path / "s", source="old"))
    make_store(tmp_path / "s", source="new")
    assert len(old.exemplars(3)) == 3
    assert old.similar(0, 1)[0].neuron == 1
    assert Store.open(tmp_path / "s").manifest.source == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    def refused(pattern: str, path: Path) -> None:
        with pytest.raises(StoreError, match=pattern):
            Store.open(path)

    refused("there is no store at .*python -m index build", tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    refused("is a file, not a store", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    refused("not a finished store", tmp_path / "empty")

    store = make_store(tmp_path / "store")
    manifest = store / "manifest.json"
    good = json.loads(manifest.read_text())
    for text, pattern in (
        ("{", "cannot read"),
        ("[]", "not the manifest"),
        (json.dumps({**good, "format": 99}), "has format 99, this program reads format 3"),
        (json.dumps({k: v for k, v in good.items() if k != "block"}), "lacks block"),
        (json.dumps({**good, "files": {"index.sqlite": 3}}), "is damaged"),
        (json.dumps({**good, "files": {}}), "lacks index.sqlite"),
        (json.dumps({**good, "words": "guessed"}), r"is damaged \(words\)"),
        (json.dumps({**good, "n_images": "many", "source": None}), r"is damaged \(n_images, source\)"),
    ):
        manifest.write_text(text)
        refused(pattern, store)
    manifest.write_text(json.dumps({**good, "n_neurons": 7}))
    refused("has 6 rows for 7 neurons", store)


@pytest.mark.parametrize("name", sorted(FILES))
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    path = make_store(tmp_path / "store") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=f"{name} of the store .* bytes instead of"):
        Store.open(tmp_path / "store")
    path.write_bytes(b"\xff" * len(whole))
    with pytest.raises(StoreError, match=f"cannot read .*{name}"):
        Store.open(tmp_path / "store")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match=f"is damaged: {name} changed after the build"):
        Store.open(tmp_path / "store").verify()
    path.unlink()
    with pytest.raises(StoreError, match=f"lacks {name}"):
        Store.open(tmp_path / "store")


def test_maps_survive_packing() -> None:
    maps = np.array([[0, 0, 0, 0], [1e-30, 0, 3e-30, 0], [7, 1, 0, 510]], dtype=np.float32)
    steps, scales = quantise(maps)
    for row, scale, true in zip(steps, scales, maps, strict=True):
        back = unpack(pack(row), float(scale), 2, 2)
        np.testing.assert_allclose(back.ravel(), true, atol=true.max() / 509)
    with pytest.raises(StoreError, match="has 4 patches, not 3 x 3"):
        unpack(pack(steps[0]), 1.0, 3, 3)
    with pytest.raises(StoreError, match="damaged"):
        unpack(b"junk", 1.0, 2, 2)


def test_a_failed_build_leaves_the_old_store(tmp_path: Path) -> None:
    target = make_store(tmp_path / "s", source="old")
    for failure in (KeyboardInterrupt, ValueError, StoreError("full")):
        with pytest.raises(BaseException), atomic(target) as work, StoreWriter(work) as writer:  # noqa: B017
            fill(writer)
            raise failure
    with pytest.raises(StoreError, match="ended without a manifest"), atomic(target) as work:
        (work / "index.sqlite").touch()
    assert Store.open(target).manifest.source == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("limit", [0, 1_000, 20_000, 150_000])
def test_a_full_disk_is_said_and_leaves_the_old_store(tmp_path: Path, limit: int) -> None:
    target = make_store(tmp_path / "s", source="old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(StoreError, match="cannot write"), atomic(target) as work:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with StoreWriter(work) as writer:
                for part in range(20):
                    writer.add_skipped((f"{part} {n}", "x" * 200, "y") for n in range(50))
                writer.add_directions(np.ones((400, 128)))
                fill(writer)
                writer.finish(some_manifest())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Store.open(target).manifest.source == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_failed_first_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "deep" / "s"):
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []


def test_builds_replace_only_stores(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"dear")
    with pytest.raises(StoreError, match="holds other files and is not a store"), atomic(photos):
        pass
    with pytest.raises(StoreError, match="is a file"), atomic(photos / "cat.jpg"):
        pass
    with pytest.raises(StoreError, match="cannot make a folder"), atomic(photos / "cat.jpg" / "deeper"):
        pass
    assert (photos / "cat.jpg").read_bytes() == b"dear"
    (tmp_path / "empty").mkdir()
    assert Store.open(make_store(tmp_path / "empty")).manifest == Store.open(tmp_path / "empty").manifest


def test_rows_that_break_the_schema_are_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path) as writer, pytest.raises(StoreError, match=r"cannot write .*index\.sqlite"):
        writer.add_neurons([NeuronSummary(0, 0.0, 0.0, 0.0, "high")], some_histograms(), some_histograms())
    with StoreWriter(tmp_path) as writer:
        fill(writer)
        assert writer.finish(some_manifest()).files["index.sqlite"].bytes > 0
