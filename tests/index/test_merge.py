"""Parts and their merge: the same rows as one pass and as plain arithmetic; what does not belong is named."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_site import FakeLVLM, ListSource, contents, noise_pictures, random_sae, unreadable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from explorer.errors import ModelError, SAEError, SourceError, StoreError
from explorer.store import Store
from index.build import BuildConfig, Summary, build
from index.merge import find_parts, merge
from index.sources import Picture, SceneSource, Source
from index.work import Shard

COUNT, PARTS = 150, 64


def some_items() -> list[Picture | Exception]:
    """Pictures; some cannot be read, all of one part among them, and some are twins with equal scores."""
    items: list[Picture | Exception] = [*noise_pictures(COUNT)]
    for i in (5, 77, *range(20, 22)):
        items[i] = unreadable(f"number {i} is broken")
    for i in (40, 90):
        items[i] = replace(items[1], number=i, image_id=f"noise/{i:05d}", labels=())
    return items


def run(out: Path, source: Source, shard: Shard | None = None, **config: object) -> Summary:
    """Build a part or a store with the stand-ins."""
    return build(
        BuildConfig(out, batch=2, sample=100, words="none", shard=shard, **config),
        source,
        FakeLVLM(),
        random_sae(),
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store from one pass."""
    folder = tmp_path_factory.mktemp("one") / "store"
    run(folder, ListSource(some_items()))
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 parts, built in a shuffled order."""
    folder = tmp_path_factory.mktemp("parts")
    for index in np.random.default_rng(0).permutation(PARTS) + 1:
        summary = run(folder, ListSource(some_items()), Shard(int(index), PARTS))
        assert summary.merged is None and summary.folder.name == f"part-{index:04d}-of-0064"
    return folder


@given(order=st.permutations(range(PARTS)))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_64_parts_in_any_order_are_one_pass(
    one: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory, order: Sequence[int]
) -> None:
    folders = find_parts([parts])
    out = tmp_path_factory.mktemp("merged") / "store"
    merged = merge([folders[i] for i in order], out, random_sae())
    assert contents(out) == contents(one)
    manifests = [replace(Store.open(path).manifest, created="", files={}) for path in (out, one)]
    assert (
        manifests[0] == replace(manifests[1], n_parts=PARTS) == replace(merged.manifest, created="", files={})
    )
    assert [row.reason for row in merged.skipped][:2] == ["number 20 is broken", "number 21 is broken"]
    Store.open(out).verify()
    assert [path.name for path in out.parent.iterdir()] == ["store"]


def test_parts_are_a_naive_oracle(one: Path) -> None:
    items = [item for item in some_items() if isinstance(item, Picture)]
    lvlm, sae = FakeLVLM(), random_sae()
    hidden = [lvlm.tower(lvlm.preprocess(item.image).pixel_values, 1)[0, 1:] for item in items]
    scores = np.stack([sae.encode(h).double().mean(0).float().numpy() for h in hidden])
    store = Store.open(one)
    for neuron in range(24):
        order = sorted(range(len(items)), key=lambda i, n=neuron: (-scores[i, n], items[i].number))
        wanted = [items[i].image_id for i in order if scores[i, neuron] > 0][:16]
        assert [e.image_id for e in store.exemplars(neuron)] == wanted


def test_parts_of_scenes_are_one_pass(tmp_path: Path) -> None:
    source = SceneSource(30, seed=3)
    run(tmp_path / "one", source)
    for index in (2, 3, 1):
        run(tmp_path / "parts", source, Shard(index, 3))
    merge([tmp_path / "parts"], tmp_path / "merged", random_sae())
    rows = contents(tmp_path / "one")
    assert rows == contents(tmp_path / "merged")
    assert rows["probes"] and rows["concepts"] and rows["neuron_labels"] and rows["partners"]


def test_a_finished_part_is_left_alone(parts: Path) -> None:
    told: list[str] = []
    config = BuildConfig(parts, batch=2, sample=100, words="none", shard=Shard(2, PARTS))
    source = ListSource(some_items())
    summary = build(config, source, FakeLVLM(fail_after=0), random_sae(), tell=told.append)
    assert summary.fresh == 0 and summary.n_images == 4
    assert told == ["all 4 images of this part are done already"]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three parts of a small build."""
    for index in (1, 2, 3):
        run(tmp_path / "parts", ListSource(noise_pictures(20)), Shard(index, 3))
    return tmp_path / "parts"


