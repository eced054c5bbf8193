"""Words of neurons: on a made-up LVLM whose answer is known, and on the tiny one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.errors import ExplorerError
from explorer.records import Box, Grid
from explorer.sae import load_sae
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.vlm import open_lvlm
from explorer.vlm.base import Prepared
from explorer.world import draw
from index.meaning.words import NeuronWords, WordsConfig, neuron_words, vocabulary_of

WORDS = ["", "cake", "Cake", "dog", "the", "", "red"]


class PlainLVLM:
    """Its next word is a linear read-out of the mean patch: word i likes dimension i, "the" likes all."""

    default_prompt = "What?"

    def __init__(self) -> None:
        self.table = torch.eye(len(WORDS))
        self.table[:, 4] = 3.0
        self.largest = 0

    def words(self) -> list[str]:
        return WORDS

    def canvas(self, patches: int) -> Prepared:
        grid = Grid(1, patches, patches, 1, Box(0, 0, patches, 1))
        return Prepared(torch.zeros(0), grid, tokens=1 + patches)

    def features(self, hidden: torch.Tensor, block: int, like: Prepared) -> torch.Tensor:
        assert hidden.ndim == 3 and block == 2 and hidden.shape[1] == like.tokens
        self.largest = max(self.largest, len(hidden))
        return hidden[:, 1:]

    def generate(self, features: torch.Tensor, prompt: str, max_new_tokens: int, like: Prepared) -> str:
        assert features.ndim == 2 and prompt == "What?"
        return "a b"[: 2 * max_new_tokens]

    def next_words(self, features: torch.Tensor, prompt: str, answer: str, like: Prepared) -> torch.Tensor:
        logits = features.mean(1) @ self.table
        return torch.log_softmax(logits[:, None] * torch.ones(1, len(answer.split()) + 1, 1), dim=-1)


def rows_of(found: NeuronWords) -> dict[int, list[str]]:
    """The words of each neuron; checks their order on the way."""
    rows: dict[int, list[str]] = {}
    last: dict[int, float] = {}
    for neuron, rank, word, gain in zip(*found, strict=True):
        assert rank == len(rows.setdefault(int(neuron), [])) and 0 < gain <= last.get(neuron, np.inf)
        rows[int(neuron)].append(word)
        last[neuron] = gain
    return rows


def ask(live: list[float], **settings: object) -> NeuronWords:
    directions = np.eye(len(WORDS), dtype=np.float32)[[1, 2, 3, 6, 3, 0]] * 5
    config = WordsConfig(**{"strength": 2.0, "batch": 2, **settings})
    return neuron_words(PlainLVLM(), 2, np.ones(len(WORDS)) / 3, directions, np.array(live), config)


def test_each_direction_raises_its_own_word_first() -> None:
    rows = rows_of(ask([1.0, 1.0, 2.0, 0.5, 0.0, 1.0]))
    # Both spellings of "cake" are one word; "the" is raised by all alike; neuron 4 is dead.
    assert [rows[n][0] for n in (0, 1, 2, 3)] == ["cake", "cake", "dog", "red"]
    assert all(row.count("cake") <= 1 and "" not in row for row in rows.values()) and 4 not in rows


def test_batches_do_not_show_and_the_limit_holds() -> None:
    active = [1.0, 1.0, 2.0, 0.5, 3.0, 1.0]
    whole, parts = ask(active, batch=50), ask(active, batch=1)
    assert whole.word == parts.word and whole.neuron.tolist() == parts.neuron.tolist()
    np.testing.assert_allclose(whole.gain, parts.gain, rtol=1e-4)
    first = ask(active, limit=1)
    assert first.rank.max() == 0 and len(set(first.neuron.tolist())) == len(first.word)
    lvlm = PlainLVLM()
    neuron_words(lvlm, 2, np.zeros(7), np.eye(7), np.ones(7), WordsConfig(batch=3))
    assert lvlm.largest == 3


def test_dead_neurons_have_no_words_and_one_alone_has_its_own() -> None:
    assert ask([0.0] * 6).word == []
    assert rows_of(ask([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]))[2][0] in ("dog", "the")


def test_words_count_once_whatever_their_case() -> None:
    words = vocabulary_of(WORDS)
    assert words.words == ["cake", "dog", "the", "red"]
    assert words.places.tolist() == [1, 2, 3, 4, 6] and words.kinds.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "wrong", [{"patches": 0}, {"strength": 0.0}, {"strength": float("nan")}, {"raised": 17}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ExplorerError, match=r"must be above 0|on 17 of 16 patches"):
        WordsConfig(**wrong)


def test_every_site_of_a_model_has_words(tiny_lvlm_folder: Path) -> None:
    lvlm = open_lvlm(tiny_lvlm_folder)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(5, 32)).astype(np.float32)
    known = {word.lower() for word in lvlm.words()} - {""}
    lists = []
    for block in range(lvlm.read_block + 1):
        config = WordsConfig(patches=4, raised=2, limit=3, answer_tokens=4)
        found = neuron_words(
            lvlm, block, rng.normal(size=32), directions, np.array([1, 0.5, 2, 0, 1]), config
        )
        rows = rows_of(found)
        assert set(rows) == {0, 1, 2, 4} and {len(row) for row in rows.values()} == {3}
        assert set(found.word) <= known
        lists.append(found.word)
    assert lists[0] != lists[-1]


def test_neurons_of_the_embedded_sae_that_carry_a_concept_raise_its_word() -> None:
    known = {85: "corn", 139: "cow", 163: "tie", 171: "horse", 104: "dog", 99: "kite", 132: "sign"}
    lvlm, sae = open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE)
    pixels = [lvlm.preprocess(draw(seed).image).pixel_values for seed in range(40_000, 40_012)]
    patches = lvlm.tower(torch.cat(pixels), lvlm.read_block)[:, 1:]
    live = np.zeros(sae.n_neurons)
    live[:: sae.n_neurons // 60] = 1  # what neurons do as a rule
    live[list(known)] = 1
    mean = patches.mean((0, 1)).float().numpy()
    found = neuron_words(lvlm, lvlm.read_block, mean, sae.W_dec.numpy(), live, WordsConfig(limit=3))
    rows = rows_of(found)
    fitting = [neuron for neuron, word in known.items() if any(w.startswith(word) for w in rows[neuron])]
    assert len(fitting) >= len(known) - 1
