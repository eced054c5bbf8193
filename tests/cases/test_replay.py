"""Cases made from a session, replayed on it and on others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.cases import rows
from explorer.cases import settings as how
from explorer.cases.case import Case, read, write
from explorer.cases.replay import captured, foreign, opened_rows, replay, steered_answer
from explorer.cases.rows import Row
from explorer.cases.settings import Settings
from explorer.errors import CaseError, ExplorerError, StoreError
from explorer.records import Cell
from explorer.sae import SAE, ActivationRule
from explorer.session import Session, View
from explorer.vlm import open_lvlm
from explorer.world import draw

FORK = "and a fork and knife"


@pytest.fixture(scope="module")
def view(session: Session) -> View:
    return session.look(draw(0, "counterfactual", size=448).image)


@pytest.fixture(scope="module")
def case(session: Session, view: View) -> Case:
    bench = rows.dump([Row(191, "pizza", 2.0, -30.0)])
    said = session.answer(view)
    return captured(session, view, "Fork", "", session.lvlm.default_prompt, bench, "", said)


@pytest.fixture(scope="module")
def other(tiny_lvlm_folder: Path) -> Session:
    """Another model with an SAE of its own."""
    directions = torch.nn.functional.normalize(torch.randn(96, 32), dim=1)
    rule = ActivationRule("topk", k=6)
    sae = SAE(directions.T, torch.zeros(96), directions, torch.zeros(32), rule).eval().requires_grad_(False)
    return Session(open_lvlm(tiny_lvlm_folder), sae)


def test_a_replay_sees_the_same_activations(session: Session, view: View, case: Case) -> None:
    again = session.look(read(write(case)).image())
    assert torch.equal(again.hidden, view.hidden)
    assert all(torch.equal(a, b) for a, b in zip(again.codes, view.codes, strict=True))


def test_a_case_holds_where_it_was_made(session: Session, case: Case) -> None:
    assert FORK in case.baseline and FORK not in (case.steered or FORK)
    now = replay(session, read(write(case)))
    assert now.holds and now.same_model and now.same_sae and not now.differences
    assert (now.baseline, now.steered) == (case.baseline, case.steered)


def test_changed_answers_are_told(session: Session, view: View, case: Case) -> None:
    now = replay(session, replace(case, baseline="A cat."), view)
    assert not now.holds and now.differences == ("The untouched answer differs.",)
    now = replay(session, replace(case, steered="A cat."), view)
    assert now.differences == ("The steered answer differs.",)
    now = replay(session, replace(case, rows=()), view)
    assert now.differences == ("The steered answer differs.",) and now.steered == case.baseline


def test_a_case_without_steering_holds_too(session: Session, view: View) -> None:
    bench = rows.dump([Row(191, "rests", 2.0), Row(24, "muted", 1.0, 5.0, muted=True)])
    said = session.answer(view, "How many cakes are there?")
    case = captured(session, view, "Count", "", "How many cakes are there?", bench, "", said)
    assert case.steered is None and replay(session, case, view).holds


@pytest.mark.parametrize(
    "asked",
    [
        Settings(cns=True, suppress_always_on=False, step=400, noise_seed=3),
        Settings(method="vcd", noise_seed=2),
        Settings(temperature=1.2, seed=11),
        Settings(replace=True, max_new_tokens=5),
    ],
    ids=["cns", "vcd", "sampling", "reconstruction"],
)
def test_settings_and_seeds_belong_to_a_case(session: Session, view: View, asked: Settings) -> None:
    prompt = session.lvlm.default_prompt
    said = session.answer(view, prompt, max_new_tokens=asked.max_new_tokens)
    case = captured(session, view, "Seeds", "", prompt, "[]", how.dump(asked), said)
    assert case.steered == session.answer(view, prompt, **asked.options())
    assert replay(session, read(write(case))).holds


def test_marked_patches_survive(session: Session, view: View) -> None:
    cells = tuple(Cell(r, c) for r in range(5, 9) for c in range(4, 9))
    bench = rows.dump([Row(191, "", 2.0, -60.0, "add", "marked", cells)])
    case = captured(session, view, "Marked", "", session.lvlm.default_prompt, bench, "", session.answer(view))
    again = read(write(case))
    assert again.rows[0].patches == cells and replay(session, again).holds


def test_where_a_concept_was_seen_survives_without_the_store(
    session: Session, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = np.zeros((view.grid.rows, view.grid.cols), np.bool_)
    seen[4:10, 1:8] = True
    monkeypatch.setattr(session, "where", lambda view, concept: seen)
    cake = [Row(n, "cake", 2.0, -30.0, region="seen", concept="cake") for n in (65, 412, 155)]
    bench = rows.dump(cake)
    case = captured(session, view, "Seen", "", session.lvlm.default_prompt, bench, "", session.answer(view))
    assert len(case.rows[0].patches) == 42 and case.steered != case.baseline
    assert opened_rows(session, view, case)[0].region == "seen", "this store sees it there too"

    def unseen(view: View, concept: str) -> np.ndarray:
        raise StoreError("no store")

    monkeypatch.setattr(session, "where", unseen)
    assert replay(session, read(write(case))).holds
    assert opened_rows(session, view, case)[0].region == "marked"
    monkeypatch.setattr(session, "where", lambda view, concept: ~seen)
    opened = opened_rows(session, view, case)[0]
    assert (opened.region, opened.patches) == ("marked", case.rows[0].patches)
    nowhere = replace(case, rows=(replace(case.rows[0], patches=()),))
    assert opened_rows(session, view, nowhere)[0].value is None, "what acted nowhere acts nowhere"
    assert steered_answer(session, view, nowhere) == case.baseline


def test_another_model_is_told_and_asked_all_the_same(other: Session, case: Case) -> None:
    now = replay(other, case)
    assert not (now.same_model or now.same_sae or now.holds)
    assert "this page runs" in now.differences[0] and "bench is left out" in now.differences[1]
    view = other.look(case.image())
    assert now.baseline == other.answer(view, case.question)
    assert now.steered == now.baseline, "its bench means nothing here"
    assert opened_rows(other, view, case) == ()
    assert foreign(other, case) == now.differences[:2]


def test_another_sae_keeps_the_model_and_drops_the_bench(session: Session, view: View, case: Case) -> None:
    strange = replace(case, identity=replace(case.identity, sae="another"))
    now = replay(session, strange, view)
    assert (now.same_model, now.same_sae) == (True, False)
    assert now.differences == (
        "Its neurons are those of another SAE, so its bench is left out.",
        "The steered answer differs.",
    )
    assert foreign(session, replace(strange, rows=())) == ("It was made beside another SAE.",)


@pytest.mark.parametrize("lie", [{"neurons": 9999}, {"rows": 100, "cols": 100}])
def test_a_file_that_lies_about_its_numbers_does_no_harm(session: Session, case: Case, lie: dict) -> None:
    wrong = Row(9998, "", 0.0, 5.0) if "neurons" in lie else Row(1, "", 0.0, 5.0, region="marked")
    wrong = replace(wrong, patches=(Cell(99, 99),)) if "rows" in lie else wrong
    strange = read(write(replace(case, identity=replace(case.identity, **lie), rows=(wrong,))))
    now = replay(session, strange)
    assert not now.same_sae and not now.holds
    assert opened_rows(session, session.look(strange.image()), strange) == ()


def test_what_cannot_be_steered_here_is_a_difference(session: Session, view: View, case: Case) -> None:
    needs_store = replace(case, settings=Settings(cns=True))
    now = replay(session, needs_store, view)
    assert now.steered is None and "cannot be made here" in now.differences[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"title": " "}, "title"),
        ({"notes": "x" * 3000}, "notes"),
        ({"bench": "{"}, "bench"),
        ({"bench": json.dumps([{"neuron": 99999}])}, "99999"),
        ({"how": '{"step": -1}'}, "step"),
        ({"question": ""}, "question"),
        ({"baseline": "x" * 9000}, "answer"),
    ],
)
def test_a_workspace_that_fits_no_case_is_refused(
    session: Session, view: View, changed: dict, words: str
) -> None:
    given = {"title": "T", "notes": "", "question": "Q?", "bench": "[]", "how": "", "baseline": "A."}
    with pytest.raises((CaseError, ExplorerError), match=words):
        captured(session, view, **{**given, **changed})
