"""Concept evidence over chunks against plain loops, in any order, saved and merged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index.meaning.concepts import facts_of
from index.sources.base import PatchTruth
from index.stage.codes import Codes
from index.stage.evidence import ConceptEvidence

T, F, C, OBJECTS = 6, 4, 3, 3

IMAGES = st.lists(
    st.tuples(
        hnp.arrays(np.float32, (T + 1, F), elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.25])),
        hnp.arrays(np.int64, T, elements=st.integers(-2, OBJECTS - 1)),
        st.lists(st.integers(0, C - 1), min_size=OBJECTS, max_size=OBJECTS),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
Images = list[tuple[np.ndarray, np.ndarray, list[int], bool]]


def truth_of(objects: np.ndarray, kinds: list[int]) -> PatchTruth:
    """Patch truth where object o is of concept kinds[o]; -2 stands for an unknown patch."""
    concepts = np.where(objects >= 0, np.array(kinds)[objects], objects)
    return PatchTruth(concepts, np.maximum(objects, -1))


def codes_of(dense: np.ndarray, n_patches: int) -> Codes:
    """The sparse form of dense activations [b, tokens, F]."""
    image, token, neuron = (column.astype(np.int32) for column in np.nonzero(dense))
    return Codes(image, token, neuron, dense[image, token, neuron], len(dense), n_patches)


def taken(images: Images, chunk: int = 2) -> ConceptEvidence:
    """All images, a few at a time. The last token of each is the CLS token."""
    evidence = ConceptEvidence(C, F)
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        truths = [truth_of(objects, kinds) if known else None for _, objects, kinds, known in part]
        evidence.take(codes_of(np.stack([dense for dense, *_ in part]), T), truths)
    return evidence


@settings(max_examples=150, deadline=None)
@given(IMAGES, st.integers(1, 4))
def test_evidence_equals_plain_loops(images: Images, chunk: int) -> None:
    on: dict[int, list[np.ndarray]] = {c: [] for c in range(C)}
    off: dict[int, list[np.ndarray]] = {c: [] for c in range(C)}
    hits: dict[int, list[np.ndarray]] = {c: [] for c in range(C)}
    for dense, objects, kinds, known in images:
        if not known:
            continue
        truth = truth_of(objects, kinds)
        for t in range(T):
            for c in range(C):
                if truth.concepts[t] != -2:
                    (on if truth.concepts[t] == c else off)[c].append(dense[t])
        for o in set(objects.tolist()) - {-1, -2}:
            hits[kinds[o]].append((dense[:T][objects == o] > 0).any(axis=0))
    evidence = taken(images, chunk)
    facts = facts_of(evidence)

    def mean(rows: list[np.ndarray]) -> np.ndarray:
        return np.mean(rows, axis=0, dtype=np.float64) if rows else np.zeros(F)

    for c in range(C):
        assert evidence.objects[c] == len(hits[c]) and evidence.on_patches[c] == len(on[c])
        assert evidence.patches == len(on[c]) + len(off[c])
        np.testing.assert_allclose(facts.on_mean[c], mean(on[c]))
        np.testing.assert_allclose(facts.off_mean[c], mean(off[c]))
        np.testing.assert_allclose(facts.firing[c], mean([row > 0 for row in on[c]]))
        np.testing.assert_allclose(facts.reach[c], mean(hits[c]))
        whole = np.sum([np.zeros(F), *on[c], *off[c]], axis=0, dtype=np.float64)
        part = np.sum(on[c], axis=0, dtype=np.float64) if on[c] else np.zeros(F)
        np.testing.assert_allclose(facts.selectivity[c] * whole, part, atol=1e-9)


def noisy(count: int) -> Images:
    """Images whose activations differ by many orders of magnitude, so that plain sums would round."""
    rng = np.random.default_rng(0)
    sizes = 10 ** rng.uniform(-6, 3, size=(count, T + 1, F))
    dense = (sizes * (rng.random(sizes.shape) < 0.6)).astype(np.float32)
    objects = rng.integers(-2, OBJECTS, size=(count, T))
    return [(dense[i], objects[i], rng.integers(0, C, OBJECTS).tolist(), i % 7 != 0) for i in range(count)]


def test_order_and_split_of_chunks_change_no_bit() -> None:
    images = noisy(60)
    whole = taken(images).arrays("e")
    pairs = [images[i : i + 2] for i in range(0, 60, 2)]
    order = np.random.default_rng(1).permutation(len(pairs))
    parts = [order[:7], order[7:8], order[8:]]
    merged = ConceptEvidence(C, F)
    for part in parts[::-1]:
        some = taken([image for i in part for image in pairs[i]])
        merged.absorb("e", some.arrays("e"))
    assert merged.arrays("e").keys() == whole.keys()
    for name, column in merged.arrays("e").items():
        assert column.dtype == whole[name].dtype and column.tobytes() == whole[name].tobytes()


def test_regions_without_objects_count_as_patches_only() -> None:
    evidence = ConceptEvidence(2, 1)
    dense = np.full((1, 4, 1), 2.0, dtype=np.float32)
    evidence.take(codes_of(dense, 3), [PatchTruth(np.array([1, 1, -1]), np.array([-1, -1, -1]))])
    assert evidence.on_patches.tolist() == [0, 2] and evidence.objects.tolist() == [0, 0]
    assert facts_of(evidence).on_mean.tolist() == [[0.0], [2.0]]
    assert facts_of(evidence).selectivity[1, 0] == pytest.approx(2 / 3)  # the CLS token has no part in it
    assert not facts_of(evidence).reach.any()


def test_size_and_empty_chunks() -> None:
    evidence = ConceptEvidence(8, 1000)
    held = sum(column.nbytes for column in evidence.arrays("e").values())
    assert held <= 32 * 8 * 1000 + 17 * 1000
    none = Codes(*(np.zeros(0, np.int32) for _ in range(3)), np.zeros(0, np.float32), 1, 3)
    evidence.take(none, [None])
    evidence.take(none, [PatchTruth(np.array([0, -1, -2]), np.array([0, -1, -1]))])
    assert evidence.patches == 2 and evidence.objects[0] == 1 and not facts_of(evidence).reach.any()
