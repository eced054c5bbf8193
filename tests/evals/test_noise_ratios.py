"""The command that measures change ratios over the steps of noise, on a session without a model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from explorer.analyze.changes import CLASSES
from explorer.analyze.noise import noise_curve
from explorer.errors import ExplorerError
from explorer.evals import noise
from explorer.evals.noise import NoiseConfig, rows_of, run, table
from explorer.sae import SparseCodes

NEURONS, PATCHES, ALWAYS = 50, 6, (1, 2)


def codes(seed: int, step: int = 0) -> SparseCodes:
    """Activations whose always-on neurons never move, and whose others are drawn anew by noise."""
    dice = np.random.default_rng([seed, step])
    z = dice.uniform(0.1, 3, (PATCHES, NEURONS)) * (dice.random((PATCHES, NEURONS)) < 0.4)
    z[:, list(ALWAYS)] = 9.0
    token, neuron = z.nonzero()
    return SparseCodes(
        torch.from_numpy(token), torch.from_numpy(neuron), torch.from_numpy(z[token, neuron]).float()
    )


class FakeSession:
    """Pictures are seeds; at step 0 the noise does nothing."""

    def __init__(self) -> None:
        self.looked, self.drawn = 0, []

    def always_on(self, share: float) -> tuple[int, ...]:
        return ALWAYS if share == 0.5 else ()

    def look(self, image: object) -> SimpleNamespace:
        self.looked += 1
        return SimpleNamespace(
            seed=self.looked, codes=codes(self.looked), grid=SimpleNamespace(rows=2, cols=3)
        )

    def noisy_many(self, view: SimpleNamespace, draws: list[tuple[int, int]]) -> list[SimpleNamespace]:
        self.drawn.append(draws)
        return [SimpleNamespace(codes=codes(view.seed, step and step + seed)) for step, seed in draws]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    fake = FakeSession()
    monkeypatch.setattr(noise.Session, "chosen", lambda *parts: fake)
    return fake


CONFIG = NoiseConfig(scenes=3, steps=(0, 500), draws=2, k=10, min_frequency=0.5)


def test_the_report_is_the_curve_of_unseen_scenes(session: FakeSession) -> None:
    report = run(CONFIG)
    assert report.always_on == ALWAYS and session.looked == 3
    assert session.drawn == [[(0, 0), (0, 1), (500, 0), (500, 1)]] * 3
    again = FakeSession()
    curve = noise_curve(again, [again.look(None) for _ in range(3)], (0, 500), (0, 1), k=10, always_on=ALWAYS)
    assert [row.step for row in report.rows] == [0, 500] and report.rows == rows_of(curve)
    still, moved = report.rows
    for level in ("image", "patch"):
        for c, name in enumerate(CLASSES):
            figure = getattr(moved, level)[name]
            assert getattr(still, level)[name] == (0, 0, 0)
            assert figure.value == getattr(curve.mean, level)[1, c]
            assert figure.low == getattr(curve.low, level)[1, c] <= figure.value <= figure.high
        assert getattr(moved, level)["always_on"].value == 0 < getattr(moved, level)["image_specific"].value
    assert moved.kept["always_on"].value == pytest.approx(1)


def test_the_table_has_a_line_for_every_step_and_leaves_empty_classes_empty(session: FakeSession) -> None:
    lines = table(run(CONFIG)).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| 0 | 0.00 ±0.00 | 0.00 ±0.00 |")
    nobody = table(run(NoiseConfig(scenes=1, steps=(500,), draws=1, k=10))).splitlines()
    assert nobody[2].split(" | ")[2] == "" and "±" not in nobody[2]


def test_the_command_writes_its_report(
    session: FakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "noise.json"
    words = f"x --scenes 1 --draws 1 --steps 0 700 --min-frequency 0.5 --k 5 --out {out}"
    monkeypatch.setattr("sys.argv", words.split())
    assert noise.main() == 0
    report, shown = json.loads(out.read_text()), capsys.readouterr()
    assert json.loads(shown.out) == report and shown.err.startswith("| t | image all |")
    assert report["config"]["steps"] == [0, 700] and report["rows"][1]["step"] == 700
    assert report["rows"][0]["image"]["all"] == {"value": 0.0, "low": None, "high": None}
    monkeypatch.setattr("sys.argv", "x --scenes 1 --steps 1000".split())
    assert noise.main() == 2 and "not 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scenes": 0}, "both must be 1 or more"),
        ({"draws": 0}, "both must be 1 or more"),
        ({"k": 0}, "k 0: give 0 or more, 1 or more"),
        ({"first_seed": -1}, "first_seed -1"),
        ({"min_frequency": float("nan")}, "min_frequency is a share above 0 up to 1, not nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        NoiseConfig(**wrong)
