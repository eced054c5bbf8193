"""The whole way with any family: a model's folder, a trained SAE, a store, and a session on the three."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_site import contents
from family_folders import picture, pictures, save

from explorer.analyze import attribute, repair, word_map
from explorer.cases import replay
from explorer.cases.case import read, write
from explorer.cases.rows import Row, dump
from explorer.cases.settings import Settings
from explorer.cases.settings import dump as dump_settings
from explorer.records import Cell, Edit
from explorer.session import Session
from explorer.steer import Contrast, Decoding
from explorer.store import Store
from index import __main__ as command

NAMES = (
    "idefics3/large",
    "idefics3/second",
    "instructblip/vicuna",
    "internvl/qwen2",
    "llava/clip",
    "llava/siglip",
    "llava_next/mistral",
    "paligemma/first",
    "qwen/qwen2",
    "qwen/qwen2_5",
    "qwen/qwen3",
)
IMAGES = 12


def call(*words: str | Path) -> int:
    """Run a command in this process."""
    return command.main([str(word) for word in words])


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def work(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/ and pictures/."""
    folder = tmp_path_factory.mktemp(name.replace("/", "-"))
    save(name, folder / "model")
    pictures(folder / "pictures", IMAGES)
    return folder


@pytest.fixture(scope="module")
def store(work: Path) -> Path:
    """What train-sae and build make of them: sae.safetensors and store/."""
    model, source = ["--model", work / "model", "--device", "cpu"], ["--images", work / "pictures"]
    steps = ["--steps", "6", "--batch", "64", "--expansion", "1", "--k", "4", "--buffer", "4096"]
    machine = ["--workers", "0", "--tower-batch", "4", "--quiet"]
    written = ["--out", work / "sae.safetensors", "--checkpoint", work / "state.pt", "--held-out", "2"]
    assert call("train-sae", *model, *source, *steps, *machine, *written, "--captions", "0") == 0
    built = ["--out", work / "store", "--words", "none", "--workers", "0", "--batch", "5", "--quiet"]
    assert call("build", *source, *model, "--sae", work / "sae.safetensors", *built) == 0
    return work / "store"


def test_from_pictures_to_a_labelled_store(
    work: Path, store: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """verify, label, stats, export-sae; and the exported SAE builds the same store."""
    model = ["--model", work / "model", "--device", "cpu"]
    site = [*model, "--sae", work / "sae.safetensors"]
    assert call("verify", store, *site, "--samples", "12", "--quiet") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS")

    before = contents(store)
    refused = name.startswith("instructblip")
    assert call("label", store, *site, "--words", "unembedding", "--quiet") == (1 if refused else 0)
    said = capsys.readouterr()
    assert ("--words answer" in said.err) == refused and said.err.count("\n") == refused
    assert bool(contents(store)["neuron_words"]) != refused
    assert call("label", store, *site, "--words", "answer", "--quiet") == 0
    assert Store.open(store).manifest.words == "answer" and contents(store)["neuron_words"]
    assert call("stats", store) == 0
    assert f"{IMAGES} images, 0 could not be read" in capsys.readouterr().out

    assert call("export-sae", work / "sae.safetensors", work / "exported", "--to", "saelens") == 0
    built = ["--out", work / "again", "--words", "none", "--workers", "0", "--batch", "5", "--quiet"]
    source = ["--images", work / "pictures", *model]
    assert call("build", *source, "--sae", work / "exported", *built) == 0
    assert contents(work / "again") == before


@pytest.fixture(scope="module")
def session(work: Path, store: Path) -> Session:
    return Session.open(work / "model", work / "sae.safetensors", store)


@pytest.mark.parametrize("size", [(120, 40), (40, 120), (64, 64)])
def test_a_picture_is_looked_at_and_steered(session: Session, name: str, size: tuple[int, int]) -> None:
    """Wide, tall and square: neurons, exemplars, an edit in a region, CNS, VCD."""
    view = session.look(picture(20, size), [Contrast()])
    grid = view.grid
    top = view.top(5)
    assert top and all(session.exemplars(one.neuron) for one in top)
    seen = view.map(top[0].neuron)
    assert seen.shape == (grid.rows, grid.cols)
    at = view.top_at(*map(int, np.unravel_index(seen.argmax(), seen.shape)), 48)
    assert (top[0].neuron, seen.max()) in [(one.neuron, pytest.approx(one.value)) for one in at]
    plain = session.answer(view, max_new_tokens=6)
    assert plain == session.lvlm.answer_plain(view.image, session.lvlm.default_prompt, 6) != ""
    region = np.zeros((grid.rows, grid.cols), np.bool_)
    region[: max(grid.rows // 2, 1)] = True
    edits = [Edit(one.neuron, 50.0, "set", region) for one in top]
    hidden, gauges = session.steered(view, edits)
    assert gauges.change > 0
    changed = (hidden != view.hidden).any(1)
    assert changed.any() and not changed.all()
    assert session.answer(view, edits=edits, max_new_tokens=6)
    always = session.always_on(0.5)
    assert isinstance(always, tuple)
    moved = session.steered(view, contrast=Contrast(min_frequency=0.5)).hidden
    assert not np.array_equal(moved.numpy(), view.hidden.numpy())
    assert session.answer(view, contrast=Contrast(min_frequency=0.5), max_new_tokens=6)
    assert session.answer(view, decoding=Decoding("vcd"), max_new_tokens=6)


def test_a_word_is_explained_and_a_case_replayed(session: Session, name: str) -> None:
    """Words x neurons, attribution, repairs; a saved case holds when it is opened again."""
    view = session.look(picture(20, (120, 40)))
    said = session.answer(view, max_new_tokens=6)
    words = session.lvlm.answer_words(said)
    found = word_map(session, view, answer=said, words=words[:2], tried=6)
    assert found.effect.shape == (2, len(found.neurons)) and np.isfinite(found.gradient).all()
    behind = attribute(session, view, words[0].text, answer=said, measure=3)
    assert behind.ranked and all(np.isfinite(effect.measured) for effect in behind.ranked)
    repairs = repair(session, view, words[0].text, neurons=1, measure=3, max_new_tokens=6)
    assert repairs.tried and repairs.complete

    strongest = view.top(1)[0]
    row = Row(strongest.neuron, "", 1.0, 40.0, "set", "marked", (Cell(0, 0),))
    how = Settings(cns=True, step=300, max_new_tokens=6)
    case = replay.captured(
        session, view, "a case", "", session.lvlm.default_prompt, dump([row]), dump_settings(how), said
    )
    again = replay.replay(session, read(write(case)))
    assert again.differences == () and again.steered == case.steered
