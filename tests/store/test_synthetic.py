"""Made-up stores of any size follow every rule, and are the same for the same seed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.errors import StoreError
from explorer.store import Store
from explorer.store.classes import CLASSES
from explorer.store.synthetic import FEWEST_IMAGES, synthetic_store

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("neurons", "images"), [(1, 64), (2, 64), (37, 65), (900, 400)])
def test_every_rule_holds(tmp_path: Path, neurons: int, images: int) -> None:
    folder = synthetic_store(tmp_path / "s", neurons, images)
    assert folder == tmp_path / "s"
    store = Store.open(folder)
    store.verify()
    assert store.manifest.n_neurons == neurons


def test_it_is_plausible(tmp_path: Path) -> None:
    store = Store.open(synthetic_store(tmp_path / "s", 3000, 500))
    counts = store.class_counts()
    assert all(counts[name] for name in CLASSES) and sum(counts.values()) == 3000
    overview = store.overview()
    assert len(store.label_counts()) == 20 and 0.3 < (overview.labels != "").mean() < 0.95
    assert np.nanmin(overview.entropy) < 0.1 and np.nanmax(overview.entropy) > 2
    neuron = int(np.flatnonzero(overview.labels != "")[0])
    exemplars = store.exemplars(neuron)
    for shown in (exemplars[0], *store.interval_exemplars(neuron)):
        picture = Image.open(io.BytesIO(shown.thumbnail))
        assert picture.size == (192, 192) and shown.patch_map.shape == (24, 24) and shown.patch_map.max() > 0
    assert store.labels(neuron)[0].label == overview.labels[neuron]
    assert store.words(neuron) and store.partners(neuron) and store.find(overview.labels[neuron], 3)
    held = [exemplar.image_id for n in range(0, 3000, 7) for exemplar in store.exemplars(n)]
    assert len(held) > 3 * len(set(held))  # pictures are shared among neurons
    near = store.similar(neuron, 8)
    assert near[0].value > 0.4 and np.isfinite(overview.x).mean() > 0.95


def test_it_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    kept = [synthetic_store(tmp_path / name, 120, 64, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    files = [
        [(folder / name).read_bytes() for name in ("index.sqlite", "directions.faiss")] for folder in kept
    ]
    assert files[0] == files[1] and files[0][0] != files[2][0] and files[0][1] != files[2][1]
    ids = [Store.open(folder).manifest.sae_id for folder in kept]
    assert ids[0] == ids[1] != ids[2]


def test_too_little_is_refused(tmp_path: Path) -> None:
    for neurons, images in ((0, 100), (5, FEWEST_IMAGES - 1)):
        with pytest.raises(StoreError, match=f"use 1 and {FEWEST_IMAGES} or more"):
            synthetic_store(tmp_path / "s", neurons, images)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear reader")
    with pytest.raises(StoreError, match="holds other files and is not a store"):
        synthetic_store(tmp_path / "other", 5, 64)


def test_the_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "explorer.store.synthetic",
        "--neurons",
        "9",
        "--out",
        str(tmp_path / "s"),
    ]
    done = subprocess.run([*command, "--images", "64"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path / 's'}: 9 neurons, ") and done.stderr == ""
    failed = subprocess.run(
        [*command, "--images", "3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1 and failed.stderr.startswith("error: a store of 9 neurons and 3 images")
