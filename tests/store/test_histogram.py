"""Half-octave bins against NumPy's histogram, and the classes of neurons."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explorer.errors import StoreError
from explorer.store import classes, histogram

ABOVE_ZERO = st.floats(2.0**-126, 2.0**127, width=32)


@given(hnp.arrays(np.float32, st.integers(0, 200), elements=ABOVE_ZERO))
def test_bins_are_those_of_numpy(values: np.ndarray) -> None:
    edges = histogram.edges()
    inside = np.clip(values.astype(np.float64), edges[0], np.nextafter(edges[-1], 0))
    expected = np.histogram(inside, edges)[0]
    assert np.bincount(histogram.bins_of(values), minlength=64).tolist() == expected.tolist()


@given(ABOVE_ZERO)
def test_a_span_holds_its_value_and_is_half_an_octave(value: float) -> None:
    low, high = histogram.span_of(value)
    assert low <= np.float32(value) < high
    if value > 2**-100:
        assert high / low in (1.5, 2 / 1.5)
        assert histogram.half_octaves(np.float32([low, high])).tolist() == [
            int(histogram.half_octaves(np.float32(value))) + more for more in (0, 1)
        ]


def test_edges_belong_to_the_bin_above() -> None:
    edges = histogram.edges()
    assert edges.shape == (65,) and edges[0] == 2**-16 and edges[-1] == 2**16
    assert histogram.bins_of(edges[:-1]).tolist() == list(range(64))
    assert histogram.bins_of(np.nextafter(edges[1:].astype(np.float32), np.float32(0))).tolist() == list(
        range(64)
    )
    assert histogram.bins_of(np.float32([1e-30, 1e30])).tolist() == [0, 63]


@given(hnp.arrays(np.int64, 64, elements=st.integers(0, 2**62)))
def test_counts_come_back(counts: np.ndarray) -> None:
    assert np.array_equal(histogram.unpack(histogram.pack(counts)), counts)
    assert histogram.histogram(counts).counts.dtype == np.int64


def test_damaged_histograms_are_refused() -> None:
    for blob, words in (
        (b"junk", "damaged"),
        (zlib.compress(b"123"), "damaged"),
        (zlib.compress(b""), "0 bins"),
    ):
        with pytest.raises(StoreError, match=words):
            histogram.unpack(blob)
    with pytest.raises(ValueError, match="64 counts"):
        histogram.pack(np.zeros(63, dtype=np.int64))


def test_classes_go_by_shares() -> None:
    fires = np.array([0.0, 1.0, 1.0, 0.5, 0.0009, 0.001, 0.0005, 0.0])
    in_top = np.array([0.0, 1.0, 0.99, 0.0, 0.0, 0.0, 1.0, 1.0])
    found = classes.classify(fires, in_top)
    assert found.tolist() == [
        *(
            "dead",
            "always_on",
            "image_specific",
            "image_specific",
            "rare",
            "image_specific",
            "always_on",
            "dead",
        )
    ]
    assert classes.count(found) == classes.ClassCounts(always_on=2, image_specific=3, rare=1, dead=2)
    assert classes.classify(fires, in_top, always_share=0.99, rare_share=0.6).tolist() == [
        *("dead", "always_on", "always_on", "rare", "rare", "rare", "always_on", "dead")
    ]


@given(
    hnp.arrays(np.float64, 20, elements=st.floats(0, 1)),
    hnp.arrays(np.float64, 20, elements=st.floats(0, 1)),
)
def test_every_neuron_has_one_class(fires: np.ndarray, in_top: np.ndarray) -> None:
    found = classes.classify(fires, in_top)
    assert set(found) <= set(classes.CLASSES) and sum(classes.count(found)) == 20
    assert np.array_equal(found == "dead", fires == 0)
