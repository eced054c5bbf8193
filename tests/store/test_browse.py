"""The pages of a gallery are those that a plain loop over all summaries would give."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_maker import N_NEURONS, make_store

from explorer.errors import StoreError
from explorer.records import SORTS, NeuronPage, NeuronSummary, Wanted
from explorer.store import Store
from explorer.store.classes import CLASSES
from explorer.store.imagined import TOPICS, imagine
from explorer.store.synthetic import synthetic_store

NEURONS = 240
OWN = {3: "Zebra", 17: "  aardvark of old", 50: "castle", 51: "castle"}
LISTED = {"mine": [9, 3, 200, 17], "favourites": [0, 1, 2]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(synthetic_store(tmp_path_factory.mktemp("browse") / "s", NEURONS, 240, seed=5))
    for neuron, name in OWN.items():
        store.set_note(neuron, name, "a red note")
    for name, neurons in LISTED.items():
        for neuron in neurons:
            store.add_to_list(name, neuron)
    return store


@cache
def summaries_of(store: Store) -> tuple[NeuronSummary, ...]:
    """All of them, read once: no test changes the store that they share."""
    return tuple(store.summaries(range(NEURONS)).values())


@cache
def words_of(store: Store, neuron: int) -> tuple[list[str], list[str]]:
    """The words that people wrote about a neuron, and those of the store's texts."""
    note = store.note(neuron)
    own = f"{note.name} {note.note}" if note else ""
    shown = [store.summary(neuron).label, *(row.label for row in store.labels(neuron))]
    shown += [row.word for row in store.words(neuron)]
    return own.casefold().split(), " ".join(shown).replace("_", " ").casefold().split()


def holds(words: list[str], text: str) -> bool:
    """Whether all words of a text are among these, the last one as a beginning."""
    *whole, last = text.casefold().split()
    return all(word in words for word in whole) and any(word.startswith(last) for word in words)


def passes(store: Store, one: NeuronSummary, wanted: Wanted) -> bool:
    texts = not wanted.text or any(holds(words, wanted.text) for words in words_of(store, one.neuron))
    alike = one.monosemanticity
    low, high = wanted.monosemanticity
    return (
        texts
        and (not wanted.classes or one.neuron_class in wanted.classes)
        and (not wanted.label or one.label == wanted.label)
        and wanted.fires[0] <= one.fires <= wanted.fires[1]
        and wanted.peak[0] <= one.peak <= wanted.peak[1]
        and wanted.precision[0] <= one.precision <= wanted.precision[1]
        and ((low, high) == (-1, 1) or (alike is not None and low <= alike <= high))
        and (not wanted.listed or one.neuron in LISTED.get(wanted.listed, []))
        and (wanted.neurons is None or one.neuron in wanted.neurons)
    )


def key_of(one: NeuronSummary, wanted: Wanted) -> object:
    """What a neuron is sorted by; None goes last."""
    if wanted.sort == "label":
        return (OWN.get(one.neuron) or one.label).strip().replace("_", " ").casefold() or None
    if wanted.sort == "given":
        return one.neuron if wanted.neurons is None else wanted.neurons.index(one.neuron)
    return getattr(one, wanted.sort)


def expected(store: Store, wanted: Wanted) -> list[int]:
    """All neurons that pass, in order, by the plainest means."""
    passing = [one for one in summaries_of(store) if passes(store, one, wanted)]
    known = [one for one in passing if key_of(one, wanted) is not None]
    known.sort(key=lambda one: key_of(one, wanted), reverse=wanted.descending)  # type: ignore[arg-type, return-value]
    if wanted.descending:  # equal ones by ascending neuron all the same
        groups: dict[object, list[int]] = {}
        for one in known:
            groups.setdefault(key_of(one, wanted), []).append(one.neuron)
        ordered = [neuron for group in groups.values() for neuron in sorted(group)]
    else:
        ordered = [one.neuron for one in known]
    return ordered + [one.neuron for one in passing if key_of(one, wanted) is None]


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    """A range within these bounds, or the whole one."""
    part = st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))
    return st.one_of(st.just((low, high)), part)


WISHES = st.builds(
    Wanted,
    text=st.one_of(
        st.just(""), st.sampled_from(["castle", "red", "a", "old c", "nowhere", "note red", "zeb"])
    ),
    classes=st.lists(st.sampled_from(CLASSES), max_size=3).map(tuple),
    label=st.one_of(st.just(""), st.sampled_from([*TOPICS[:10], "no such label"])),
    fires=ranges(0.0, 1.0),
    peak=st.one_of(st.just((0.0, math.inf)), ranges(0.0, 8.0)),
    precision=ranges(0.0, 1.0),
    monosemanticity=ranges(-1.0, 1.0),
    listed=st.sampled_from(["", "", "", "mine", "favourites", "nobody's"]),
    neurons=st.one_of(st.none(), st.lists(st.integers(0, NEURONS - 1), unique=True, max_size=40).map(tuple)),
    sort=st.sampled_from(SORTS),
    descending=st.booleans(),
)


@settings(max_examples=120, deadline=None)
@given(wanted=WISHES, offset=st.integers(-3, 60), count=st.integers(-1, 50))
def test_pages_are_those_of_a_plain_loop(store: Store, wanted: Wanted, offset: int, count: int) -> None:
    neurons = expected(store, wanted)
    found = store.browse(wanted, offset, count)
    assert found == NeuronPage(tuple(neurons[max(offset, 0) :][: max(count, 0)]), len(neurons))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("descending", [False, True])
