"""The training command: whole runs on several sources, resumed and killed ones, two processes, refusals."""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paired
import pytest
import torch
from fake_site import FakeLVLM, noise_folder

from explorer.errors import ExplorerError, SAEError
from explorer.sae import SAE, ActivationRule, load_sae
from explorer.sae.team import ALONE
from explorer.sae.training import StepReport
from index.__main__ import main
from index.commands import train_sae
from index.stopping import StopRequests
from index.training.pictures import split_scenes
from index.training.processes import Placed, Processes, join
from index.training.run import Plan, config_of
from index.training.run import run as training
from index.training.stream import StreamConfig

HERE = Path(__file__).parent
RELU = ActivationRule()
ROOT = HERE.parents[1]


def parsed(folder: Path, model: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train_sae.add_arguments(parser)
    small = (
        "--steps 6 --batch 64 --buffer 512 --reuse 2 --held-out 4 --expansion 2 --k 3 --captions 2 --quiet"
    )
    small += "" if {"--images", "--tars", "--list"} & {*more} else " --scenes 20"
    files = f"--out {folder}/sae.safetensors --checkpoint {folder}/run/state.pt --checkpoint-every 2"
    return parser.parse_args(
        [*small.split(), *files.split(), "--model", str(model), "--device", "cpu", *more]
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trains_resumes_and_says_what_it_did(
    tmp_path: Path,
    tiny_lvlm_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert train_sae.run(parsed(tmp_path / "a", tiny_lvlm_folder, "--evaluate-every", "2")) == 0
    printed = capsys.readouterr().out
    assert "64 neurons of width 32 at block 2" in printed and "explained variance" in printed
    site = f"--model {tiny_lvlm_folder} --sae {tmp_path / 'a' / 'sae.safetensors'}"
    assert site in printed and "index with it: python -m index build ... --" in printed
    assert "on 2 held-out pictures" in printed and "of the captions are the same" in printed
    sae = load_sae(tmp_path / "a" / "sae.safetensors")
    assert (sae.site_block, sae.rule.kind, sae.rule.k, sum(sae.group_sizes)) == (2, "jumprelu", 3, 64)
    assert sae.model_id is not None and "@" in sae.model_id
    facts = sae.facts
    assert facts["trained_on"] == "drawn scenes, seeds 10000000 to 10000019, 10% counterfactual"
    assert (facts["tokens"], facts["skipped"], facts["processes"]) == ("patches", 0, 1)
    assert facts["quality"]["vectors"] == 4 * 16 and len(facts["quality"]["prefixes"]) == 4
    assert facts["preserved"]["pictures"] == 2 and facts["preserved"]["divergence"] > 0
    figures = lines(tmp_path / "a" / "run" / "state.metrics.jsonl")
    assert [one["step"] for one in figures] == [2, 4, 6] and figures[-1]["quality"] == facts["quality"]
    assert {"threshold", "dead_in_training", "preserved"} <= figures[0].keys()

    plain = train_sae.show

    def interrupt(bar: object, report: StepReport) -> None:
        plain(bar, report)
        if report.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_sae, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_sae.run(parsed(tmp_path / "b", tiny_lvlm_folder, "--evaluate-every", "2"))
    monkeypatch.undo()
    assert not (tmp_path / "b" / "sae.safetensors").exists()
    with pytest.raises(SAEError, match="had buffer = 512, not 600"):
        train_sae.run(parsed(tmp_path / "b", tiny_lvlm_folder, "--resume", "--buffer", "600"))
    with pytest.raises(SAEError, match="trained with k = 3, not 4"):
        train_sae.run(parsed(tmp_path / "b", tiny_lvlm_folder, "--resume", "--k", "4"))
    again = parsed(tmp_path / "b", tiny_lvlm_folder, "--resume", "--evaluate-every", "2", "--workers", "2")
    assert train_sae.run(again) == 0
    assert load_sae(tmp_path / "b" / "sae.safetensors").id == sae.id
    assert lines(tmp_path / "b" / "run" / "state.metrics.jsonl") == figures


@pytest.mark.parametrize(("asked_at", "saved"), [(1, 0), (10, 2), (30, 6)])
def test_a_stop_is_heard_while_filling_between_steps_and_while_measuring(
    tmp_path: Path,
    tiny_lvlm_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked_at: int,
    saved: int,
) -> None:
    """Asked at the first fill (8 times), between the steps (5 times), or while it is measured."""
    asked = itertools.count(1)
    monkeypatch.setattr(StopRequests, "asked", lambda self: next(asked) >= asked_at)
    quick = ("--tower-batch", "2", "--checkpoint-every", "100", "--held-out", "40")
    args = parsed(tmp_path, tiny_lvlm_folder, *quick)
    assert train_sae.run(args) == 143
    assert f"stopped; {saved} of 6 steps are saved. Run the same" in capsys.readouterr().err
    monkeypatch.undo()
    assert not args.out.exists()
    assert train_sae.run(parsed(tmp_path, tiny_lvlm_folder, *quick, "--resume")) == 0
    assert load_sae(args.out).facts["steps"] == 6


def test_killed_at_random_moments_it_ends_in_the_same_sae(tmp_path: Path, tiny_lvlm_folder: Path) -> None:
    args = [sys.executable, HERE / "killed.py", tmp_path, tiny_lvlm_folder]
    said = subprocess.run(
        args, cwd=ROOT, env=paired.environment(), capture_output=True, text=True, check=True
    )
    codes = json.loads(said.stdout)
    assert codes["calm"] == [0] and codes["harried"][-1] == 0
    assert set(codes["harried"]) <= {0, 143, -9}, (tmp_path / "harried" / "err.txt").read_text()
    calm, harried = (load_sae(tmp_path / name / "sae.safetensors") for name in ("calm", "harried"))
    assert harried.id == calm.id and harried.facts["quality"] == calm.facts["quality"]
    figures = [lines(tmp_path / name / "state.metrics.jsonl") for name in ("calm", "harried")]
    assert figures[0] == figures[1] and [one["step"] for one in figures[0]] == [5, 10, 15, 20, 24]
    assert not list((tmp_path / "harried").glob(".*")), "what a killed process was writing is cleaned up"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_lvlm_folder: Path) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp("pair")
    args = [sys.executable, HERE / "paired.py", folder, tiny_lvlm_folder]
    done = subprocess.run(args, cwd=ROOT, env=paired.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("bf16", [False, True])
def test_two_processes_take_the_steps_of_one_with_the_whole_batch(pair: Path, bf16: bool) -> None:
    alone = paired.steps(replace(paired.CONFIG, bf16=bf16), iter(paired.fixed_batches()))
    first, second = (torch.load(pair / f"steps-{rank}-{bf16}.pt") for rank in (0, 1))
    for one, other in zip(first["parameters"], second["parameters"], strict=True):
        assert torch.equal(one, other), "both processes hold the same weights"
    assert first["reports"] == second["reports"]
    for parameter, shared in zip(alone["parameters"], first["parameters"], strict=True):
        torch.testing.assert_close(parameter, shared, atol=2e-4, rtol=1e-3)
    assert torch.equal(alone["unfired"], first["unfired"])
    reports = [torch.tensor(found["reports"]) for found in (alone, first)]
    torch.testing.assert_close(*reports, atol=1e-4, rtol=1e-3)
    assert max(StepReport(*report).dead for report in first["reports"]) > 0, "the dead ones' loss is shared"


def test_the_command_runs_in_two_processes(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sae = load_sae(pair / "sae.safetensors")
    assert sae.facts["processes"] == 2 and sae.facts["quality"]["vectors"] == 5 * 16
    assert sae.facts["preserved"]["pictures"] == 3
    figures = lines(pair / "run" / "state.metrics.jsonl")
    assert [one["step"] for one in figures] == [3, 6, 8]
    printed = [(pair / f"out-{rank}.txt").read_text() for rank in (0, 1)]
    assert "on 80 held-out vectors" in printed[0] and not printed[1], "only the first one speaks"
    assert [(pair / f"code-{rank}.txt").read_text() for rank in (0, 1)] == ["143", "143"]
    assert load_sae(pair / "b" / "sae.safetensors").id == sae.id, "stopped by the second, resumed by both"


def test_a_certain_gpu_is_refused_where_each_process_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert join("cuda:1") == (ALONE, "cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SAEError, match="--device cuda:1: each of several processes takes its own GPU"):
        join("cuda:1")


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    plan = Plan(split_scenes(8, 0, 0.0, 2), config_of(4, 63, None), StreamConfig(), tmp_path / "state.pt")
    with pytest.raises(SAEError, match="a batch of 63 vectors cannot be shared by 2 processes"):
        training(plan, FakeLVLM(), Placed(Processes(0, 2), "cpu"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["--images", "--list", "--tars"])
def test_trains_on_any_source_over_what_cannot_be_read(
    tmp_path: Path, tiny_lvlm_folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = noise_folder(tmp_path / "photos", 12)
    for bad in ("00004.png", "00005.png"):  # one that is held out, and one to train on
        (photos / bad).write_text("not a picture")
    names = sorted(path.name for path in photos.iterdir())
    (photos / "names.txt").write_text("\n".join(names))
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name in names:
            tar.add(photos / name, name)
    place = {"--images": photos, "--list": photos / "names.txt", "--tars": tmp_path / "some.tar"}[kind]
    args = parsed(tmp_path, tiny_lvlm_folder, kind, str(place), "--limit", "11", "--half", "--include-cls")
    assert train_sae.run(args) == 0
    assert "2 of 11 pictures could not be read, for instance:\n" in capsys.readouterr().out
    facts = load_sae(args.out).facts
    assert facts["trained_on"].startswith("7 pictures: the first 11 of 12: ")
    assert facts["measured_on"].startswith("4 pictures kept apart: ")
    assert (facts["tokens"], facts["skipped"]) == ("all", 2) and facts["quality"]["vectors"] == 3 * 17


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--resume"], "no run to resume"),
        (["--steps", "0"], "steps = 0"),
        (["--k", "65"], "k = 65: the SAE has 64 neurons"),
        (["--seed", "899990"], "include those kept for measuring"),
        (["--held-out", "0"], "some pictures are needed"),
        (["--block", "3"], "block 3 cannot matter"),
        (["--images", "nowhere"], "no folder nowhere"),
        (["--out", "/"], "/ is a folder"),
        (["--checkpoint", "/proc/nowhere/state.pt"], "cannot write /proc/nowhere/state.json: .*--checkpoint"),
        (["--out", "/proc/nowhere/sae.safetensors"], "cannot write in /proc/nowhere: .*--out"),
        (["--buffer", "20"], "cannot hold two pictures of 16"),
        (["--spread", "--limit", "9"], "--spread does not go with --scenes"),
        (["--split", "train"], "--split goes with --hf, not with --scenes"),
        (["--tower-batch", "4", "--batch", "999"], "does not fill a batch of 999"),
    ],
)
def test_mistakes_get_plain_words(
    tmp_path: Path, tiny_lvlm_folder: Path, more: list[str], words: str
) -> None:
    with pytest.raises(ExplorerError, match=words):
        train_sae.run(parsed(tmp_path, tiny_lvlm_folder, *more))


def test_counterfactual_scenes_need_scenes(tmp_path: Path, tiny_lvlm_folder: Path) -> None:
    photos = noise_folder(tmp_path / "photos", 3)
    args = parsed(tmp_path, tiny_lvlm_folder, "--images", str(photos), "--counterfactual", "0.5")
    with pytest.raises(ExplorerError, match="--counterfactual goes with --scenes"):
        train_sae.run(args)


def test_a_damaged_record_is_told(tmp_path: Path, tiny_lvlm_folder: Path) -> None:
    assert train_sae.run(parsed(tmp_path, tiny_lvlm_folder, "--captions", "0")) == 0
    (tmp_path / "run" / "state.json").write_text("[")
    with pytest.raises(SAEError, match=r"state.json is damaged .*; start again without --resume"):
        train_sae.run(parsed(tmp_path, tiny_lvlm_folder, "--resume"))


def test_nothing_is_lost_by_accident(tmp_path: Path, tiny_lvlm_folder: Path) -> None:
    def checked(*more: str) -> str:
        """What is said against files; nothing where they will do."""
        try:
            train_sae.check_files(parsed(tmp_path, tiny_lvlm_folder, *more))
        except SAEError as error:
            return str(error)
        return ""

    out, state = tmp_path / "sae.safetensors", tmp_path / "run" / "state.pt"
    assert not checked()
    out.write_bytes(b"an SAE")
    assert "there is a file at" in checked() and not checked("--replace")
    state.parent.mkdir()
    state.write_bytes(b"progress")
    (tmp_path / "run" / "state.metrics.jsonl").write_text('{"step": 2}\n')
    assert "was not finished; go on with --resume" in checked("--replace")
    assert not checked("--replace", "--restart") and not checked("--replace", "--resume")
    assert "there is a file at" in checked("--resume"), "not what this run wrote"
    with (tmp_path / "run" / "state.metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 6, "final": true}\n')
    assert not checked("--resume") and not checked("--replace") and "there is a file" in checked()
    assert out.read_bytes() == b"an SAE" and state.read_bytes() == b"progress"


@contextmanager
def a_full_disk(room: int) -> Iterator[None]:
    """In its `with`, no file takes more bytes than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_keeps_what_was_there(tmp_path: Path, tiny_lvlm_folder: Path) -> None:
    args = parsed(tmp_path, tiny_lvlm_folder, "--captions", "0", "--workers", "0")
    with a_full_disk(20_000), pytest.raises(SAEError, match=r"cannot write the checkpoint .*state.pt"):
        train_sae.run(args)
    assert sorted(path.name for path in (tmp_path / "run").glob("*state.pt*")) == []
    sae = SAE(torch.zeros(32, 640), torch.zeros(640), torch.zeros(640, 32), torch.zeros(32), RELU)
    args.out.write_bytes(b"the one before")
    with a_full_disk(20_000), pytest.raises(SAEError, match=r"cannot write .*checkpoint .*with --resume"):
        train_sae.save(sae, args)
    assert args.out.read_bytes() == b"the one before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [args.out.name]


def test_a_process_that_has_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*values: object) -> None:
        raise RuntimeError("[/gloo/pair.cc:537] Connection closed by peer. Good luck!\nand much more")

    monkeypatch.setattr("accelerate.utils.reduce", gone)
    monkeypatch.setattr("accelerate.utils.gather", gone)
    team = Processes(0, 2)
    for ask in (team.total, team.mean, team.gathered):
        with pytest.raises(SAEError, match=r"another of the 2 .* \(Connection closed by peer\).*--resume"):
            ask(torch.zeros(1))


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train-sae", "--steps", "many", "--scenes", "5"])
    assert end.value.code == 2 and "no whole number" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["train-sae", "--scenes", "5"])
    assert end.value.code == 2 and "required: --out" in capsys.readouterr().err
