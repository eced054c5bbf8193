"""How long the page takes at the server, on the embedded model, in one run; one command.

    python -m explorer.ui.latency [--rounds N]

Every request goes through the handler that the page itself calls, drawing included; what the browser and
the way to it add is not in it. First the workspace, on drawn scenes that no index has seen, then the gallery
on a made-up store of 65,536 neurons, a neuron's own page, "why this word?". Run it when nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import gradio as gr

from explorer.cases import rows, settings
from explorer.cases.examples import load_examples
from explorer.cases.settings import Settings
from explorer.errors import ExplorerError, StoreError
from explorer.session import Session
from explorer.ui.gallery import latency as gallery
from explorer.ui.neuron import latency as neuron
from explorer.ui.timing import Timing, report
from explorer.ui.visit import Focus, Said, Visit
from explorer.ui.why import latency as why
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.opening import Opening
from explorer.ui.workspace.stage import photo_uri
from explorer.ui.workspace.steering import Steering
from explorer.vlm.loading import add_choice, choice_of
from explorer.world import draw

MOST_WORDS = 20
"""Words asked about: each takes seconds."""

ROUNDS = 200
FIRST_SCENE = 20_000
EACH = 5
"""Patches clicked and sliders moved on each picture."""

LOWEST, HIGHEST = -30, 60
PLAIN, CNS = settings.dump(Settings()), settings.dump(Settings(cns=True))
CLICK, FIRST, WHOLE = 300.0, 250.0, 600.0
"""Aims in milliseconds: patch to cards, slider to the first changed words, slider to the whole answer."""


class Moved(NamedTuple):
    """Milliseconds from a slider to the first changed words (None: none changed), and to the whole answer."""

    first: float | None
    whole: float


class Visitor:
    """Somebody who opens pictures, clicks patches and moves sliders, the same way for the same seed."""

    def __init__(self, session: Session, seed: int = 0) -> None:
        self.session, self._random = session, random.Random(seed)
        self.looking = Looking(session)
        self.steering = Steering(session, self.looking.strips)
        self.opening = Opening(self.looking, self.steering, load_examples())

    def start(self) -> float:
        """Milliseconds until a new visitor has picture and cards."""
        start = time.perf_counter()
        self.opening.start()
        return _since(start)

    def look(self, scene: int) -> tuple[Visit, Said, float]:
        """A picture opened, its untouched answer, and the milliseconds of both together."""
        image = draw(scene).image
        start = time.perf_counter()
        view = self.session.look(image)
        visit = Visit(view, "A scene", photo_uri(image, view.grid))
        prompt = self.opening.opened(visit).prompt
        said = list(self.steering.ask(visit, prompt, PLAIN))[-1][2]
        return visit, said, _since(start)

    def click(self, visit: Visit) -> float:
        """Milliseconds from a patch to its cards."""
        grid = visit.view.grid
        cell = [self._random.randrange(grid.rows), self._random.randrange(grid.cols)]
        event = gr.EventData(None, {"cells": [cell]})
        start = time.perf_counter()
        self.looking.pick_patches(visit, Focus(), event)
        return _since(start)

    def bench(self, visit: Visit) -> str:
        """A bench with one of the picture's strongest neurons, moved, where it fires or everywhere."""
        row = self.steering.row(visit.view, self._random.choice(visit.view.top(20)).neuron)
        value, region = self._random.randint(LOWEST, HIGHEST), self._random.choice(("active", "all"))
        return rows.dump([replace(row, value=float(value), region=region)])

    def move(self, visit: Visit, said: Said, bench: str, how: str = PLAIN) -> Moved:
        """The steered answer to a bench and settings."""
        first, start = None, time.perf_counter()
        for before, after, _ in self.steering.steer(visit, said, bench, how):
            if first is None and ("<ins>" in str(after) or "<del>" in str(before)):
                first = _since(start)
        return Moved(first, _since(start))


def measure(session: Session, rounds: int = ROUNDS, seed: int = 0) -> list[Timing]:
    """The workspace: `rounds` clicks and moved sliders, on a fifth as many pictures.

    Raises StoreError without a store: cards without exemplars would be quicker than those people see.
    """
    if session.store is None:
        raise StoreError(
            f"there is no store, so cards would be empty; build one with: {session.build_command}"
        )
    visitor = Visitor(session, seed)
    visitor.move(*_opened(visitor, FIRST_SCENE - 1), "[]", CNS)  # the first of everything is not counted
    visitor.start()
    starts, opens, clicks, contrasts = [], [], [], []
    moves: list[Moved] = []
    for scene in range(FIRST_SCENE, FIRST_SCENE + max(1, rounds // EACH)):
        starts.append(visitor.start())
        visit, said, whole = visitor.look(scene)
        opens.append(whole)
        for _ in range(EACH):
            clicks.append(visitor.click(visit))
            moves.append(visitor.move(visit, said, visitor.bench(visit)))
        contrasts.append(visitor.move(visit, said, "[]", CNS).whole)
    changed = tuple(move.first for move in moves if move.first is not None)
    found = [
        Timing("page opened: picture and cards of the first example", tuple(starts)),
        Timing("another picture, to its whole caption", tuple(opens)),
        Timing("patch clicked, to its cards", tuple(clicks), CLICK),
        Timing("slider moved, to the whole caption", tuple(move.whole for move in moves), WHOLE),
        Timing("CNS switched on, to the whole caption", tuple(contrasts)),
    ]
    if changed:
        name = f"slider moved, to the first changed words ({len(changed)})"
        found.insert(3, Timing(name, changed, FIRST))
    return found


def _opened(visitor: Visitor, scene: int) -> tuple[Visit, Said]:
    return visitor.look(scene)[:2]


def _since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} leaves nothing to measure; use 1 or more")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the page's handlers at the server.")
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help=f"of each kind (default: {ROUNDS})")
    parser.add_argument("--seed", type=int, default=0, help="of the random clicks and moves (default: 0)")
    parser.add_argument("--workspace", action="store_true", help="measure the workspace only")
    add_choice(parser.add_argument_group("the model, its SAE and their store"))
    args = parser.parse_args(argv)
    try:
        choice = choice_of(args)
        if choice.embedded:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        session = Session.chosen(choice)
        print(report(measure(session, args.rounds, args.seed)), flush=True)
        if not args.workspace:
            print(report(gallery.measure(args.rounds)), flush=True)
            print(report(neuron.measure(session, args.rounds)), flush=True)
            print(report(why.measure(session, min(args.rounds, MOST_WORDS))))
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
