"""How long "why this word?" takes at the server: from the click to the first list, the measured effects, the
first repair, and the end of all trials. Uses the page's own handlers on example pictures."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import gradio as gr

from explorer.analyze.meaning import asked_at
from explorer.analyze.places import LINKS
from explorer.cases.examples import load_examples
from explorer.session import Session
from explorer.ui.timing import Timing
from explorer.ui.visit import Focus, Said, Visit
from explorer.ui.why.asking import Asking
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.stage import photo_uri
from explorer.ui.workspace.steering import Steering

FIRST_AIM = 1000.0
"""Milliseconds to the first list."""

STAGES = ("first list", "measured effects", "first repair", "all trials")


def measure(session: Session, rounds: int) -> list[Timing]:
    """Click on things that captions name, `rounds` of them: the last one of each example, then the one
    before, and so on."""
    looking = Looking(session)
    asking = Asking(session, looking, Steering(session, looking.strips))
    found: dict[str, list[float]] = defaultdict(list)
    for visit, said, at in _clicks(session, asking.concepts(), rounds):
        for stage, took in _clicked(asking, visit, said, at).items():
            found[stage].append(1000 * took)
    aims = {"first list": FIRST_AIM}
    return [
        Timing(f"why this word: {stage}", tuple(found[stage]), aims.get(stage))
        for stage in STAGES
        if found[stage]
    ]


def _clicks(session: Session, concepts: Sequence[str], rounds: int) -> list[tuple[Visit, Said, int]]:
    """Visits, their captions, and the characters clicked."""
    lists = []
    for example in load_examples().values():
        view = session.look(example.image)
        visit = Visit(view, example.title, photo_uri(view.image, view.grid))
        said = Said(session.lvlm.default_prompt, session.answer(view))
        words = session.lvlm.answer_words(said.text)
        things = [
            asked_at(session, said.text, w.start, concepts) for w in words if w.text.lower() not in LINKS
        ]
        places = dict.fromkeys(asked.start for asked in things if asked.instead is not None)
        lists.append([(visit, said, at) for at in reversed(places)])
    ranked = [one[i] for i in range(max(map(len, lists))) for one in lists if i < len(one)]
    return [ranked[i % len(ranked)] for i in range(rounds)]


def _clicked(asking: Asking, visit: Visit, said: Said, at: int) -> dict[str, float]:
    """Seconds from the click to each stage that was reached."""
    visit.study.focus = Focus()
    start, times = time.perf_counter(), {}
    for shown in asking.why_said(visit, said, "", gr.EventData(None, {"at": at})):
        now, cards = time.perf_counter() - start, shown.cards
        times.setdefault("first list", now)
        if "being measured" not in cards:
            times.setdefault("measured effects", now)
        if 'class="mend"' in cards:
            times.setdefault("first repair", now)
        times["all trials"] = now
    return times
