"""The latency command: what it measures, and what it says without a store."""

from __future__ import annotations

import pytest

from explorer.errors import StoreError
from explorer.ui import latency
from tests.ui.fake_session import FakeSession


def test_every_kind_is_measured_as_often_as_asked() -> None:
    session = FakeSession()
    timings = latency.measure(session, rounds=10)  # type: ignore[arg-type]
    counts = {
        timing.name.partition(":")[0].partition(" (")[0]: len(timing.milliseconds) for timing in timings
    }
    assert counts["patch clicked, to its cards"] == counts["slider moved, to the whole caption"] == 10
    assert counts["page opened"] == counts["CNS switched on, to the whole caption"] == 2
    assert counts["slider moved, to the first changed words"] == 10, "each edit takes the fork away"
    aims = {timing.aim for timing in timings}
    assert {latency.CLICK, latency.FIRST, latency.WHOLE} <= aims
    assert all(value > 0 for timing in timings for value in timing.milliseconds)


def test_the_same_seed_moves_the_same_sliders() -> None:
    asked = []
    for seed in (1, 1, 2):
        session = FakeSession()
        latency.measure(session, rounds=5, seed=seed)  # type: ignore[arg-type]
        asked.append([[(edit.neuron, edit.value) for edit in edits] for _, edits, _ in session.asked])
    assert asked[0] == asked[1] != asked[2]


def test_without_a_store_it_says_what_to_run() -> None:
    with pytest.raises(StoreError, match="python -m index build"):
        latency.measure(FakeSession(has_store=False))  # type: ignore[arg-type]


def test_no_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        latency.main(["--rounds", "0"])
    assert "leaves nothing to measure" in capsys.readouterr().err