def test_missing_double_and_foreign_parts_are_named(three: Path, tmp_path: Path) -> None:
    sae, out = random_sae(), tmp_path / "s"
    first, second, third = find_parts([three])
    with pytest.raises(StoreError, match=r"1 of 3 parts are missing: 2/3; build them with --shard 2/3"):
        merge([first, third], out, sae)
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(StoreError, match=r"more than once: .*part-0001-of-0003, .*copy; name only one"):
        merge([three, tmp_path / "copy"], out, sae)
    run(tmp_path / "other", ListSource(noise_pictures(20)), Shard(2, 3), places=3)
    odd = tmp_path / "other" / "part-0002-of-0003"
    with pytest.raises(StoreError, match=rf"of one build.*: {odd} \(places: 16 -> 3\)"):
        merge([first, odd, third], out, sae)
    with pytest.raises(StoreError, match="there is no folder"):
        merge([tmp_path / "nowhere"], out, sae)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"holds no parts; build some: .* --shard 1/8"):
        merge([tmp_path / "empty"], out, sae)
    with pytest.raises(SAEError, match="were built with the SAE"):
        merge([three], out, random_sae(seed=1))
    other = FakeLVLM()
    other.model_id = "fake@9999"
    with pytest.raises(ModelError, match="were built with the model fake@0123, this one is fake@9999"):
        merge([three], out, sae, other)
    assert not out.exists()
    with pytest.raises(ModelError, match="the words by answer come from the model; name that of the build"):
        merge([third, first, second], out, sae, words="answer")
    merge([third, first, second], out, sae)


def test_unfinished_and_damaged_parts_are_named(three: Path, tmp_path: Path) -> None:
    second = three / "part-0002-of-0003"
    run(three, ListSource(noise_pictures(20)), Shard(2, 3))
    victim = max(second.glob("state-*/*.npy"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[-1] ^= 255
    victim.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{second} is damaged .*{victim.name} changed or cut short"):
        merge([three], tmp_path / "s", random_sae())
    shutil.rmtree(second)
    with pytest.raises(SystemError):
        build(
            BuildConfig(three, batch=2, sample=100, words="none", shard=Shard(2, 3)),
            ListSource(noise_pictures(20)),
            FakeLVLM(fail_after=2, failure=SystemError),
            random_sae(),
        )
    with pytest.raises(StoreError, match=rf"not finished: {second} \(nothing saved yet\); run their builds"):
        merge([three], tmp_path / "s", random_sae())
    (second / "pictures.sqlite").unlink()
    run(three, ListSource(noise_pictures(20)), Shard(2, 3))
    merge([three], tmp_path / "s", random_sae())
    (second / "pictures.sqlite").unlink()
    with pytest.raises(StoreError, match="missing from the parts"):
        merge([three], tmp_path / "s", random_sae())
    assert Store.open(tmp_path / "s").manifest.n_parts == 3


def test_parts_without_any_picture(tmp_path: Path) -> None:
    items = [unreadable()] * 4
    for index in (1, 2):
        summary = run(tmp_path / "parts", ListSource(items), Shard(index, 2))
        assert summary.n_images == 0 and len(summary.skipped) == 2
    with pytest.raises(SourceError, match="none of the 4 pictures could be read"):
        merge([tmp_path / "parts"], tmp_path / "s", random_sae())
    few = noise_pictures(3)
    for index in range(1, 6):  # more parts than chunks
        run(tmp_path / "few", ListSource(few), Shard(index, 5))
    merge([tmp_path / "few"], tmp_path / "s", random_sae())
    run(tmp_path / "one", ListSource(few))
    assert contents(tmp_path / "s") == contents(tmp_path / "one")
