"""The fair line of visitors: one at a time, nobody starves, a greedy one waits, a cancelled one leaves."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from explorer.session.line import AnyOf, Line, Newest


def standing(line: Line, count: int) -> None:
    """Wait until so many stand in line (the holder does not)."""
    for _ in range(500):
        if len(line._waiting) == count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{len(line._waiting)} wait, not {count}")


def order_of(visitors: list[str]) -> list[str]:
    """In which order these get the model, when they all came, in this order, while it was held."""
    line, order, threads = Line(), [], []

    def work(visitor: str) -> None:
        with line.turn(visitor) as mine:
            assert mine
            order.append(visitor)

    with line.turn("holder"):
        for number, visitor in enumerate(visitors, 1):
            threads.append(threading.Thread(target=work, args=(visitor,)))
            threads[-1].start()
            standing(line, number)
    for thread in threads:
        thread.join(10)
    return order


def test_first_come_first_served_among_equals() -> None:
    assert order_of(list("abcdef")) == list("abcdef")


def test_a_greedy_visitor_waits_behind_the_first_turn_of_the_others() -> None:
    assert order_of(list("aaaabbc")) == ["a", "b", "c", "a", "b", "a", "a"]


def test_one_holder_at_a_time_whatever_happens() -> None:
    line, inside, worst = Line(), [], []

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(20):
            try:
                with line.turn(number % 4):
                    inside.append(number)
                    worst.append(len(inside))
                    time.sleep(rng.random() / 2000)
                    inside.remove(number)
                    if rng.random() < 0.2:
                        raise ValueError
            except ValueError:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert max(worst) == 1 and len(worst) == 160 and not line.busy
    assert not line._waiting


def test_turns_alternate_between_generations_of_many_passes() -> None:
    line, order, ready = Line(), [], threading.Barrier(4)

    def generate(visitor: str) -> None:
        ready.wait()
        for _ in range(30):
            with line.turn(visitor):
                order.append(visitor)
                time.sleep(0.002)

    threads = [threading.Thread(target=generate, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    half = Counter(order[:60])
    assert min(half.values()) >= 10, half


def test_who_just_had_it_lets_one_newcomer_pass_and_owes_no_more() -> None:
    line = Line()
    for _ in range(1000):
        with line.turn("old"):
            pass
    assert len(line._ends) <= 1
    order: list[str] = []

    def work(visitor: str) -> None:
        with line.turn(visitor):
            order.append(visitor)

    names = ("old", "new", "old", "newer")
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    with line.turn("holder"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            standing(line, number)
    for thread in threads:
        thread.join(10)
    assert order == ["new", "newer", "old", "old"]


def test_one_who_is_cancelled_leaves_the_line() -> None:
    line, cancel, got = Line(), threading.Event(), []

    def work() -> None:
        with line.turn("b", cancel) as mine:
            got.append(mine)

    with line.turn("a"):
        thread = threading.Thread(target=work)
        thread.start()
        standing(line, 1)
        cancel.set()
        thread.join(5)
        assert got == [False] and line.busy and not line._waiting
    assert not line.busy
    with line.turn("b", threading.Event()) as mine:
        assert mine


def test_newest_ends_the_one_before_and_only_the_same_visitors() -> None:
    newest = Newest()
    first, other = newest.begin("a"), newest.begin("b")
    second = newest.begin("a")
    assert first.is_set() and not second.is_set() and not other.is_set()
    newest.end("a", first)
    third = newest.begin("a")
    assert second.is_set() and not third.is_set()
    newest.end("a", third)
    newest.end("b", other)
    assert not newest._events
    strangers = [newest.begin(None) for _ in range(3)]
    assert not any(event.is_set() for event in strangers) and not newest._events


@pytest.mark.parametrize("which", [0, 1, None])
def test_any_of(which: int | None) -> None:
    events = [threading.Event(), threading.Event()]
    if which is not None:
        events[which].set()
    assert AnyOf(None, *events).is_set() is (which is not None)
    assert not AnyOf(None).is_set()
