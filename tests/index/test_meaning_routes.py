"""Which way words are looked for, and what people hear of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from explorer.errors import ModelError
from explorer.sae import load_sae
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.store.manifest import ROUTES
from explorer.vlm import open_lvlm
from index.meaning import routes
from index.meaning.routes import MOST, choose_route, find_words


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_asked_for_is_done_whatever_the_size(route: str) -> None:
    assert choose_route(route, 1, 1) == choose_route(route, 10**6, 10**12) == (route, "as asked")


def test_the_size_decides_when_nothing_is_asked_for() -> None:
    assert choose_route(None, 10**6, int(MOST) // 10**6).route == "answer"
    assert choose_route(None, 10**6, int(MOST) // 10**6 + 1).route == "unembedding"
    lvlm, sae = open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE)
    assert sae.n_neurons * lvlm.text_size < MOST / 100
    large = choose_route(None, 65_536, 6_738_415_616)
    assert large.route == "unembedding" and "65,536 neurons x 6.7 billion weights" in large.why
    assert "--words answer" in large.why and "3.0 million weights" in choose_route(None, 9, 3_000_000).why


def test_each_way_is_taken_and_told(tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lvlm, rng = open_lvlm(tiny_lvlm_folder), np.random.default_rng(0)
    neurons = rng.normal(size=32), rng.normal(size=(6, 32)).astype(np.float32), np.array([1, 0, 2, 1, 1, 1.0])
    told: list[str] = []
    monkeypatch.setattr(routes, "TELL_EVERY", 0.0)
    found = {asked: find_words(asked, lvlm, 2, *neurons, told.append) for asked in (None, *ROUTES)}
    assert [line for line in told if line.startswith("words: ")] == [
        f"words: answer (6 neurons x {lvlm.text_size / 1e6:.1f} million weights of the language model are "
        "few enough to ask it about each neuron)",
        *(f"words: {route} (as asked)" for route in ROUTES),
    ]
    assert "words of 5 of 5 neurons" in told
    assert [found[asked].route for asked in (None, *ROUTES)] == ["answer", *ROUTES]
    assert found["none"].words.word == [] and set(found["unembedding"].words.neuron) == {0, 2, 3, 4, 5}
    assert found[None].words.word == found["answer"].words.word != found["unembedding"].words.word


def test_without_a_mean_patch_there_are_no_words(tiny_lvlm_folder: Path) -> None:
    told: list[str] = []
    found = find_words("answer", open_lvlm(tiny_lvlm_folder), 2, None, np.eye(3), np.ones(3), told.append)
    assert found.route == "none" and found.words.word == []
    assert told == ["words: none (there is no mean picture to start from; use a larger --sample)"]


def test_a_way_that_a_model_does_not_know_is_left_only_if_nobody_asked_for_it(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lvlm, told = open_lvlm(tiny_lvlm_folder), []

    def refuse(vectors: object, block: int) -> None:
        raise ModelError("depends on the prompt; use --words answer")

    monkeypatch.setattr(lvlm, "alone", refuse)
    monkeypatch.setattr(lvlm, "text_size", MOST)
    arguments = (lvlm, 2, np.ones(32, np.float32), np.eye(3, 32, dtype=np.float32), np.ones(3), told.append)
    found = find_words(None, *arguments)
    assert found.route == "none" and not len(found.words.neuron)
    assert told[-1] == "words: none (depends on the prompt; use --words answer)"
    with pytest.raises(ModelError, match="depends on the prompt"):
        find_words("unembedding", *arguments)
