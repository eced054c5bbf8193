"""The bench and the answers: putting neurons on it, asking, steering. One method per action.

Each method takes what the browser holds and the visitor's own records, and returns what to show. Keeps
nothing of a visitor, so any number of them may share it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from html import escape

import gradio as gr

from explorer.cases import checks, rows, settings
from explorer.records import Found
from explorer.session import Session, View
from explorer.session.opening import is_embedded
from explorer.ui.exemplars import Strips
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Focus, Said, Told, Visit
from explorer.ui.workspace import panels
from explorer.ui.workspace.suggesting import wanted
from explorer.ui.workspace.words import mark, words

BEST = 3
"""Neurons that go onto the bench together: as many as it takes to silence most concepts."""

PACE = 0.04
"""Seconds between two updates of a growing answer: smooth to read, and no burden."""

NOTHING_MOVED = "Put a neuron on the bench (+) and move its slider."
USUAL_QUESTIONS = ("What color is the apple?", "How many birds are there?")
"""For the embedded model, which knows its own drawn world."""

OPEN_QUESTIONS = ("Is there a person in the image?", "What is in the background?")
"""For any other."""


class Steering:
    """The actions on the bench and the answers of one session."""

    def __init__(self, session: Session, strips: Strips) -> None:
        self.session, self._strips = session, strips

    def questions(self, visit: Visit, asked: str) -> str:
        """The questions that suggest themselves, as HTML."""
        lvlm = self.session.lvlm
        usual = USUAL_QUESTIONS if is_embedded(lvlm.model_id) else OPEN_QUESTIONS
        return panels.questions((lvlm.default_prompt, *(visit.questions or usual)), asked)

    # Bench

    @plainly
    def put(self, visit: Visit | None, focus: Focus | None, bench: str, event: gr.EventData) -> str:
        """A neuron onto the bench, untouched, or at the value that came along."""
        view = there(visit).view
        neuron = checks.whole(sent(event, "neuron"), "neuron", view.n_neurons)
        sought = self._sought(focus, 1)
        row = self.row(view, neuron, sought[0].concept if sought else "")
        on_it, alpha = rows.parse(bench, view), sent(event, "alpha")
        if alpha is not None:
            row = replace(row, value=checks.finite(alpha, "the value"))
            on_it = [row if other.neuron == neuron else other for other in on_it]
        return rows.dump(rows.add(on_it, row))

    @plainly
    def put_best(self, visit: Visit | None, focus: Focus | None, bench: str) -> str:
        """The best neurons of the search onto the bench, untouched."""
        view, best = there(visit).view, self._sought(focus, BEST)
        if not best:
            raise wanted(self.session, "search for a concept first")
        on_it = rows.parse(bench, view)
        for hit in best:
            on_it = rows.add(on_it, self.row(view, hit.neuron, hit.concept))
        return rows.dump(on_it)

    def _sought(self, focus: Focus | None, k: int) -> list[Found]:
        """The best neurons of the search that the cards show; none when they show something else."""
        return self.session.find(focus.concept, k) if focus and focus.source == "concept" else []

    def row(self, view: View, neuron: int, sought: str = "") -> rows.Row:
        """A row for a neuron. sought: the concept it was found by, else its label stands for it."""
        concept = sought or self._strips.label(neuron)
        probe = self.session.store.probe() if self.session.store is not None else None
        if probe is None or concept not in probe.concepts:
            return rows.new_row(neuron, self._strips.name(neuron), view)
        there_is = bool(self.session.where(view, concept).any())
        seen = bool(sought) and there_is
        return rows.new_row(neuron, self._strips.name(neuron), view, concept, seen, not there_is)

    @plainly
    def settle(self, visit: Visit | None, bench: str) -> object:
        """The bench as it stood, on the present picture.

        One that fits already is left alone: by now the browser may hold a newer one.
        """
        view = there(visit).view
        settled = rows.settle(bench, view, partial(self.session.where, view))
        return gr.skip() if settled == rows.parse(bench, view, any_patch=True) else rows.dump(settled)

    # Answers

    @plainly
    def choose_question(self, visit: Visit | None, event: gr.EventData) -> str:
        """A suggested question into the prompt box."""
        there(visit)
        return checks.text(sent(event, "text"), "the question", checks.LONGEST_PROMPT)

    @plainly
    def ask(self, visit: Visit | None, prompt: object, how: str) -> Iterator[tuple]:
        """The untouched model's answer while it grows: panel, questions; at the end the answer itself."""
        view, cancel = there(visit).view, visit.turn.begin()
        asked = checks.text(prompt, "the question", checks.LONGEST_PROMPT) or self.session.lvlm.default_prompt
        options = settings.parse(how).plain().options()
        yield panels.WAITING, self.questions(visit, asked), None
        text = ""
        growing = self.session.stream(view, asked, cancel=cancel, visitor=visit.turn, **options)
        with closing(growing):
            for text in _paced(growing):
                yield panels.answer(escape(text), growing=True), gr.skip(), gr.skip()
        if not cancel.is_set():
            yield panels.answer(words(text)), gr.skip(), Said(asked, text)

    @plainly
    def steer(
        self, visit: Visit | None, said: Said | None, bench: str, how: str
    ) -> Iterator[tuple[object, object, object]]:
        """The answer with the bench's edits beside the untouched one, changed words marked in both."""
        view = there(visit).view
        asked = settings.parse(how)
        edits = rows.edits(rows.parse(bench, view), view.grid, partial(self.session.where, view))
        if said is None:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        plain = panels.answer(words(said.text))
        if not edits and not asked.changes:
            yield plain, panels.hint(NOTHING_MOVED), None
            return
        text, cancel = "", visit.turn.begin((bench, how))
        options = asked.options()
        growing = self.session.stream(view, said.prompt, edits, cancel=cancel, visitor=visit.turn, **options)
        with closing(growing):
            for text in _paced(growing):
                shown = mark(said.text, text, finished=False).after
                yield gr.skip(), panels.answer(shown, growing=True), gr.skip()
        if not cancel.is_set():
            marked = mark(said.text, text)
            told = Told(said.prompt, bench, how, text)
            yield panels.answer(marked.before), panels.answer(marked.after), told

    def hurry(self, visit: Visit | None, bench: str, how: str) -> None:
        """The bench has changed: an answer to an older state of it that takes long need not be finished."""
        if visit is not None:
            visit.turn.hurry((bench, how))

    def stop(self, visit: Visit | None) -> None:
        """Something else is asked: the answer in the making need not be finished."""
        if visit is not None:
            visit.turn.stop()


def _paced(texts: Iterator[str]) -> Iterator[str]:
    """The growing texts, with those left out that follow too soon; the last one always comes."""
    last, shown, text = 0.0, "", ""
    for text in texts:
        if time.monotonic() - last >= PACE:
            last, shown = time.monotonic(), text
            yield text
    if text != shown:
        yield text
