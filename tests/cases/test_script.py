"""The exported script runs by itself and prints the answers of its case."""

from __future__ import annotations

import ast
import io
import os
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.cases import rows
from explorer.cases import settings as how
from explorer.cases.case import Case
from explorer.cases.replay import captured, mask_of
from explorer.cases.rows import Row
from explorer.cases.script import bundle, script, slug, spans
from explorer.cases.settings import Settings
from explorer.cases.shipped import load_shipped
from explorer.records import Cell
from explorer.session import Session
from explorer.world import draw
from tests.cases.case_maker import CASES, CELLS, FULL

ROOT = Path(__file__).parents[2]
PLACE = (*(Cell(r, c) for r in range(2, 7) for c in (4, 5, 6, 8)), Cell(12, 0))
MARKED = [Row(n, "dog", 0.0, 50.0, region="marked", patches=PLACE) for n in (104, 126, 34)]
SEEN = [Row(65, "cake", 2.0, -30.0, region="seen", patches=PLACE, concept="cake"), Row(24, "", 0.0, 2.0)]
MIXED = [Row(191, "a", 2.0, -8.5, "add", "active"), Row(35, "b", 1.0, 0.5, "scale", "all")]
SETUPS = {
    "nothing": ([], Settings()),
    "marked": (MARKED, Settings()),
    "mixed": ([*MIXED, Row(7, "muted", 1.0, 900.0, muted=True)], Settings(max_new_tokens=12)),
    "cns": ([], Settings(cns=True, suppress_always_on=False, step=300, strength=0.5, noise_seed=2)),
    "vcd": (MIXED, Settings(method="vcd", alpha=0.5, noise_seed=4)),
    "sampling": (MARKED, Settings(temperature=1.1, top_k=30, top_p=0.9, seed=5)),
    "all": (MIXED, Settings(replace=True, cns=True, suppress_always_on=False, clamp=True, method="icd")),
}


def made(session: Session, name: str, question: str = "Describe the image.") -> Case:
    bench, asked = SETUPS[name]
    view = session.look(draw(26, "counterfactual", size=448).image)
    said = session.answer(view, question, max_new_tokens=asked.max_new_tokens)
    return captured(session, view, f"Case {name}", "", question, rows.dump(bench), how.dump(asked), said)


def unpacked(case: Case, folder: Path) -> Path:
    """The script, beside its picture."""
    with zipfile.ZipFile(io.BytesIO(bundle(case))) as archive:
        archive.extractall(folder)
    name = slug(case.title)
    return folder / name / f"{name}.py"


def expected(case: Case) -> list[str]:
    return [case.baseline] if case.steered is None else [case.baseline, case.steered]


@pytest.mark.parametrize("name", SETUPS)
def test_the_script_prints_the_same_answers(
    session: Session,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = made(session, name)
    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setattr(Session, "open", lambda *parts: session)
    runpy.run_path(str(unpacked(case, tmp_path)), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == expected(case)
    assert (case.steered is None) == (name == "nothing")


def test_where_something_was_seen_goes_into_the_script(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = session.look(draw(26, "counterfactual", size=448).image)
    monkeypatch.setattr(Session, "where", lambda self, view, concept: mask_of(PLACE, view.grid))
    asked = "What is in the image?"
    bench = rows.dump(SEEN)
    case = captured(session, shown, "Seen", "", asked, bench, "", session.answer(shown, asked))
    monkeypatch.delattr(Session, "where")
    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setattr(Session, "open", lambda *parts: session)
    runpy.run_path(str(unpacked(case, tmp_path)), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == expected(case)


def test_it_runs_on_its_own_with_a_picture_from_elsewhere(tmp_path: Path) -> None:
    case = load_shipped()["bird-alone"]
    path = unpacked(case, tmp_path)
    picture = path.with_suffix(".png").rename(tmp_path / "elsewhere.png")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path), str(picture)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected(case)


def test_it_says_only_what_is_asked() -> None:
    plain = script(replace(FULL, rows=(), settings=Settings(), steered=None))
    assert plain.count("print(") == 1 and "Edit" not in plain and "numpy" not in plain
    told = script(FULL)
    assert 'patches("3:4-5,9 13:0")' in told and 'patches("0:0 1:1")' in told
    assert "Contrast(step=300, strength=0.5, suppress_always_on=False)" in told
    assert "Edit(5," not in told, "a row at rest is no edit"
    assert max(map(len, told.splitlines())) <= 110
    assert "decoding" not in script(replace(FULL, settings=Settings(step=300))), "greedy is the default"


@settings(max_examples=80, deadline=None)
@given(CASES)
def test_any_case_gives_a_script_that_is_python(case: Case) -> None:
    tree = ast.parse(script(case))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert case.question in strings
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    edits = [call for call in calls if getattr(call.func, "id", "") == "Edit"]
    moved = [row for row in case.rows if row.value is not None and not row.muted]
    assert len(edits) == (len(moved) if case.steered is not None else 0)
    assert len([call for call in calls if getattr(call.func, "id", "") == "print"]) <= 2


@given(CELLS)
def test_spans_are_the_patches(cells: tuple[Cell, ...]) -> None:
    found = set()
    for row, columns in (part.split(":") for part in spans(cells).split()):
        for first, _, last in (span.partition("-") for span in columns.split(",")):
            found |= {Cell(int(row), col) for col in range(int(first), int(last or first) + 1)}
    assert found == set(cells)


@given(st.text(max_size=80))
def test_a_title_gives_a_safe_name(title: str) -> None:
    assert set(slug(title)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and 0 < len(slug(title)) <= 40