def test_every_sort_of_all_neurons(store: Store, sort: str, descending: bool) -> None:
    wanted = Wanted(sort=sort, descending=descending)  # type: ignore[arg-type]
    assert store.browse(wanted, 0, NEURONS).neurons == tuple(expected(store, wanted))


def test_the_oracle_sees_what_it_should(store: Store) -> None:
    """Ties, unknown values and every filter occur, or the comparison above would say little."""
    overview = store.overview()
    for values in (overview.entropy, overview.monosemanticity):
        assert 0 < np.isnan(values).sum() < NEURONS / 2
    assert (overview.fires == 0).sum() > 1 and (overview.labels == "").sum() > 5
    for wanted in (
        Wanted(text="castle"),
        Wanted(text="note red"),
        Wanted(classes=("rare",)),
        Wanted(listed="mine"),
    ):
        assert 0 < store.browse(wanted).total < NEURONS


def test_a_text_without_a_letter_finds_nothing_and_spaces_are_no_text(store: Store) -> None:
    assert store.browse(Wanted(text="?!")) == NeuronPage((), 0)
    assert store.browse(Wanted(text="  ")).total == NEURONS


def test_what_a_search_finds_passes_as_a_text(store: Store) -> None:
    for text in ("castle", "red", "old ca"):
        found = {match.neuron for match in store.search(text, NEURONS)}
        assert found and found == set(store.browse(Wanted(text=text), 0, NEURONS).neurons)


def test_new_names_and_notes_count_at_once(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "s"))
    by_name = Wanted(sort="label")
    assert store.browse(by_name).neurons == (1, 2, 3, 4, 5, 0)
    store.set_note(0, "Apple")
    store.set_note(4, "date", "from a palm")
    assert store.browse(by_name).neurons == (0, 1, 2, 3, 5, 4)
    assert store.browse(Wanted(sort="label", descending=True)).neurons == (4, 1, 2, 3, 5, 0)
    assert store.browse(Wanted(text="palm")).neurons == (4,)
    store.set_note(4)
    assert store.browse(Wanted(text="palm")).total == 0 and store.browse(by_name).neurons == (
        0,
        1,
        2,
        3,
        4,
        5,
    )


def test_given_neurons_keep_their_order_each_once(store: Store) -> None:
    given_ones = Wanted(neurons=(9, 2, 9, 5, 2), sort="given")
    assert store.browse(given_ones) == NeuronPage((9, 2, 5), 3)
    assert store.browse(Wanted(neurons=(), sort="given")) == NeuronPage((), 0)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"sort": "colour"}, "cannot be sorted by 'colour'; use neuron, fires,"),
        ({"fires": (0.5, 0.25)}, r"fires \(0.5, 0.25\) is no range"),
        ({"peak": (0.0, math.nan)}, "peak .* is no range"),
        ({"precision": [0, 1]}, "precision .* is no range"),
        ({"monosemanticity": (0.0,)}, "monosemanticity .* is no range"),
        ({"fires": (False, True)}, "fires .* is no range"),
        ({"classes": ("odd",)}, "no class 'odd' of neurons; use always_on, image_specific, rare, dead"),
        ({"neurons": (3, NEURONS)}, f"no neuron {NEURONS}; the store has neurons 0 to {NEURONS - 1}"),
        ({"neurons": (-1,)}, "no neuron -1"),
    ],
)
def test_wishes_that_cannot_be_are_refused(store: Store, wish: dict, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        store.browse(Wanted(**wish))


def test_counts(store: Store) -> None:
    summaries = store.summaries(range(NEURONS)).values()
    assert store.class_counts() == {name: 0 for name in CLASSES} | Counter(
        one.neuron_class for one in summaries
    )
    labels = Counter(one.label for one in summaries if one.label)
    assert dict(store.label_counts()) == labels
    assert store.label_counts() == sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))


def test_the_overview_is_all_summaries(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "s"))
    found = store.overview()
    summaries = list(store.summaries(range(N_NEURONS)).values())
    for name in ("fires", "in_top", "mean", "peak", "active_mean", "precision"):
        assert getattr(found, name).tolist() == [getattr(one, name) for one in summaries]
    for name in ("entropy", "monosemanticity"):
        kept = [None if math.isnan(value) else value for value in getattr(found, name).tolist()]
        assert kept == [getattr(one, name) for one in summaries]
    assert found.classes.tolist() == [one.neuron_class for one in summaries]
    assert found.labels.tolist() == [one.label for one in summaries]
    assert found.x[:5].tolist() == [0.25, 0.5, -0.75, 1.0, 0.0] and math.isnan(found.x[5])
    assert found.y[:5].tolist() == [-1.0, 0.125, 0.5, 0.0, 0.5] and math.isnan(found.y[5])
    assert store.overview() is found
    with pytest.raises(ValueError, match="read-only"):
        found.fires[0] = 1


def test_a_random_neuron_lives(store: Store, tmp_path: Path) -> None:
    dead = {one.neuron for one in store.summaries(range(NEURONS)).values() if not one.fires}
    drawn = [store.random_neuron(seed) for seed in range(200)]
    assert dead and not dead & set(drawn) and len(set(drawn)) > 60
    assert drawn == [store.random_neuron(seed) for seed in range(200)]
    assert store.random_neuron() not in dead
    lifeless = next(s for s in range(2000) if not imagine(1, 64, np.random.default_rng(s)).fires[0])
    lone = Store.open(synthetic_store(tmp_path / "lone", 1, 64, lifeless))
    with pytest.raises(StoreError, match="no neuron of this store fired"):
        lone.random_neuron()
