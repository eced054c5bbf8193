"""How long the server takes to draw a neuron's page: `python -m explorer.ui.neuron.latency`. And its size.

Needs a session with a store. Measures the actions as the page calls them, without the network.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import numpy as np

from explorer.session import Session
from explorer.ui.hub import Rules
from explorer.ui.neuron.lens import enlarged
from explorer.ui.neuron.pages import Page, Pages
from explorer.ui.neuron.sheet import loudest
from explorer.ui.timing import Timing, report
from explorer.ui.workspace.looking import Looking
from explorer.vlm.loading import add_choice, choice_of

AIM = 300.0
"""Milliseconds in which a page should be drawn."""

ROUNDS = 100


def measure(session: Session, rounds: int = ROUNDS, seed: int = 0) -> list[Timing]:
    """Times of opening neurons that nobody has opened before, of opening them again, and of enlarging."""
    pages, neurons = Pages(Looking(session), Rules()), _living(session, rounds, seed)
    pages.draw(neurons[0], None)  # opens the files of the store
    first = [_milliseconds(lambda one=one: pages.draw(one, None)) for one in neurons[1:]]
    again = [_milliseconds(lambda one=one: pages.draw(one, None)) for one in neurons[1:]]
    large = [_milliseconds(lambda one=one: _enlarge(session, one)) for one in neurons[1:]]
    return [
        Timing("a neuron's page, opened for the first time", tuple(first), AIM),
        Timing("a neuron's page, opened again", tuple(again), AIM),
        Timing("an exemplar enlarged", tuple(large), AIM),
    ]


def sizes(session: Session, rounds: int = ROUNDS, seed: int = 0) -> list[int]:
    """Bytes of HTML of as many pages."""
    pages = Pages(Looking(session), Rules())
    return [_bytes(pages.draw(neuron, None)) for neuron in _living(session, rounds, seed)]


def _living(session: Session, rounds: int, seed: int) -> list[int]:
    """Neurons by chance, each once and one more than asked for if there are as many."""
    wanted = min(rounds + 1, session.sae.n_neurons)
    numbers = random.Random(seed).sample(range(session.sae.n_neurons), session.sae.n_neurons)
    living = (number for number in numbers if session.summary(number).fires > 0)
    found = [number for number, _ in zip(living, range(wanted), strict=False)]
    return found if len(found) > 1 else found * 2


def _enlarge(session: Session, neuron: int) -> None:
    exemplars = session.exemplars(neuron)
    enlarged(session, exemplars[0], len(exemplars), loudest(exemplars))


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def _bytes(page: Page) -> int:
    return sum(len(part.encode()) for part in page if isinstance(part, str))


def main() -> None:
    """Measure on the embedded set and print a line for each."""
    parser = argparse.ArgumentParser(description="Time to draw a neuron's page, and its size.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    add_choice(parser.add_argument_group("the model, its SAE and their store"))
    asked = parser.parse_args()
    session = Session.chosen(choice_of(asked))
    print(report(measure(session, asked.rounds)))
    p50, p95 = np.percentile(sizes(session, asked.rounds), [50, 95])
    print(f"{'HTML of a page':<52} p50 {p50 / 1000:7.0f} kB  p95 {p95 / 1000:7.0f} kB")


if __name__ == "__main__":
    main()
