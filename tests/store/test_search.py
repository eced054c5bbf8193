"""Search by words and by vectors: what is found, in which order, and that no text is query syntax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from store_maker import N_NEURONS, WIDTH, make_store, some_b_dec, some_centroids

from explorer.errors import StoreError
from explorer.store import Store
from explorer.store.sketch import matrix
from explorer.store.texts import MAX_WORDS, match_expression
from explorer.store.vectors import Centroids, unit_rows, write_centroids


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store without notes."""
    return Store.open(make_store(tmp_path_factory.mktemp("plain") / "s"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(make_store(tmp_path / "s"))


# ---- words ------------------------------------------------------------------------------------------


def found(store: Store, text: str, k: int = 20) -> list[int]:
    return [match.neuron for match in store.search(text, k)]


def test_names_labels_and_words_are_found(plain: Store) -> None:
    assert sorted(found(plain, "cake")) == [1, 2, 3, 4, 5]
    assert found(plain, "wine glass") == found(plain, "WINE_GLASS") == found(plain, "glass  wine") == [3]
    assert found(plain, "zebra") == found(plain, "stripe") == [2]
    assert found(plain, "café") == found(plain, "CAFE") == [5]
    assert found(plain, "zebra cake") == [2] and found(plain, "zebra café") == []
    assert set(found(plain, "cake", 2)) < {1, 2, 3, 4, 5} and len(found(plain, "cake", 2)) == 2
    assert found(plain, "cake", 0) == found(plain, "cake", -3) == []


def test_the_last_word_may_be_a_beginning(plain: Store) -> None:
    assert found(plain, "z") == found(plain, "ze") == found(plain, "zebr") == [2]
    assert found(plain, "wine gl") == [3] and found(plain, "win glass") == []


def test_more_matches_of_more_weight_come_first(plain: Store) -> None:
    matches = plain.search("cake")
    assert [match.score for match in matches] == sorted((match.score for match in matches), reverse=True)
    order = [match.neuron for match in matches]
    assert order.index(4) < order.index(2)  # name and word, against name among other words
    assert all(match.name == "cake" and not match.own for match in matches)


def test_peoples_own_names_come_first(store: Store) -> None:
    store.set_note(0, "Torte", "looks like a cake")
    store.set_note(5, "Cake, the best")
    matches = store.search("cake")
    assert [(match.neuron, match.name, match.own) for match in matches[:2]] == [
        (5, "Cake, the best", True),
        (0, "Torte", True),
    ]
    assert [match.neuron for match in matches[2:]] == [n for n in found(store, "cake") if n not in (0, 5)]
    assert len({match.neuron for match in matches}) == len(matches) == N_NEURONS
    store.set_note(2, "", "the fifth leg")
    assert [tuple(match)[:3] for match in store.search("leg")] == [(2, "cake", True)]  # its label
    assert [match.name for match in store.search("café")] == ["Cake, the best"]  # found by the store's text
    assert len(store.search("cake", 3)) == 3 and store.search("cake", 1)[0].neuron == 5


HOSTILE = [
    *('"', '""', "*", "**", "AND", "OR", "NOT cake", "NEAR(cake zebra, 2)", 'a"b', '"cake', 'cake"', "cake*"),
    *("name:cake", "{name labels}: cake", "-cake", "^cake", "+", "(", ")", "cake)", "(cake", "'", "''; DROP"),
    *("🍰", "🍰 cake", "", "   ", "\n\t", "\0", "cake\0zebra", "\ud83e", "\\", "%", "_", "?", ":x", "@"),
    *(
        "x" * 10_000,
        "cake " * 2_000,
        '"' * 10_000,
        "a b " * 2_500,
        "é" * 10_000,
        "cake\u200bzebra",
        "\x1b[0m",
    ),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_only_text(plain: Store, store: Store, text: str) -> None:
    assert isinstance(plain.search(text), list)
    store.set_note(1, "cake " + text[:100], text)
    assert isinstance(store.search(text), list)
    kept = store.search("cake", 1)
    assert kept[0].neuron == 1 and kept[0].own


def test_operators_are_words(plain: Store) -> None:
    assert found(plain, "cake OR zebra") == found(plain, "NOT cake") == found(plain, "AND") == []
    assert found(plain, '"cake"') == found(plain, "cake*") == found(plain, "(cake)") == found(plain, "cake")
    assert found(plain, "words:zebra") == [] and found(plain, "🍰 cake") == found(plain, "cake")


@given(st.text(max_size=60))
def test_any_text_can_be_searched(plain: Store, text: str) -> None:
    assert isinstance(plain.search(text, 3), list)
    assert match_expression(text).count('"') % 2 == 0


def test_long_texts_are_cut() -> None:
    assert len(match_expression("word " * 5_000).split()) == MAX_WORDS
    assert len(match_expression("x" * 10_000)) < 80


# ---- vectors ----------------------------------------------------------------------------------------


def cosines(vector: np.ndarray, centroids: np.ndarray, b_dec: np.ndarray) -> np.ndarray:
    """By hand: the cosine of a sketched vector with every centroid."""
    asked = (vector.astype(np.float64) - b_dec) @ matrix(len(b_dec)).astype(np.float64)
    lengths = np.linalg.norm(centroids, axis=1)
    return centroids @ asked / np.where(lengths > 0, lengths, 1) / np.linalg.norm(asked)


def test_pictures_and_patches_find_the_nearest_exemplars(plain: Store) -> None:
    rng = np.random.default_rng(7)
    for vector in rng.normal(size=(20, WIDTH)).astype(np.float32) * 5:
        expected = cosines(vector, some_centroids(), some_b_dec())
        order = sorted(range(1, N_NEURONS), key=lambda n: -expected[n])  # neuron 0 is dead
        for ask in (plain.by_picture, plain.by_patch):
            for k in (1, 3, 5, 100):
                matches = ask(vector, k)
                assert [match.neuron for match in matches] == order[:k]
                np.testing.assert_allclose([m.value for m in matches], expected[order[:k]], atol=1e-5)
            assert ask(vector, 0) == ask(vector, -1) == []


def test_a_search_leaves_torch_its_threads(plain: Store) -> None:
    # FAISS and torch share OpenMP's number of threads.
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        plain.similar(0, 2), plain.by_picture(np.ones(WIDTH, np.float32), 2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_wide_vectors_are_found_by_their_sketch(tmp_path: Path) -> None:
    width, n_neurons = 640, 300
    rng = np.random.default_rng(8)
    places = rng.normal(size=(n_neurons, width)).astype(np.float32)
    b_dec = rng.normal(size=width).astype(np.float32)
    rows = unit_rows(places @ matrix(width))
    rows[::7] = 0
    write_centroids(tmp_path / "c.faiss", rows, b_dec)
    centroids = Centroids(tmp_path / "c.faiss")
    assert (len(centroids), centroids.width) == (n_neurons, width)
    assert np.array_equal(centroids.lengths() > 0, np.arange(n_neurons) % 7 > 0)
    for vector in places[:40] + rng.normal(size=(40, width)).astype(np.float32) + b_dec:
        expected = cosines(vector, rows, b_dec)
        expected[::7] = -np.inf
        order = np.argsort(-expected)[:10]
        matches = centroids.nearest(vector, 10)
        np.testing.assert_allclose([match.value for match in matches], expected[order], atol=1e-5)
        np.testing.assert_allclose(expected[[match.neuron for match in matches]], expected[order], atol=1e-5)
    assert all(centroids.nearest(places[n] + b_dec, 1)[0].neuron == n for n in range(1, 7))


def test_vectors_that_do_not_fit_are_refused(plain: Store, tmp_path: Path) -> None:
    good = np.ones(WIDTH, dtype=np.float32)
    for wrong, shape in ((good[:3], "3"), (np.ones((2, WIDTH)), "2 x 5"), (np.float32(1), "one")):
        with pytest.raises(StoreError, match=f"searched by vectors of width 5, not {shape}"):
            plain.by_patch(wrong)
    for value in (np.nan, np.inf, -np.inf):
        good[2] = value
        with pytest.raises(StoreError, match="not finite numbers"):
            plain.by_picture(good)
    with pytest.raises(ValueError, match="width 5 have 5 numbers, not 4"):
        write_centroids(tmp_path / "c.faiss", np.ones((3, 4), dtype=np.float32), good)


def test_vectors_stay_on_the_disk(plain: Store) -> None:
    assert not plain._directions._index.codes.is_owned
    assert not plain._centroids._flat.codes.is_owned


def test_a_vector_without_direction_is_similar_to_none(plain: Store) -> None:
    assert [match.value for match in plain.by_patch(some_b_dec(), 3)] == [0, 0, 0]


def test_a_store_of_dead_neurons_finds_nothing(tmp_path: Path) -> None:
    write_centroids(tmp_path / "c.faiss", np.zeros((3, WIDTH), dtype=np.float32), some_b_dec())
    assert Centroids(tmp_path / "c.faiss").nearest(np.ones(WIDTH, dtype=np.float32), 5) == []


def test_sketches_keep_angles() -> None:
    rng = np.random.default_rng(9)
    vectors = rng.normal(size=(60, 1024)).astype(np.float32)
    vectors[30:] += 2 * vectors[:30]
    unit, short = unit_rows(vectors), unit_rows(vectors @ matrix(1024))
    assert np.abs(unit @ unit.T - short @ short.T).max() < 0.3
    assert np.abs(unit @ unit.T - short @ short.T).std() < 0.07
    assert matrix(1024).dtype == np.float32 and set(np.unique(matrix(1024))) == {-1 / 16, 1 / 16}
