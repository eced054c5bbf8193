"""The command line: a whole build through the real door, exit codes, messages in one line, help."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fake_site import contents
from PIL import Image

from explorer.errors import ExplorerError
from explorer.sae import SAE, ActivationRule
from explorer.store import Store
from explorer.store.manifest import ROUTES
from explorer.vlm.loading import Choice
from index import __main__ as command
from index.commands import common
from index.work import locked, work_folder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMANDS = ("build", "merge", "verify", "stats", "label", "upgrade", "train-sae", "export-sae")


@pytest.fixture(scope="module")
def sae_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = torch.Generator().manual_seed(0)
    encoder = torch.randn(32, 20, generator=draw)
    sae = SAE(encoder, torch.zeros(20), encoder.T.contiguous(), torch.zeros(32), ActivationRule("topk", k=3))
    path = tmp_path_factory.mktemp("sae") / "sae.safetensors"
    sae.save(path)
    return path


@pytest.fixture(scope="module")
def site(tiny_lvlm_folder: Path, sae_file: Path) -> list[str]:
    return ["--model", str(tiny_lvlm_folder), "--sae", str(sae_file), "--device", "cpu"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's layout, with a broken file."""
    folder = tmp_path_factory.mktemp("classes")
    for wnid in ("n01440764", "n02084071"):
        (folder / wnid).mkdir()
        for i in range(6):
            Image.effect_noise((60, 40), 20 + 20 * i).save(folder / wnid / f"{i}.png")
    (folder / "n02084071" / "bad.png").write_text("no")
    return folder


def call(*words: str | Path) -> int:
    """Run a command in this process."""
    return command.main([str(word) for word in words])


