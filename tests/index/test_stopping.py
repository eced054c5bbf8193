"""Signals: held for a moment, noted, raised, and raised again where Python dropped the exception."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from index.stopping import ENDING, Ended, StopRequests, Unheard, ending, held

RAISED = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Ended), (signal.SIGHUP, Ended)]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Ctrl-C interrupts, which a shell's background job does not; afterwards all is as it was."""
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    found = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert found == before | {signal.SIGINT: signal.default_int_handler}


def send(number: int) -> None:
    os.kill(os.getpid(), number)


class Last:
    """Sends a signal while it is collected; an exception that is raised there reaches nobody."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        send(self.number)
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "kind"), RAISED)
def test_what_python_dropped_is_raised_again(
    number: int, kind: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind) as caught, ending():
        Last(number)
        time.sleep(10)
        pytest.fail("the signal was lost")
    assert getattr(caught.value, "signal", number) == number
    assert "ignored" not in capsys.readouterr().err


def test_other_dropped_exceptions_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: told.append(type(found.exc_value)))

    class Wrong:
        def __del__(self) -> None:
            raise ZeroDivisionError

    with ending():
        Wrong()
    assert told == [ZeroDivisionError]


@pytest.mark.parametrize("number", ENDING)
def test_what_is_ignored_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    with ending(), held(), StopRequests() as requests:
        send(number)
        time.sleep(0.01)
    assert not requests.asked() and signal.signal(number, before) == signal.SIG_IGN


@pytest.mark.parametrize(("number", "kind"), RAISED)
def test_a_held_signal_waits_for_the_end(number: int, kind: type[BaseException]) -> None:
    done = []
    with pytest.raises(kind), ending():
        with held():
            send(number)
            threading.Thread(target=send, args=(number,)).start()  # which does not block it
            time.sleep(0.05)
            done.append("all")
        time.sleep(10)
    assert done == ["all"] and number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_held_error_passes() -> None:
    with pytest.raises(ZeroDivisionError), held():
        raise ZeroDivisionError


def test_other_threads_leave_signals_alone() -> None:
    found = []

    def elsewhere() -> None:
        with ending(), held(), StopRequests() as requests:
            found.append((signal.getsignal(signal.SIGTERM), requests.asked()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [(signal.getsignal(signal.SIGTERM), False)]


@pytest.mark.parametrize("number", ENDING)
def test_a_request_is_noted_once_and_ctrl_c_after_it_interrupts(
    number: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # in use, or its terminal gone: a handler must not touch it
    with StopRequests() as requests:
        send(number)
        send(signal.SIGTERM)
        assert requests.signal == number
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
            time.sleep(10)
    assert capfd.readouterr().err.count("saving the progress") == 1


def test_an_unheard_request_is_left_to_others() -> None:
    with pytest.raises(KeyboardInterrupt), Unheard() as requests:
        send(signal.SIGINT)
        time.sleep(10)
    assert not requests.asked()
