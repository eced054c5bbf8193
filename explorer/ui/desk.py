"""What happens when a person does something in the workspace: one method per action.

Each method takes what the browser holds and the visitor's own records, and returns what to show.
The desk itself keeps nothing of a visitor, so any number of them may share it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from html import escape
from typing import NamedTuple

import gradio as gr

from explorer.errors import ExplorerError
from explorer.images import load_image
from explorer.records import Activation, Found, TextMatch
from explorer.session import Session, View
from explorer.ui import bench, checks, panels
from explorer.ui.cards import Gallery, Heading, cards
from explorer.ui.examples import Example
from explorer.ui.plain import plainly
from explorer.ui.stage import photo_uri, stage
from explorer.ui.visit import Focus, Said, Visit
from explorer.ui.words import mark

TOP = 20
FOUND = 8
SAID = 60
"""Matches of a text that are looked at; those that fire in the picture are shown first."""
BEST = 3
"""Neurons that go onto the bench together: as many as it takes to silence most concepts."""

PACE = 0.04
"""Seconds between two updates of a growing answer: smooth to read, and no burden."""

NOTHING_MOVED = "Put a neuron on the bench (+) and move its slider."
USUAL_QUESTIONS = ("What color is the apple?", "How many birds are there?")


class Opened(NamedTuple):
    """What the page shows of a picture just opened, in the order of its outputs."""

    visit: Visit
    focus: Focus
    said: Said | None
    stage: str
    cards: str
    shelf: str
    notices: str
    questions: str
    prompt: str
    baseline: str
    steered: str
    bench: dict


class Desk:
    """The actions of the workspace on one session."""

    def __init__(self, session: Session, examples: dict[str, Example]) -> None:
        self.session = session
        self.examples = examples
        self.shelf = panels.Shelf(examples.values())
        self._gallery = Gallery(session)

    # Pictures

    @plainly
    def start(self) -> Opened:
        """A new visitor: the first example."""
        return self._open_example(next(iter(self.examples)), None)

    @plainly
    def open_example(self, visit: Visit | None, event: gr.EventData) -> Opened:
        """One of the example pictures."""
        return self._open_example(_sent(event, "key"), visit)

    def _open_example(self, key: object, visit: Visit | None) -> Opened:
        example = self.examples.get(key) if isinstance(key, str) else None
        if example is None:
            raise ExplorerError(f"there is no example {str(key)[:40]!r}; choose one of those shown")
        view = self.session.look(example.image)
        fresh = Visit(view, example.title, photo_uri(view.image), example.questions, example.key)
        return self._opened(fresh, visit)

    @plainly
    def open_upload(self, visit: Visit | None, path: str | None) -> Opened:
        """A picture of the visitor's own. One that cannot be read leaves the former picture in place."""
        if not path:
            raise ExplorerError("no picture arrived; choose a file")
        view = self.session.look(load_image(path))
        return self._opened(Visit(view, "Your picture", photo_uri(view.image)), visit)

    def _opened(self, fresh: Visit, former: Visit | None) -> Opened:
        if former:
            former.turn.stop()
        focus, prompt = Focus(), self.session.lvlm.default_prompt
        return Opened(
            visit=fresh,
            focus=focus,
            said=None,
            stage=self._stage(fresh, focus),
            cards=self._cards(fresh, focus),
            shelf=self.shelf.html(fresh.example),
            notices=panels.notices(self.session, fresh.view),
            questions=self._questions(fresh, prompt),
            prompt=prompt,
            baseline=panels.WAITING,
            steered=panels.hint(NOTHING_MOVED),
            bench=gr.update(marked=None),
        )

    def _questions(self, visit: Visit, asked: str) -> str:
        default = self.session.lvlm.default_prompt
        return panels.questions((default, *(visit.questions or USUAL_QUESTIONS)), asked)

    # Neurons

    @plainly
    def pick_patch(self, visit: Visit | None, event: gr.EventData) -> tuple[Focus, str, str, dict]:
        """The neurons of one patch."""
        view = _there(visit).view
        place = checks.cell(_sent(event, "row"), _sent(event, "col"), view.grid)
        focus = Focus(source="patch", patch=place)
        top = view.top_at(place.row, place.col, 1)
        focus = Focus(source="patch", patch=place, neuron=top[0].neuron if top else None)
        return focus, self._stage(visit, focus), self._cards(visit, focus), gr.update(marked=list(place))

    @plainly
    def whole_picture(self, visit: Visit | None, event: gr.EventData) -> tuple[Focus, str, str, dict]:
        """Back to the neurons of the whole picture, pooled by mean or maximum."""
        pool = checks.one_of(_sent(event, "pool") or "mean", "pooling", ("mean", "max"))
        focus = Focus(pool=pool)  # type: ignore[arg-type]
        return focus, self._stage(_there(visit), focus), self._cards(visit, focus), gr.update(marked=None)

    @plainly
    def pick_neuron(self, visit: Visit | None, focus: Focus, event: gr.EventData) -> tuple[Focus, str, str]:
        """Show where a neuron fires; picking it again takes the heat off."""
        neuron = checks.whole(_sent(event, "neuron"), "neuron", _there(visit).view.n_neurons)
        fresh = Focus(
            focus.source, focus.pool, focus.patch, focus.concept, None if focus.neuron == neuron else neuron
        )
        return fresh, self._stage(visit, fresh), self._cards(visit, fresh)

    @plainly
    def find(self, visit: Visit | None, focus: Focus, words: object) -> tuple[Focus, str, str]:
        """The neurons that stand for a concept, else those whose labels, words or notes say it."""
        concept = checks.text(words, "the concept", checks.LONGEST_CONCEPT)
        if not concept:
            raise ExplorerError("type what to look for, for instance: fork and knife")
        there = _there(visit)
        found = self.session.find(concept, 1) or self._said(there.view, concept)
        fresh = Focus("concept", focus.pool, focus.patch, concept, found[0].neuron if found else None)
        return fresh, self._stage(there, fresh), self._cards(there, fresh)

    def _said(self, view: View, words: str) -> list[TextMatch]:
        """Neurons whose labels, words or notes say it: people's own first, then the strongest here."""
        hits = self.session.search(words, SAID)
        return sorted(hits, key=lambda hit: (not hit.own, -float(view.map(hit.neuron).max())))[:FOUND]

    def _stage(self, visit: Visit, focus: Focus) -> str:
        view, neuron = visit.view, focus.neuron
        values = None if neuron is None else view.map(neuron)
        name = "" if neuron is None else self._gallery.title(neuron)
        return stage(visit.photo, visit.title, view.grid, values, name, focus.patch)

    def _cards(self, visit: Visit, focus: Focus) -> str:
        view = visit.view
        if focus.source == "patch" and focus.patch is not None:
            row, col = focus.patch
            heading = Heading(f"Patch {row + 1}, {col + 1}", "Strongest at this row and column.")
            activations, empty = view.top_at(row, col, TOP), "No neuron fires at this patch."
        elif focus.source == "concept":
            found = self.session.find(focus.concept, FOUND)
            said = [] if found else self._said(view, focus.concept)
            note = "Their labels, words or notes say it." if said else "Best first."
            note = f"{note} With their peak in this picture."
            heading = Heading(f"“{focus.concept}”", note, found=bool(found))
            activations = [Activation(hit.neuron, float(view.map(hit.neuron).max())) for hit in found or said]
            empty = "No neuron is known for this. Try one word, such as cake or dog."
        else:
            pooled = "on average over its patches" if focus.pool == "mean" else "at their strongest patch"
            heading = Heading("Whole picture", f"Strongest {pooled}.", focus.pool)
            activations, empty = view.top(TOP, focus.pool), "No neuron fires in this picture."
        return cards(heading, activations, focus.neuron, self._gallery, empty)

    # Bench and answers

    @plainly
    def put(self, visit: Visit | None, focus: Focus | None, rows: str, event: gr.EventData) -> str:
        """A neuron onto the bench, untouched."""
        view = _there(visit).view
        neuron = checks.whole(_sent(event, "neuron"), "neuron", view.n_neurons)
        sought = self._sought(focus, 1)
        row = self._row(view, neuron, sought[0].concept if sought else "")
        return bench.dump(bench.add(bench.parse(rows, view), row))

    @plainly
    def put_best(self, visit: Visit | None, focus: Focus | None, rows: str) -> str:
        """The best neurons of the search onto the bench, untouched."""
        view, best = _there(visit).view, self._sought(focus, BEST)
        if not best:
            raise ExplorerError("search for a concept first, for instance: fork and knife")
        there = bench.parse(rows, view)
        for hit in best:
            there = bench.add(there, self._row(view, hit.neuron, hit.concept))
        return bench.dump(there)

    def _sought(self, focus: Focus | None, k: int) -> list[Found]:
        """The best neurons of the search that the cards show; none when they show something else."""
        return self.session.find(focus.concept, k) if focus and focus.source == "concept" else []

    def _row(self, view: View, neuron: int, sought: str) -> bench.Row:
        """A row for a neuron. sought: the concept it was found by, else its label stands for it."""
        concept = sought or self._gallery.label(neuron)
        probe = self.session.store.probe() if self.session.store is not None else None
        if probe is None or concept not in probe.concepts:
            return bench.new_row(neuron, self._gallery.name(neuron), view)
        seen = bool(sought) and bool(self.session.where(view, concept).any())
        return bench.new_row(neuron, self._gallery.name(neuron), view, concept, seen)

    @plainly
    def settle(self, visit: Visit | None, rows: str) -> str:
        """The bench as it stood, on a picture just opened."""
        return bench.dump(bench.settle(rows, _there(visit).view))

    @plainly
    def choose_question(self, visit: Visit | None, event: gr.EventData) -> str:
        """A suggested question into the prompt box."""
        _there(visit)
        return checks.text(_sent(event, "text"), "the question", checks.LONGEST_PROMPT)

    @plainly
    def ask(self, visit: Visit | None, prompt: object) -> Iterator[tuple]:
        """The untouched model's answer while it grows: panel, questions; at the end the answer itself."""
        view, cancel = _there(visit).view, visit.turn.begin()
        asked = checks.text(prompt, "the question", checks.LONGEST_PROMPT) or self.session.lvlm.default_prompt
        yield panels.WAITING, self._questions(visit, asked), None
        text = ""
        with closing(self.session.stream(view, asked, cancel=cancel, visitor=visit.turn)) as growing:
            for text in _paced(growing):
                yield panels.answer(escape(text), growing=True), gr.skip(), gr.skip()
        if not cancel.is_set():
            yield panels.answer(escape(text)), gr.skip(), Said(asked, text)

    @plainly
    def steer(
        self, visit: Visit | None, said: Said | None, rows: str, replace: object
    ) -> Iterator[tuple[object, object]]:
        """The answer with the bench's edits beside the untouched one, changed words marked in both."""
        view = _there(visit).view
        edits = bench.edits(bench.parse(rows, view), view.grid, partial(self.session.where, view))
        if said is None:
            yield gr.skip(), gr.skip()
            return
        plain = panels.answer(escape(said.text))
        if not edits and replace is not True:
            yield plain, panels.hint(NOTHING_MOVED)
            return
        text, cancel = "", visit.turn.begin((rows, replace))
        how = {"replace": replace is True, "cancel": cancel, "visitor": visit.turn}
        with closing(self.session.stream(view, said.prompt, edits, **how)) as growing:
            for text in _paced(growing):
                yield gr.skip(), panels.answer(mark(said.text, text, finished=False).after, growing=True)
        if not cancel.is_set():
            marked = mark(said.text, text)
            yield panels.answer(marked.before), panels.answer(marked.after)

    def hurry(self, visit: Visit | None, rows: str, replace: object) -> None:
        """The bench has changed: an answer to an older state of it that takes long need not be finished."""
        if visit is not None:
            visit.turn.hurry((rows, replace))

    def stop(self, visit: Visit | None) -> None:
        """Something else is asked: the answer in the making need not be finished."""
        if visit is not None:
            visit.turn.stop()


def _there(visit: Visit | None) -> Visit:
    """The visit, once there is one."""
    if visit is None:
        raise ExplorerError("no picture is open; choose an example or upload one")
    return visit


def _sent(event: gr.EventData, name: str) -> object:
    """What the browser sent under a name, unchecked; None when it sent nothing."""
    data = event._data
    return data.get(name) if isinstance(data, dict) else None


def _paced(texts: Iterator[str]) -> Iterator[str]:
    """The growing texts, with those left out that follow too soon; the last one always comes."""
    last, shown, text = 0.0, "", ""
    for text in texts:
        if time.monotonic() - last >= PACE:
            last, shown = time.monotonic(), text
            yield text
    if text != shown:
        yield text
