"""What the parts of the page share: session, a visitor's states, main components, and how events go on.

A part of the page is a module with `draw`, which lays out its components and returns them, and `wire`,
which ties them to their actions. Parts know the hub, not one another.

Any HTML part may hold buttons `<button data-do="NAME" data-with='{"neuron": 3}'>`; with `html(..., script=
"buttons.js", events=("NAME",))` a click triggers the event NAME on that part. The names that
work everywhere, for parts listed in `emitters`: "put" (neuron onto the bench, at "alpha" if given), "pick"
(its heat on the picture), "page" (its own page; `part.page` is an attribute of the framework, so the event is
reached as `explorer.ui.neuron.layout` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from explorer.session import Session
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.opening import Opening
from explorer.ui.workspace.steering import Steering

SCRIPTS = Path(__file__).resolve().parents[2] / "assets" / "ui"

MOST_ANSWERS = 32
"""Answers in the making at once, of all visitors; the session deals out the model among them, fairly."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
LATEST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""An event that a newer one overtakes runs once more, on the newest."""
QUICK: dict[str, Any] = {**LATEST, "concurrency_limit": 32}
"""For what takes milliseconds and no model. Queued, for an unqueued event cannot show a message."""
LOOK: dict[str, Any] = {**QUICK, "concurrency_limit": 1, "concurrency_id": "looks"}
"""For what cards and picture show: one after another, so that replies arrive in the order of clicks."""
AT_ONCE: dict[str, Any] = {**LATEST, "queue": False}
"""For what must pass a full queue and has nothing to refuse, such as stopping an answer."""


EVERYWHERE = ("put", "pick", "page")
"""Events of the parts in `Hub.emitters`."""


def html(
    name: str, value: str = "", script: str | None = None, events: Sequence[str] = (), **more: object
) -> gr.HTML:
    """An HTML part with an id and, where it does something, its script from assets/ui.

    events: names that the script triggers without having them quoted in its text.
    """
    code = None if script is None else (SCRIPTS / script).read_text(encoding="utf-8")
    if events:
        code = f"{code or ''}\n// Events: {', '.join(map(repr, events))}"
    return gr.HTML(value, elem_id=name, js_on_load=code, apply_default_css=False, **more)


@dataclass(frozen=True)
class Rules:
    """What the person who serves the page allows.

    read_only: nobody writes notes, lists or cases; cases: folder of the cases kept on the server, None for
    the usual one; queue: longest queue of events; trouble: why the page runs without a store, ended by ": "
    and the command that builds one.
    """

    read_only: bool = False
    cases: Path | None = None
    queue: int = 64
    trouble: str = ""


@dataclass(frozen=True)
class States:
    """A visitor's records, in `gr.State` and nowhere else; None until there are any.

    visit: Visit; focus: Focus; said: Said, the complete untouched answer; told: Told, the steered one.
    """

    visit: gr.State
    focus: gr.State
    said: gr.State
    told: gr.State


def states() -> States:
    """Fresh states inside the present Blocks."""
    return States(*(gr.State(None) for _ in range(4)))


@dataclass(frozen=True)
class Hub:
    """The shared things. tabs: ids "workspace", "gallery", "cases".

    bench, settings: JSON of `explorer.cases.rows` and `explorer.cases.settings`, in both directions.
    emitters: the HTML parts whose buttons put, pick and open neurons.
    """

    session: Session
    rules: Rules
    looking: Looking
    steering: Steering
    opening: Opening
    page: gr.Blocks
    tabs: gr.Tabs
    states: States
    stage: gr.HTML
    cards: gr.HTML
    shelf: gr.HTML
    notices: gr.HTML
    prompt: gr.Textbox
    questions: gr.HTML
    baseline: gr.HTML
    steered: gr.HTML
    bench: gr.HTML
    settings: gr.HTML
    emitters: list[gr.HTML] = field(default_factory=list)

    @property
    def shown(self) -> list[Any]:
        """Outputs of a handler that returns `looking.Shown`."""
        return [self.states.focus, self.stage, self.cards, self.bench]

    @property
    def opened(self) -> list[Any]:
        """Outputs of a handler that returns `opening.Opened`."""
        s = self.states
        more = [self.shelf, self.notices, self.questions, self.prompt, self.baseline, self.steered]
        return [s.visit, *self.shown, s.said, s.told, *more]

    @property
    def steer(self) -> dict[str, Any]:
        """The arguments of an event that makes the steered answer to what the bench and settings say."""
        s = self.states
        return {
            "fn": self.steering.steer,
            "inputs": [s.visit, s.said, self.bench, self.settings],
            "outputs": [self.baseline, self.steered, s.told],
            "concurrency_limit": MOST_ANSWERS,
            **LATEST,
        }

    @property
    def ask(self) -> dict[str, Any]:
        """The arguments of an event that makes the untouched answer."""
        s = self.states
        return {
            "fn": self.steering.ask,
            "inputs": [s.visit, self.prompt, self.settings],
            "outputs": [self.baseline, self.questions, s.said],
            "concurrency_limit": MOST_ANSWERS,
            **LATEST,
        }

    def then_steer(self, event: gr.events.Dependency) -> gr.events.Dependency:
        """Once the event has succeeded, steer: for handlers that change the bench or the settings."""
        return event.success(**self.steer)

    def then_answer(self, event: gr.events.Dependency) -> gr.events.Dependency:
        """Once the event has succeeded, ask and steer: for handlers that change picture or question."""
        return self.then_steer(event.success(**self.ask))

    def then_settle(self, event: gr.events.Dependency) -> gr.events.Dependency:
        """Once a picture was opened: fit the bench to it, ask and steer."""
        s = self.states
        return self.then_answer(
            event.success(self.steering.settle, [s.visit, self.bench], self.bench, **QUICK)
        )

    def then_go(self, event: gr.events.Dependency, tab: str) -> gr.events.Dependency:
        """Once the event has succeeded, turn to a tab."""
        return event.success(lambda: gr.Tabs(selected=tab), None, self.tabs, **AT_ONCE)
