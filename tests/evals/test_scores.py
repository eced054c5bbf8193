"""Scores against counting by hand, and the bootstrap against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from explorer.evals import scores
from explorer.evals.scores import (
    Tally,
    difference,
    differences,
    interval,
    intervals,
    object_hallucination,
    tally,
    yes_no,
    yes_or_no,
)

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Yes.", True),
        ("yes", True),
        ("YES, there is a cat.", True),
        ("No.", False),
        ("NO", False),
        ("\nNo, there is none.", False),
        ("There isn't a fork.", False),
        ("There isn’t a fork.", False),
        ("There is not.", False),
        ("I cannot see one.", False),
        ("Yes. But it is not red.", True),
        ("Yes, no.", False),
        ("I know nothing", None),
        ("noticeable", None),
        ("A kitchen with a cake.", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_what_an_answer_says(answer: str, says: bool | None) -> None:
    assert yes_or_no(answer) is says


def test_a_tally_sums_by_scene() -> None:
    found = tally(["b", "a", "b", "c"], [1, 2, 3, 4], [1, 1, 1, 0])
    assert found.parts.tolist() == [4, 2, 4] and found.wholes.tolist() == [2, 1, 0]
    assert found.score == pytest.approx(10 / 3)
    assert math.isnan(tally(["a"], [0], [0]).score) and math.isnan(tally([], [], []).score)


def naive_yes_no(truths: list[bool], answers: list[bool | None]) -> dict[str, float]:
    pairs = list(zip(truths, answers, strict=True))
    tp = sum(t and a is True for t, a in pairs)
    fp = sum((not t) and a is True for t, a in pairs)
    precision, recall = tp / (tp + fp), tp / sum(truths)
    return {
        "accuracy": sum(t == a for t, a in pairs if a is not None) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": (tp + fp) / len(pairs),
        "unclear": sum(a is None for _, a in pairs) / len(pairs),
    }


def test_yes_no_scores_are_those_of_counting() -> None:
    for _ in range(20):
        truths = [True, *(RNG.random(30) < 0.5)]
        answers = [True, *(None if r < 0.1 else bool(r < 0.5) for r in RNG.random(30))]
        scenes = RNG.integers(0, 8, 31).tolist()
        found = {name: score.score for name, score in yes_no(scenes, truths, answers).items()}
        assert found == pytest.approx(naive_yes_no(truths, answers))


def test_an_answer_that_says_neither_is_wrong_and_no_yes() -> None:
    found = {k: v.score for k, v in yes_no([0, 1], [True, False], [None, None]).items()}
    assert found["accuracy"] == 0 and found["unclear"] == 1 and found["recall"] == 0
    assert math.isnan(found["precision"]) and found["f1"] == 0


def test_hallucinated_objects_are_counted_once_per_caption() -> None:
    named = [("cake", "fork", "fork", "cup"), ("cat",), (), ("dog", "cup")]
    there = [("cake", "cup", "table"), ("cat", "dog"), ("tree",), ("cat",)]
    found = object_hallucination([1, 1, 2, 3], named, there)
    assert found["chair_i"].score == pytest.approx(3 / 6)  # fork, dog and cup are not there
    assert found["chair_s"].score == pytest.approx(2 / 4)
    assert found["recall"].score == pytest.approx(3 / 7)
    assert found["length"].score == pytest.approx(6 / 4)
    assert [len(score.parts) for score in found.values()] == [3] * 4
    clear = [("cake",), ("cat",), (), ()]
    assert object_hallucination([1, 1, 2, 3], named, there, clear)["recall"].score == 1.0
    nothing = object_hallucination([1], [()], [("cat",)])
    assert math.isnan(nothing["chair_i"].score) and nothing["chair_s"].score == 0


def naive_interval(score: Tally, resamples: int, seed: int, against: Tally | None = None) -> list[float]:
    """Percentiles from one drawn set of scenes after another."""
    size, rng, drawn = len(score.parts), np.random.default_rng(seed), []
    for _ in range(resamples):
        times = rng.multinomial(size, [1 / size] * size)
        chosen = np.repeat(np.arange(size), times)
        value = score.parts[chosen].sum() / score.wholes[chosen].sum()
        if against is not None:
            value -= against.parts[chosen].sum() / against.wholes[chosen].sum()
        drawn.append(value)
    return [float(np.quantile(drawn, q)) for q in (0.025, 0.975)]


def made(size: int, shift: float = 0.0) -> Tally:
    wholes = RNG.integers(1, 5, size)
    return Tally(RNG.binomial(wholes, 0.4 + shift).astype(float), wholes.astype(float))


def test_intervals_are_those_of_a_plain_loop() -> None:
    score, against = made(40), made(40, 0.3)
    found = interval(score, resamples=300, seed=7)
    assert found.value == score.score
    assert [found.low, found.high] == pytest.approx(naive_interval(score, 300, 7))
    apart = difference(score, against, resamples=300, seed=7)
    assert apart.value == pytest.approx(score.score - against.score)
    assert [apart.low, apart.high] == pytest.approx(naive_interval(score, 300, 7, against))
    assert apart.high < 0 and interval(score, seed=1) == interval(score, seed=1) != interval(score, seed=2)
    assert intervals({"a": score}, seed=3) == {"a": interval(score, seed=3)}
    assert differences({"a": score}, {"a": against, "b": score}) == {"a": difference(score, against)}


def test_many_scenes_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    score = made(40)
    whole = interval(score, resamples=300, seed=7)
    monkeypatch.setattr(scores, "_CHUNK", 40 * 70)
    assert interval(score, resamples=300, seed=7) == pytest.approx(whole)


def test_a_pairing_narrows_the_interval_of_a_difference() -> None:
    base = made(60)
    better = Tally(base.parts + 0.1 * base.wholes, base.wholes)
    apart = difference(better, base)
    assert apart.low == pytest.approx(0.1) == pytest.approx(apart.high)
    narrow = interval(base, level=0.5)
    wide = interval(base)
    assert wide.low < narrow.low < base.score < narrow.high < wide.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for i in range(200):
        score = Tally(RNG.binomial(3, 0.4, 80).astype(float), np.full(80, 3.0))
        found = interval(score, resamples=300, seed=i)
        covered += found.low <= 0.4 <= found.high
    assert 180 <= covered <= 199


def test_an_undefined_score_has_an_undefined_interval() -> None:
    empty = Tally(np.zeros(4), np.zeros(4))
    assert all(math.isnan(part) for part in interval(empty))
    assert all(math.isnan(part) for part in interval(Tally(np.zeros(0), np.zeros(0))))
    one = Tally(np.array([1.0, 0.0]), np.array([1.0, 0.0]))  # half of the resamples draw only the other scene
    assert interval(one) == (1.0, 1.0, 1.0)
