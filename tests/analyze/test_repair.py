"""Contrasts and repairs: cutting a word out, the odds where answers part, trials judged by their words."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_session import LinearSession
from PIL import Image

from explorer import Edit, Session
from explorer.analyze.attribution import attribute
from explorer.analyze.places import place_in
from explorer.analyze.pulls import trial_values
from explorer.analyze.repair import judged, repair, suspects, trials_of
from explorer.analyze.targets import target_in, without
from explorer.errors import EditError
from explorer.sae import SAE, ActivationRule
from explorer.vlm import open_lvlm
from explorer.world import draw

SAID = ("A", "cake", "dog", "cat")


@pytest.fixture
def toy() -> LinearSession:
    return LinearSession(said=SAID)


@pytest.mark.parametrize(
    ("answer", "word", "left"),
    [
        ("A table with a cake and a fork and knife.", "fork and knife", "A table with a cake."),
        (
            "A table with a cake, a fork and knife and an egg.",
            "fork and knife",
            "A table with a cake and an egg.",
        ),
        ("A room with a cat and a clock.", "cat", "A room with a clock."),
        ("A room with a cat, a dog and a clock.", "cat", "A room with a dog and a clock."),
        ("A room with a chair, a clock and a cat.", "cat", "A room with a chair and a clock."),
        ("A garden with a red bowl and a black bag.", "bowl", "A garden with a black bag."),
        ("A garden with a rose, a red bowl and a bag.", "bowl", "A garden with a rose and a bag."),
        ("A room with two cats.", "cats", "A room."),
        ("A cat and a dog.", "cat", "A dog."),
    ],
)
def test_a_word_is_cut_out_as_one_would(toy: LinearSession, answer: str, word: str, left: str) -> None:
    assert without(place_in(toy.lvlm, answer, word)) == left


def test_nothing_is_no_answer(toy: LinearSession) -> None:
    for answer in ("Yes.", "A dog"):
        with pytest.raises(EditError, match="nothing is left of"):
            without(place_in(toy.lvlm, answer, answer.split()[-1].strip(".")))


def test_answers_must_part(toy: LinearSession) -> None:
    target = target_in(toy, "A cake, dog.", "dog", instead="A cake, cat.")
    assert (target.at, target.place.word.text) == (2, "dog")
    for other in ("A cake, dog.", "A cake"):
        with pytest.raises(EditError, match="one begins the other"):
            target_in(toy, "A cake, dog.", "dog", instead=other)


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    draw = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(96, 32, generator=draw), dim=1)
    sae = SAE(rows.T, torch.zeros(96), rows, torch.zeros(32), ActivationRule("topk", k=6))
    return Session(open_lvlm(tiny_lvlm_folder), sae.eval().requires_grad_(False))


def test_a_contrast_is_the_log_odds_where_the_answers_part(session: Session) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (44, 70, 3), dtype=np.uint8)
    view = session.look(Image.fromarray(pixels))
    answer, instead = "the red dog beside a cake", "the red cat and a"
    tokens = [session.lvlm.answer_tokens(text)[2] for text in (answer, instead)]

    def odds(edits: tuple[Edit, ...]) -> float:
        likely = session.next_words([(view, edits)], "Describe the image.", "the red")[0, 2]
        return float(likely[tokens[0]] - likely[tokens[1]])

    found = attribute(session, view, "dog", None, answer, 8, -2.0, instead=instead, rank="size")
    assert found.score == pytest.approx(odds(()), abs=1e-4) and found.instead == instead
    for effect in found.ranked:
        edits = (Edit(effect.neuron, -2.0, "set", "active"),)
        assert effect.measured == pytest.approx(odds(()) - odds(edits), abs=1e-3)
        slopes = [odds((Edit(effect.neuron, 1 + step, "scale", "active"),)) for step in (0.01, -0.01)]
        assert effect.estimate == pytest.approx((slopes[0] - slopes[1]) / 0.02, rel=0.05, abs=5e-3)


def test_trials_are_judged_by_their_words(toy: LinearSession) -> None:
    wished = "A room with a dog and two red lamps."
    for after, gone, lost, added in (
        ("A room with a dog and two red lamps.", True, [], []),
        ("A room with two cats, a dog and a red lamp.", False, ["two", "lamps"], ["two", "lamp"]),
        ("A room with a dog, a dog and two lamps", True, ["red"], ["dog"]),
        ("", True, ["room", "dog", "two", "red", "lamps"], []),
    ):
        found = judged(toy, "cat", wished, after)
        assert found.gone == gone
        known = sorted(set(lost) - set(added)), sorted(set(added) - set(lost))
        assert (sorted(found.lost), sorted(found.added)) == known
    best, worse, worst = (judged(toy, "cat", wished, text).cost for text in (wished, "x", "A cat."))
    assert best < worse < worst


def test_repairs_try_what_the_suspects_say_and_put_the_best_first(toy: LinearSession) -> None:
    found = repair(toy, toy.view, "dog", measure=6, neurons=2, batch=5)
    assert (found.answer, found.instead, found.complete) == ("A cake, dog, cat.", "A cake, cat.", True)
    known = suspects(toy, toy.view, "dog", "Describe.", found.answer, found.instead, measure=6)
    wanted = trials_of(known, trial_values(toy.view), 2)
    told = {tuple((e.neuron, e.value, e.patches) for e in edits) for edits in wanted}
    tried = [tuple((e.neuron, e.value, e.patches) for e in one.edits) for one in found.tried]
    assert set(tried) == told and len(tried) == len(told)
    assert {len(edits) for edits in tried} == {1, 2, 3}
    assert not any(value == 0 and where is None for edits in tried for _, value, where in edits)
    for one in found.tried:
        assert one.answer == toy.answer(toy.view, edits=one.edits) and one.gone == ("dog" not in one.answer)
    costs = [one.cost for one in found.tried]
    assert costs == sorted(costs) and found.tried[0].gone
    other = repair(toy, toy.view, "dog", instead="A table.", measure=6, neurons=2)
    assert other.instead == "A table." and all("table" in one.lost for one in other.tried)
    assert other.tried[0].cost == min(
        judged(toy, "dog", "A table.", o.answer, o.edits).cost for o in other.tried
    )


def test_the_last_word_of_an_answer_without_a_full_stop_is_repaired(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As captions of some models end, and answers that were cut: without the word it is but a beginning."""
    pixels = np.random.default_rng(0).integers(0, 256, (44, 70, 3), dtype=np.uint8)
    view = session.look(Image.fromarray(pixels))
    monkeypatch.setattr(session, "answer", lambda *asked, **how: "the cat with a red dog")
    found = repair(session, view, "dog", neurons=1, measure=2, max_new_tokens=3)
    assert found.instead == "the cat" and found.tried and found.complete
    with pytest.raises(EditError, match="one begins the other"):
        repair(session, view, "dog", instead="the cat", neurons=1, measure=2, max_new_tokens=3)


