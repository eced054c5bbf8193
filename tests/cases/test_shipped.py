"""The shipped cases: they hold on the embedded model, agree with the shelf, and can be made again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.cases.case import ENDING, write
from explorer.cases.examples import example_keys, load_examples
from explorer.cases.recipes import load_recipes, made, unkept
from explorer.cases.replay import replay
from explorer.cases.shipped import load_shipped
from explorer.errors import CaseError, ExplorerError
from explorer.evals import cases as command
from explorer.session import Session

SHIPPED = load_shipped()
STORIES = {"phantom-fork", "missing-ball", "lone-sheep", "black-apple", "fading-camera", "dog-and-chair"}


def test_the_stories_are_there_in_the_shelf_s_order() -> None:
    assert set(SHIPPED) == STORIES | {"bird-alone"}
    keys = example_keys()
    assert list(SHIPPED) == [key for key in keys if key in SHIPPED]
    assert keys == list(load_examples())


@pytest.mark.parametrize("key", SHIPPED)
def test_shelf_and_case_agree(key: str) -> None:
    example, case = load_examples()[key], SHIPPED[key]
    assert (case.title, case.notes) == (example.title, example.story)
    assert np.array_equal(np.asarray(case.image()), np.asarray(example.image))
    assert 2 <= len(re.findall(r"[.?!](\s|$)", case.notes)) <= 4, "two or three sentences, or one more"


@pytest.mark.parametrize("key", SHIPPED)
def test_each_holds_and_does_what_its_story_says(session: Session, key: str) -> None:
    case = SHIPPED[key]
    now = replay(session, case)
    assert now.holds, now.differences
    assert unkept(load_recipes()[key], case) == []
    assert case.steered != case.baseline


def test_they_can_be_made_again(session: Session, tmp_path: Path) -> None:
    command.make(session, tmp_path)
    assert load_shipped(tmp_path) == SHIPPED


def test_a_recipe_that_breaks_its_promise_is_refused(session: Session) -> None:
    recipe = load_recipes()["phantom-fork"]
    for wrong in ({"loses": ("cake",)}, {"bench": "[]"}, {"gains": ("cat",)}):
        with pytest.raises(CaseError, match="the case phantom-fork"):
            made(session, load_examples()["phantom-fork"], replace(recipe, **wrong))


def test_the_command_says_which_hold(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "chosen", lambda *parts: session)
    good, bad = SHIPPED["lone-sheep"], replace(SHIPPED["phantom-fork"], baseline="A cat.")
    (tmp_path / f"lone-sheep{ENDING}").write_bytes(write(good))
    monkeypatch.setattr("sys.argv", ["cases", "--folder", str(tmp_path)])
    assert command.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["hold"], report["of"]) == (1, 1)
    (tmp_path / f"phantom-fork{ENDING}").write_bytes(write(bad))
    assert command.main() == 1
    shown = capsys.readouterr()
    told = {one["case"]: one for one in json.loads(shown.out)["cases"]}
    assert told["lone-sheep"]["holds"] and not told["phantom-fork"]["holds"]
    assert "The untouched answer differs." in told["phantom-fork"]["differences"]
    assert "DIFFERS phantom-fork" in shown.err


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / f"x{ENDING}").write_bytes(b"{")
    with pytest.raises(CaseError, match=r"x\.case\.json"):
        load_shipped(tmp_path)
    (tmp_path / "recipes.json").write_text('[{"key": 1}]')
    with pytest.raises(CaseError, match="recipes"):
        load_recipes(tmp_path / "recipes.json")
    with pytest.raises(ExplorerError, match="examples"):
        example_keys(tmp_path / "no.json")
