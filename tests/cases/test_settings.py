"""The settings: what a browser may send, and which options come of it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.cases import settings
from explorer.cases.settings import Settings
from explorer.errors import ExplorerError
from explorer.steer import Contrast, Decoding


def test_the_default_asks_for_nothing() -> None:
    plain = Settings()
    assert not plain.changes and plain.contrast() is None and plain.decoding() == Decoding()
    assert settings.parse("") == settings.parse(None) == settings.parse("{}") == plain
    assert settings.in_words(plain) == ()


def test_settings_survive_the_way_to_the_browser_and_back() -> None:
    asked = Settings(cns=True, step=300, strength=0.5, method="icd", alpha=2.0, temperature=0.7, seed=4)
    assert settings.parse(settings.dump(asked)) == asked


def test_options_of_an_answer() -> None:
    asked = Settings(
        replace=True,
        cns=True,
        step=300,
        strength=0.5,
        noise_seed=7,
        suppress_always_on=False,
        clamp=True,
        method="vcd",
        alpha=0.5,
        temperature=0.7,
        top_k=5,
        top_p=0.9,
        seed=3,
        max_new_tokens=20,
    )
    options = asked.options()
    assert options["contrast"] == Contrast(300, 0.5, seed=7, suppress_always_on=False, clamp=True)
    decoding = options["decoding"]
    assert decoding is not None and decoding.needs_noisy
    assert (decoding.step, decoding.noise_seed, decoding.strength) == (300, 7, 0.5)
    assert (decoding.temperature, decoding.top_k, decoding.top_p, decoding.seed) == (0.7, 5, 0.9, 3)
    assert options["replace"] is True and options["max_new_tokens"] == 20
    assert asked.plain() == Settings(max_new_tokens=20)


@pytest.mark.parametrize(
    "asked", [Settings(cns=True), Settings(method="pai"), Settings(temperature=0.1), Settings(replace=True)]
)
def test_what_changes_an_answer_without_a_neuron(asked: Settings) -> None:
    assert asked.changes and settings.in_words(asked)


def test_settings_in_words() -> None:
    asked = Settings(cns=True, step=300, strength=0.5, noise_seed=2, clamp=True, replace=True)
    contrast, fed = settings.in_words(asked)
    assert contrast == "CNS, t = 300, λ = 0.5, always-on neurons left alone, no activation crosses 0, noise 2"
    assert "reconstruction" in fed
    decoded, drawn = settings.in_words(Settings(method="vcd", alpha=1.5, temperature=0.7, top_p=0.9, top_k=8))
    assert decoded == "decoding by VCD, α = 1.5, t = 500"
    assert drawn == "drawn at temperature 0.7, top-p 0.9, top-k 8, seed 0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cns": 1}, "cns is either true or false"),
        ({"suppress_always_on": "yes"}, "suppress always on is either"),
        ({"step": 1000}, "noise step"),
        ({"step": 1.5}, "noise step"),
        ({"strength": float("nan")}, "strength"),
        ({"method": "magic"}, "unknown decoding"),
        ({"alpha": -1}, "alpha"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": "x"}, "seed"),
        ({"max_new_tokens": 0}, "at least one"),
        ({"max_new_tokens": 10_000}, "the length"),
        ({"colour": "red"}, "no setting 'colour'"),
    ],
)
def test_what_does_not_fit_is_refused_in_plain_words(change: dict, words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        settings.parse(json.dumps(change))


@pytest.mark.parametrize("text", ["{", "[]", "3", '"x"', "null"])
def test_what_is_no_settings_is_refused(text: str) -> None:
    with pytest.raises(ExplorerError, match="settings"):
        settings.parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*asdict(Settings()), "zzz"])


@given(JSON | st.dictionaries(NAMES, JSON, max_size=4))
def test_any_json_parses_or_is_refused(data: object) -> None:
    try:
        asked = settings.parse(json.dumps(data))
    except ExplorerError:
        return
    assert settings.parse(settings.dump(asked)) == asked
    assert isinstance(settings.in_words(asked), tuple) and asked.options()