def test_repairs_can_be_watched_and_stopped_and_refuse_nonsense(toy: LinearSession) -> None:
    heard: list[tuple[int, int]] = []
    whole = repair(toy, toy.view, "dog", measure=4, batch=7, progress=lambda *seen: heard.append(seen))
    assert heard[-1] == (len(whole.tried), len(whole.tried)) and heard[0] == (7, len(whole.tried))
    cancel = threading.Event()
    part = repair(toy, toy.view, "dog", measure=4, batch=7, progress=lambda *_: cancel.set(), cancel=cancel)
    assert len(part.tried) == 7 and not part.complete
    assert repair(toy, toy.view, "dog", cancel=cancel).tried == ()
    for wrong, words in (
        ({"values": ()}, "finite numbers"),
        ({"values": (float("nan"),)}, "finite numbers"),
        ({"neurons": 0}, "1 or more"),
        ({"word": "tree"}, "does not say 'tree'; it has 'A', 'cake', 'dog', 'cat'"),
    ):
        with pytest.raises(EditError, match=words):
            repair(toy, toy.view, **{"word": "dog", **wrong})


def test_the_phantom_fork_of_the_embedded_model_is_repaired() -> None:
    session = Session.open()
    view = session.look(draw(0, "counterfactual").image)
    found = repair(session, view, "fork and knife", neurons=2, measure=12, max_new_tokens=24)
    assert found.answer == "A dining table with a cake and a fork and knife."
    best = found.tried[0]
    assert best.answer == found.instead == "A dining table with a cake." and len(best.edits) == 1
    assert session.answer(view, edits=best.edits) == best.answer
