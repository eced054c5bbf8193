"""A config as a command line, and reports as JSON."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest

from explorer.errors import ExplorerError
from explorer.evals.command import add_options, field_docstrings, plain, run_command

Kind = Literal["greedy", "sampling"]


@dataclass(frozen=True)
class Config:
    """What the tests ask for."""

    scenes: int
    """how many scenes,
    100 % of them unseen"""
    rate: float = 0.5
    """a share"""
    name: str = "abc"
    model: str | None = None
    """folder"""
    fast: bool = True
    kind: Kind = "greedy"
    steps: tuple[int, ...] = (1, 2)
    kinds: tuple[Kind, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    first_seed: int = 3
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.scenes < 1:
            raise ExplorerError(f"{self.scenes} scenes\nare too few")


def parsed(line: str) -> Config:
    parser = argparse.ArgumentParser()
    add_options(parser, Config)
    return Config(**vars(parser.parse_args(line.split())))


def test_without_words_the_defaults_hold() -> None:
    assert parsed("--scenes 4") == Config(4)


def test_every_field_can_be_given() -> None:
    line = (
        "--scenes 7 --rate .25 --name x --model m --no-fast --kind sampling --steps 5 "
        "--kinds sampling greedy --pair -1 2.5 --first-seed 9 --out o.json"
    )
    expected = Config(
        7, 0.25, "x", "m", False, "sampling", (5,), ("sampling", "greedy"), (-1.0, 2.5), 9, Path("o.json")
    )
    assert parsed(line) == expected
    assert all(getattr(expected, f.name) != f.default for f in fields(Config))  # each one was changed


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--scenes x",
        "--scenes 1 --kind other",
        "--scenes 1 --kinds greedy other",
        "--scenes 1 --pair 1",
        "--scenes 1 --steps",
        "--scenes 1 --nonsense 3",
    ],
)
def test_wrong_words_end_with_status_2(line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(line)
    assert ended.value.code == 2


def test_help_is_the_docstring_under_the_field_and_the_default() -> None:
    told = field_docstrings(Config)
    assert told == {
        "scenes": "how many scenes, 100 % of them unseen",
        "rate": "a share",
        "model": "folder",
    }
    parser = argparse.ArgumentParser()
    add_options(parser, Config, {"rate": "another text"})
    words = " ".join(parser.format_help().split())
    for part in (
        "how many scenes, 100 % of them unseen",
        "another text (default: 0.5)",
        "(default: 1 2)",
        "--no-fast",
        "{greedy,sampling}",
    ):
        assert part in words
    assert "a share" not in words and "default: None" not in words


def test_an_inherited_field_keeps_its_docstring() -> None:
    @dataclass(frozen=True)
    class Child(Config):
        more: int = 1
        """further"""

    assert field_docstrings(Child) == {**field_docstrings(Config), "more": "further"}


def test_a_type_without_an_option_is_a_programmers_mistake() -> None:
    @dataclass(frozen=True)
    class Odd:
        """No option can be made of it."""

        what: dict | None = None

    with pytest.raises(TypeError, match="'what'"):
        add_options(argparse.ArgumentParser(), Odd)


class Record(NamedTuple):
    """A part of a report."""

    value: float
    low: float


def test_plain_makes_json_of_records() -> None:
    report = {
        "config": Config(2, out=Path("x")),
        "interval": Record(0.5, float("nan")),
        3: [np.float32(0.5), np.arange(2), np.bool_(True), (1, None)],
    }
    found = json.loads(json.dumps(plain(report), allow_nan=False))
    assert found["interval"] == {"value": 0.5, "low": None}
    assert found["3"] == [0.5, [0, 1], True, [1, None]]
    assert found["config"]["out"] == "x" and found["config"]["pair"] == [0.0, 1.0]
    with pytest.raises(TypeError, match="Event"):
        plain({"a": type("Event", (), {})()})


def test_a_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    asked = f"--scenes 3 --out {out}".split()
    assert run_command(Config, lambda config: {"seen": config.scenes}, "measure", "text", asked) == 0
    assert json.loads(out.read_text()) == {"seen": 3} == json.loads(capsys.readouterr().out)


def test_a_users_mistake_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[Config] = []

    def refuse(config: Config) -> None:
        ran.append(config)
        raise ExplorerError("there is no neuron 9:\n  this SAE has 4")

    for line, words in (
        ("--scenes 0", "measure: error: 0 scenes are too few\n"),
        ("--scenes 1", "measure: error: there is no neuron 9: this SAE has 4\n"),
        (f"--scenes 1 --out {tmp_path}/none/x.json", f"there is no folder {tmp_path}/none; make it first\n"),
        (f"--scenes 1 --out {tmp_path}", "is a folder; give a file\n"),
    ):
        assert run_command(Config, refuse, "measure", argv=line.split()) == 2
        printed = capsys.readouterr()
        assert printed.err.endswith(words) and printed.err.count("\n") == 1 and not printed.out
    assert len(ran) == 1  # a report without a place is refused before anything is measured


def test_ctrl_c_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(config: Config) -> None:
        raise KeyboardInterrupt

    assert run_command(Config, stop, "measure", argv=["--scenes", "1"]) == 130
    assert capsys.readouterr().err == "measure: stopped\n"