def test_from_class_folders_to_a_labelled_store(
    tmp_path: Path, classes: Path, site: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """build in parts, merge, stats, verify, label."""
    source = ["--imagenet", classes, *site, "--batch", "3", "--workers", "0"]
    for part in ("2/2", "1/2"):
        assert call("build", *source, "--shard", part, "--out", tmp_path / "parts") == 0
    printed = capsys.readouterr()
    assert "part-0001-of-0002: part 1 of 2 is complete, 7 pictures" in printed.out
    assert f"python -m index merge {tmp_path / 'parts'} --out STORE" in printed.out
    assert "7/7" in printed.err
    assert call("build", *source, "--shard", "2/2", "--out", tmp_path / "parts") == 0
    assert "no picture was left to read" in capsys.readouterr().out
    sae = site[2:4]
    assert call("merge", tmp_path / "parts", *sae, "--out", tmp_path / "s") == 0
    printed = capsys.readouterr()
    assert "merged 2 parts" in printed.out and "1 of 13 pictures could not be read" in printed.out
    assert "bad.png:" in printed.out and "12 images, 20 neurons" in printed.out
    store = tmp_path / "s"
    assert call("stats", store, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["manifest"]["n_images"] == 12 and sum(figures["classes"].values()) == 20
    assert {table["table"] for table in figures["tables"]} >= {"images", "exemplars", "texts"}
    assert figures["skipped"][0]["number"] == 1
    assert call("verify", store, *site, "--quiet") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS")

    (tmp_path / "names.txt").write_text("n01440764 tench\nn02084071 dog\n")
    Store.open(store).set_note(1, "mine", "kept")
    assert call("label", store, *site, "--class-names", tmp_path / "names.txt") == 0
    assert "2 classes have another name" in capsys.readouterr().out
    opened = Store.open(store)
    opened.verify()
    assert {label.label for n in range(20) for label in opened.labels(n)} <= {"tench", "dog"}
    assert {label for n in range(20) for e in opened.exemplars(n) for label in e.labels} == {"tench", "dog"}
    assert any(opened.words(n) for n in range(20))
    note = opened.note(1)
    assert note is not None and note.name == "mine"
    assert opened.manifest.words == "answer"
    word = next(word.word for n in range(20) for word in opened.words(n))
    assert opened.search(word)
    assert call("stats", store, "--always-share", "0.5") == 0
    text = capsys.readouterr().out
    assert "in the top-20 of at least 50% of the images" in text and "neuron_words" in text


def test_one_build_is_the_merge_of_its_parts(
    tmp_path: Path, classes: Path, site: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--images", classes, *site, "--batch", "3", "--limit", "11", "--store-score", "max", "--quiet"]
    assert call("build", *source, "--out", tmp_path / "one") == 0
    printed = capsys.readouterr()
    assert "11 pictures in" in printed.out and "img/s" not in printed.err
    assert f"python app.py {' '.join(site[:4])} --store {tmp_path / 'one'}\n" in printed.out
    for part in ("1/3", "2/3", "3/3"):
        assert call("build", *source, "--shard", part, "--out", tmp_path / "parts") == 0
    assert "words: " not in printed.err
    assert call("merge", tmp_path / "parts", *site, "--out", tmp_path / "two") == 0
    assert "words: answer (20 neurons x " in capsys.readouterr().err
    rows = contents(tmp_path / "one")
    assert rows == contents(tmp_path / "two")
    assert rows["neuron_words"] and Store.open(tmp_path / "one").manifest.score == "max"
    assert [Store.open(tmp_path / name).manifest.words for name in ("one", "two")] == ["answer"] * 2
    assert call("label", tmp_path / "one", *site, "--words", "unembedding") == 0
    assert "words: unembedding (as asked)" in capsys.readouterr().err
    assert Store.open(tmp_path / "one").manifest.words == "unembedding"
    again = contents(tmp_path / "one")
    assert [] != again["neuron_words"] != rows["neuron_words"]
    for found in (again, rows):
        del found["neuron_words"], found["texts"]
    assert again == rows


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["cook"],
        ["build"],
        ["build", "--out", "x"],
        ["build", "--scenes", "0", "--out", "x"],
        ["build", "--scenes", "many", "--out", "x"],
        ["build", "--scenes", "1", "--out", "x", "--batch", "1.5"],
        ["build", "--scenes", "1", "--out", "x", "--wrods", "none"],
        ["build", "--scenes", "1", "--images", "y", "--out", "x"],
        ["build", "--scenes", "1", "--out", "x", "--score", "median"],
        ["build", "--scenes", "1", "--out", "x", "--shard", "3/2"],
        ["build", "--scenes", "1", "--out", "x", "--shard", "half"],
        ["build", "--scenes", "1", "--out", "x", "--workers", "-1"],
        ["merge", "--out", "x"],
        ["merge", "parts"],
        ["merge", "parts", "--out", "x", "--words"],
        ["build", "--scenes", "1", "--out", "x", "--words", "all"],
        ["verify"],
        ["verify", "x", "--samples", "0"],
        ["stats", "x", "--always-share", "90"],
        ["label"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(args)
    assert caught.value.code == 2


def test_errors_are_one_line_and_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dear.txt").touch()
    for args in (
        ["build", "--images", tmp_path / "nowhere", "--out", tmp_path / "s"],
        ["build", "--scenes", "1", "--out", tmp_path],
        ["build", "--scenes", "1", "--out", tmp_path / "s", "--sae", tmp_path / "no.safetensors"],
        ["build", "--scenes", "1", "--seed", "1", "--spread", "--out", tmp_path / "s"],
        ["merge", tmp_path / "nowhere", "--out", tmp_path / "s"],
        ["merge", tmp_path, "--out", tmp_path / "s"],
        ["verify", tmp_path / "nowhere"],
        ["stats", tmp_path],
        ["label", tmp_path / "nowhere"],
        ["label", tmp_path / "nowhere", "--words", "none"],
    ):
        assert call(*args) == 1
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1, text
    assert [path.name for path in tmp_path.iterdir()] == ["dear.txt"]


def test_a_store_that_is_being_built_is_left_alone(
    tmp_path: Path, classes: Path, site: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--images", classes, *site, "--quiet", "--words", "none", "--out", tmp_path / "s"]
    assert call("build", *args) == 0
    capsys.readouterr()
    with locked(work_folder(tmp_path / "s", None)):
        for words in (["build", *args], ["label", tmp_path / "s", *site, "--quiet"]):
            assert call(*words) == 1
            assert f"another build (process {os.getpid()} on " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_signals_stop_a_real_build_that_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "signalled.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, code in (("SIGINT", 130), ("SIGTERM", 143)):
        found, words = json.loads(done.stdout)[name]
        assert found == code, words
        assert "stopped; the progress is saved. Run the same command again to go on" in words
        assert (tmp_path / f".{name}.building").is_dir() and not (tmp_path / name).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_outside_the_pass_end_cleanly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    from index.commands import build

    def interrupted(args: object) -> int:
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    monkeypatch.setattr(build, "run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job may ignore Ctrl-C
    try:
        assert call("build", "--scenes", "1", "--out", "x") == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing was published" in capsys.readouterr().err


def test_words_come_from_the_model_or_not_at_all(
    tmp_path: Path, classes: Path, site: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def words_of(*how: str | Path) -> list:
        capsys.readouterr()
        assert call(*how) == 0
        found = contents(tmp_path / "s")["neuron_words"]
        assert bool(found) == (Store.open(tmp_path / "s").manifest.words != "none")
        Store.open(tmp_path / "s").verify()
        return found

    source = ["--images", classes, *site, "--batch", "3", "--limit", "11", "--workers", "0"]
    assert call("build", *source, "--shard", "1/1", "--out", tmp_path / "parts") == 0
    merge = ["merge", tmp_path / "parts", "--out", tmp_path / "s"]
    assert words_of("build", *source, "--words", "none", "--out", tmp_path / "s") == []
    assert words_of(*merge, *site[2:]) == words_of(*merge, *site, "--words", "none") == []
    asked = words_of(*merge, *site, "--words", "answer")
    read = words_of(*merge, *site, "--words", "unembedding")
    assert asked != read
    assert read == words_of("build", *source, "--words", "unembedding", "--out", tmp_path / "s")
    (tmp_path / "names.txt").write_text("n01440764 tench\n")
    assert call("label", tmp_path / "s", "--words", "none", "--class-names", tmp_path / "names.txt") == 1
    assert contents(tmp_path / "s")["neuron_words"] == read


def test_labelling_later_gives_the_words_of_the_build(
    tmp_path: Path, classes: Path, site: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--images", classes, *site, "--batch", "3", "--workers", "0", "--quiet"]
    assert call("build", *source, "--words", "answer", "--out", tmp_path / "now") == 0
    assert call("build", *source, "--words", "none", "--out", tmp_path / "later") == 0
    assert call("label", tmp_path / "later", *site, "--words", "answer") == 0
    rows = contents(tmp_path / "later")
    assert rows["neuron_words"] and rows == contents(tmp_path / "now")

    assert call("build", *source, "--words", "none", "--sample", "0", "--out", tmp_path / "later") == 0
    capsys.readouterr()
    assert call("label", tmp_path / "later", *site) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "keeps no mean patch" in last and "--sample" in last


def test_help_offers_what_a_manifest_may_say(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("build", "merge", "label"):
        with pytest.raises(SystemExit):
            command.main([name, "--help"])
        assert f"--words {{{','.join(ROUTES)}}}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m index {name} " in text and "exit codes: 0 done" in text
    assert max(map(len, text.splitlines())) < 120


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS) and "130 stopped by Ctrl-C" in text


def test_sizes_times_and_workers_are_plain() -> None:
    assert common.size_words(12) == "12 bytes" and common.size_words(3 * 2**30) == "3.0 GiB"
    assert common.time_words(7.25) == "7.2 s" and common.time_words(3600) == "60 min"
    assert common.time_words(86400) == "24.0 h"
    assert 0 <= common.default_workers() <= 4


@pytest.mark.parametrize("name", ["label", "stats", "verify"])
def test_a_store_may_be_named_in_either_way(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([tmp_path / "none"], ["--store", tmp_path / "none"]):
        assert call(name, *words) == 1
        assert f"{tmp_path / 'none'}" in capsys.readouterr().err
    for words in ([], [tmp_path, "--store", tmp_path]):
        with pytest.raises(SystemExit) as end:
            call(name, *words)
        assert end.value.code == 2
        assert "give the folder of one store" in capsys.readouterr().err


def test_any_sae_may_be_named_with_hints(
    tmp_path: Path, sae_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of another project's format, and what its file does not say."""
    parser = argparse.ArgumentParser()
    common.add_sae(parser)
    assert call("export-sae", sae_file, tmp_path / "theirs") == 0
    opened = common.open_sae(parser.parse_args(["--sae", str(tmp_path / "theirs")]))
    assert opened.facts["format"] == "SAELens" and opened.n_neurons == 20
    hinted = parser.parse_args(["--sae", str(sae_file), "--sae-hint", "top_k=5", "--sae-hint", "a=b=c"])
    assert common.choice_of(hinted).hints == {"top_k": 5, "a": "b=c"}
    with pytest.raises(ExplorerError, match="hint 'top_k'"):
        common.open_sae(hinted)
    texts = ("a=0.5", "a=true", "a=x", 'a="q"')
    assert [Choice(sae_hint=(text,)).hints["a"] for text in texts] == [0.5, True, "x", '"q"']
    for wrong in ("top_k", "=5", "top_k="):
        with pytest.raises(SystemExit):
            parser.parse_args(["--sae-hint", wrong])
    assert "use KEY=VALUE, such as top_k=20" in capsys.readouterr().err
