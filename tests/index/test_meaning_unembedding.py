"""Words read off the unembedding: on the tiny LVLM against plain arithmetic, and on the embedded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.errors import ExplorerError
from explorer.sae import load_sae
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.vlm import open_lvlm
from explorer.vlm.families.llava import Llava
from index.meaning.ranking import NeuronWords
from index.meaning.unembedding import UnembeddingConfig, unembedded_words

FLOOR = 0.05


@pytest.fixture
def lvlm(tiny_lvlm_folder: Path) -> Llava:
    """With a final norm whose weights are not 1, as a trained one's."""
    opened = open_lvlm(tiny_lvlm_folder)
    weight = opened.model.model.language_model.norm.weight
    weight.copy_(torch.rand(len(weight), generator=torch.Generator().manual_seed(1)) + 0.5)
    return opened


def some_neurons(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mean patch [32], directions [F, 32] and mean activations [F]; neuron 1 is dead, neuron 2 is faint."""
    rng = np.random.default_rng(seed)
    active = rng.uniform(0.1, 3, count)
    active[1], active[2] = 0, 1e-9
    return rng.normal(size=32), rng.normal(size=(count, 32)).astype(np.float32), active


def logits_of(lvlm: Llava, block: int, patch: np.ndarray) -> np.ndarray:
    """The unembedding of one patch through projector and the norm's weight, step by step, float64."""
    tokens = torch.tensor(np.stack([patch, patch]), dtype=torch.float32)
    features = lvlm.features(tokens, block)
    if block == lvlm.read_block:
        projector = {name: value.double().numpy() for name, value in lvlm.projector.named_parameters()}
        inner = projector["linear_1.weight"] @ patch + projector["linear_1.bias"]
        inner = torch.nn.functional.gelu(torch.tensor(inner)).numpy()
        by_hand = projector["linear_2.weight"] @ inner + projector["linear_2.bias"]
        np.testing.assert_allclose(features[0].numpy(), by_hand, rtol=1e-4, atol=1e-4)
        vector = by_hand
    else:
        vector = features[0].double().numpy()
    norm = lvlm.model.model.language_model.norm.weight.double().numpy()
    head = lvlm.model.lm_head.weight.double().numpy()
    return np.array([sum(row * norm * vector) for row in head])


def expected_gains(
    lvlm: Llava, block: int, mean: np.ndarray, directions: np.ndarray, active: np.ndarray
) -> dict[int, dict[str, float]]:
    """The gain of every word for each living neuron, computed plainly."""
    calm, names = logits_of(lvlm, block, mean), [word.lower() for word in lvlm.words()]
    words = list(dict.fromkeys(filter(None, names)))
    scaled = {}
    for neuron in np.flatnonzero(active > 0).tolist():
        step = active[neuron] * directions[neuron].astype(np.float64)
        least = FLOOR * np.linalg.norm(mean)
        if np.linalg.norm(step) < least:
            step *= least / np.linalg.norm(step)
        change = logits_of(lvlm, block, mean + step) - calm
        gains = np.array([max(c for c, name in zip(change, names, strict=True) if name == w) for w in words])
        gains -= gains.mean()
        scaled[neuron] = gains / np.sqrt(np.mean(gains**2))
    table = np.stack(list(scaled.values()))
    usual, spread = table.mean(0), table.std(0)
    return {
        neuron: dict(zip(words, ((row - usual) / (spread + spread.mean())).tolist(), strict=True))
        for neuron, row in scaled.items()
    }


def rows_of(found: NeuronWords) -> dict[int, dict[str, float]]:
    """The words and gains of each neuron; checks their order on the way."""
    rows: dict[int, dict[str, float]] = {}
    for neuron, rank, word, gain in zip(*found, strict=True):
        row = rows.setdefault(int(neuron), {})
        assert rank == len(row) and 0 < gain <= min(row.values(), default=np.inf) and word not in row
        row[word] = float(gain)
    return rows


@pytest.mark.parametrize("block", [0, 2])
def test_words_and_gains_are_those_of_plain_arithmetic(lvlm: Llava, block: int) -> None:
    mean, directions, active = some_neurons(20)
    expected = expected_gains(lvlm, block, mean, directions, active)
    rows = rows_of(
        unembedded_words(lvlm, block, mean, directions, active, UnembeddingConfig(floor=FLOOR, limit=4))
    )
    assert set(rows) == set(expected) == set(range(20)) - {1}
    for neuron, row in rows.items():
        best = sorted((gain for gain in expected[neuron].values() if gain > 0), reverse=True)[:4]
        np.testing.assert_allclose(list(row.values()), best, rtol=0.02, atol=2e-3)
        for word, gain in row.items():
            assert gain == pytest.approx(expected[neuron][word], rel=0.02, abs=2e-3)


def test_blocks_of_neurons_are_bounded_and_do_not_show(lvlm: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    mean, directions, active = some_neurons(50)
    whole = rows_of(unembedded_words(lvlm, 2, mean, directions, active))
    most, plain = [0], lvlm.unembed

    def unembed(vectors: torch.Tensor) -> torch.Tensor:
        logits = plain(vectors)
        most.append(logits.numel())
        return logits

    monkeypatch.setattr(lvlm, "unembed", unembed)
    heard: list[int] = []
    config = UnembeddingConfig(numbers=2000)
    parts = rows_of(unembedded_words(lvlm, 2, mean, directions, active, config, heard.append))
    assert max(most) <= 2000 and sum(heard) == 49 and len(heard) > 10
    assert parts.keys() == whole.keys()
    for neuron in whole:
        np.testing.assert_allclose(list(parts[neuron].values()), list(whole[neuron].values()), rtol=1e-3)


def test_dead_neurons_and_empty_directions_have_no_words(lvlm: Llava) -> None:
    mean, directions, active = some_neurons(6)
    directions[4] = 0
    assert set(rows_of(unembedded_words(lvlm, 2, mean, directions, active))) == {0, 2, 3, 5}
    assert unembedded_words(lvlm, 2, mean, directions, np.zeros(6)).word == []
    alone = np.where(np.arange(6) == 3, active, 0)
    assert set(rows_of(unembedded_words(lvlm, 2, mean, directions, alone))) == {3}


def test_a_faint_neuron_is_raised_far_enough_to_be_told_from_rounding(lvlm: Llava) -> None:
    mean, directions, active = some_neurons(12)
    lists = []
    for faint in (1e-9, 1e-30):
        active[2] = faint
        lists.append(rows_of(unembedded_words(lvlm, 2, mean, directions, active)))
    assert lists[0] == lists[1]


def test_a_word_that_every_direction_raises_does_not_fill_the_lists(lvlm: Llava) -> None:
    mean, directions, active = some_neurons(40)
    place = [word.lower() for word in lvlm.words()].index("cake")
    mean_change = lvlm.features(torch.tensor(np.stack([mean, mean]), dtype=torch.float32), 2)[0]
    steps = torch.tensor(mean + active[:, None] * directions, dtype=torch.float32)
    pulled = (lvlm.features(steps[:, None].repeat(1, 2, 1), 2)[:, 0] - mean_change).mean(0)
    lvlm.model.lm_head.weight[place] += 3 * pulled / pulled.norm()
    first = [next(iter(row)) for row in rows_of(unembedded_words(lvlm, 2, mean, directions, active)).values()]
    assert first.count("cake") < len(first) / 4


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"floor": float("nan")}, {"limit": 0}, {"numbers": 0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ExplorerError, match="must be above 0"):
        UnembeddingConfig(**wrong)


def test_every_living_neuron_of_the_embedded_sae_has_words() -> None:
    lvlm, sae = open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE)
    mean = sae.b_dec.numpy()
    rows = rows_of(unembedded_words(lvlm, lvlm.read_block, mean, sae.W_dec.numpy(), np.ones(sae.n_neurons)))
    assert len(rows) == sae.n_neurons and {len(row) for row in rows.values()} == {10}
    assert {word for row in rows.values() for word in row} <= {word.lower() for word in lvlm.words()}
    assert len({next(iter(row)) for row in rows.values()}) > 100
