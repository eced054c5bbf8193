"""What the search suggests: words of the store at hand, whatever that is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from explorer.ui.workspace import suggesting
from tests.ui.fake_session import FakeSession


def session_with(concepts: tuple[str, ...] | None, labels: list[tuple[str, int]]) -> FakeSession:
    session = FakeSession()
    probe = None if concepts is None else SimpleNamespace(concepts=concepts)
    session.store.probe = lambda: probe  # type: ignore[union-attr]
    session.label_counts = lambda: labels  # type: ignore[attr-defined]
    return session


@pytest.mark.parametrize(
    ("concepts", "labels", "expected"),
    [
        (("cake", "fork_and_knife"), [("dog", 3)], "fork and knife"),
        (("traffic light", "dog"), [("cat", 3)], "traffic light"),
        ((), [("tench, Tinca tinca", 9), ("goldfish", 2)], "tench"),
        (None, [("fire_truck", 1)], "fire truck"),
        (None, [], ""),
    ],
)
def test_the_example_is_what_the_store_knows(
    concepts: tuple[str, ...] | None, labels: list[tuple[str, int]], expected: str
) -> None:
    session = session_with(concepts, labels)
    assert suggesting.example(session) == expected  # type: ignore[arg-type]
    assert suggesting.placeholder(session) == (expected or suggesting.NO_NAMES)  # type: ignore[arg-type]
    said = str(suggesting.wanted(session, "type a word"))  # type: ignore[arg-type]
    assert said == (f"type a word, for instance: {expected}" if expected else "type a word")


def test_without_a_store_nothing_is_suggested() -> None:
    bare = FakeSession(has_store=False)
    assert suggesting.known(bare, 6) == [] and suggesting.placeholder(bare) == suggesting.NO_STORE  # type: ignore[arg-type]


def test_labels_that_are_plainly_the_same_are_named_once() -> None:
    session = session_with(None, [("crane, bird", 3), ("crane", 2), (" ", 2), ("dog", 1), ("cat", 1)])
    assert suggesting.known(session, 4) == ["crane", "dog"]  # type: ignore[arg-type]
