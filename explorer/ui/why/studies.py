"""The panel below the bench: words x neurons, and the two sweeps. One method per action.

Each is a stream that tells its progress, can be stopped, and ends when another analysis begins or another
picture is opened. Keeps nothing of a visitor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import NamedTuple

import gradio as gr
import numpy as np

from explorer.analyze import alpha_sweep, noise_sweep, word_map
from explorer.analyze.meaning import asked_at
from explorer.analyze.noise import STEPS, Sweep
from explorer.analyze.places import LINKS
from explorer.cases import checks, rows, settings
from explorer.errors import ExplorerError
from explorer.session import Session
from explorer.ui.buttons import does
from explorer.ui.plain import plainly
from explorer.ui.sent import sent, there
from explorer.ui.visit import Focus, Said, Told, Visit
from explorer.ui.why import figures
from explorer.ui.why.asking import Asking, Spoken
from explorer.ui.why.grid import grid
from explorer.ui.why.running import Finished, running
from explorer.ui.why.telling import number

SHARE = 16
"""Pictures that hold the model at a time."""

DRAWS = 3
"""Draws of noise that a change is averaged over."""

LONGEST_NOISY = 32
"""Tokens of an answer about a noisy picture: what it says of pure noise would go on and on."""

MOST_STEPS, FARTHEST = 81, 1e6
UNTOUCHED, STEERED = "untouched answer", "steered answer"
FIRES, ALL = "where it fires", "everywhere"


class Swept(NamedTuple):
    """What a sweep's panel shows: status, charts (one or two updates), captions."""

    status: str
    chart: object
    captions: object


def status(words: str, done: int = 0, total: int = 0, going: bool = False) -> str:
    """The line above a result: what is being done, how far it is, the way to end it."""
    bar = (
        f'<progress max="{total}" value="{done}" aria-label="Progress"></progress>' if going and total else ""
    )
    stop = f'<button type="button" class="halt" {does("halt")}>Stop</button>' if going else ""
    return f'<p class="status" role="status">{escape(words)}{bar}{stop}</p>'


@dataclass(frozen=True, eq=False)
class Studies:
    """The analyses of one session's pictures that a person starts below the bench."""

    session: Session
    asking: Asking

    # Words x neurons

    @plainly
    def map_words(
        self, visit: Visit | None, said: Said | None, told: Told | None, which: object, how: str
    ) -> Iterator[tuple[object, str]]:
        """The map of the untouched or the steered answer: table, status."""
        view = there(visit).view
        spoken = self._spoken(visit, said, told, which, how)
        cancel = visit.study.begin()
        yield gr.skip(), status("Reading attention and gradients …", going=True)
        known = {"prompt": spoken.prompt, "answer": spoken.text, "batch": SHARE, "cancel": cancel}
        work = running(lambda hears: word_map(spoken.session, view, progress=hears, **known), cancel)
        with closing(work):
            for one in work:
                if visit.study.left:
                    return
                if isinstance(one, Finished):
                    cut = "Stopped: the neurons measured so far. " if cancel.is_set() else ""
                    title = f"{cut}{visit.title}: “{spoken.text}” {spoken.context}{self._unseen()}"
                    yield grid(one.result, self.asking.looking.strips.title), status(title)
                else:
                    yield gr.skip(), status("Measuring neurons one by one", *one, going=True)

    def _unseen(self) -> str:
        """What must be said of the measure by attention."""
        if self.session.lvlm.has_places:
            return ""
        return " This model's attention cannot be laid over the picture: by it, every patch counts alike."

    def _spoken(self, visit: Visit, said: Said | None, told: Told | None, which: object, how: str) -> Spoken:
        """The answer that is asked for."""
        chosen = checks.one_of(which, "the answer", (UNTOUCHED, STEERED))
        if chosen == STEERED:
            if told is None:
                raise ExplorerError("there is no steered answer yet; move a slider of the bench first")
            return self.asking.spoken(visit, told)
        if said is None:
            raise ExplorerError("the answer is not complete yet; wait for its full stop")
        return Spoken(self.session, said.prompt, said.text, settings.parse(how).max_new_tokens)

    @plainly
    def put_group(self, visit: Visit | None, bench: str, event: gr.EventData) -> str:
        """The neurons of a group onto the bench, untouched, as many as it holds."""
        view, neurons = there(visit).view, sent(event, "neurons")
        if not isinstance(neurons, list) or not 0 < len(neurons) <= 500:
            raise ExplorerError("a group has 1 to 500 neurons; choose one of the map again")
        on_it = rows.parse(bench, view)
        fresh = [checks.whole(neuron, "neuron", view.n_neurons) for neuron in neurons]
        fresh = [n for n in dict.fromkeys(fresh) if all(row.neuron != n for row in on_it)]
        room = rows.MOST_ROWS - len(on_it)
        if fresh and not room:
            raise ExplorerError(f"the bench is full ({rows.MOST_ROWS} neurons); remove some first")
        for neuron in fresh[:room]:
            on_it = rows.add(on_it, self.asking.steering.row(view, neuron))
        if len(fresh) > room:
            gr.Info(f"The bench holds {rows.MOST_ROWS}: the {room} that do most of {len(fresh)} are on it.")
        return rows.dump(on_it)

    # Sweeps

    def neurons(self, visit: Visit | None, focus: Focus | None, bench: str, now: object) -> dict:
        """What a sweep may turn: the chosen neuron, those on the bench, the first of the list."""
        if visit is None or focus is None:
            return gr.update()
        chosen = [] if focus.neuron is None else [focus.neuron]
        chosen += [row.neuron for row in rows.parse(bench, visit.view)]
        chosen += [entry.neuron for entry in self.asking.looking.listing(visit.view, focus).entries[:8]]
        titles = {str(neuron): self.asking.looking.strips.title(neuron) for neuron in dict.fromkeys(chosen)}
        first = next(iter(titles), None)
        keep = now if now in titles and focus.neuron is None else first
        return gr.update(choices=[(title, neuron) for neuron, title in titles.items()], value=keep)

    def words(self, said: Said | None) -> dict:
        """The words of the untouched answer that a sweep may follow, as they are one thing."""
        if said is None:
            return gr.update()
        found = [
            asked_at(self.session, said.text, word.start, self.asking.concepts())
            for word in self.session.lvlm.answer_words(said.text)
            if word.text.lower() not in LINKS
        ]
        texts = list(dict.fromkeys(asked.text for asked in found))
        return gr.update(choices=texts, value=texts[-1] if texts else None)

    @plainly
    def sweep_alpha(
        self,
        visit: Visit | None,
        said: Said | None,
        neuron: object,
        word: object,
        first: object,
        last: object,
        steps: object,
        where: object,
        how: str,
    ) -> Iterator[Swept]:
        """Log-probability of a word, and captions, over values of one neuron."""
        view = there(visit).view
        if said is None:
            raise ExplorerError("the answer is not complete yet; wait for its full stop")
        chosen = checks.whole(_whole(neuron), "neuron", view.n_neurons)
        text = checks.text(word, "the word", checks.LONGEST_CONCEPT)
        low, high = (checks.finite(value, "the value", FARTHEST) for value in (first, last))
        count = checks.whole(steps, "the number of values", MOST_STEPS + 1)
        if count < 2 or low >= high:
            raise ExplorerError(
                f"{count} values from {low:g} to {high:g}: give 2 or more, the lower end first"
            )
        patches = "active" if checks.one_of(where, "the region", (FIRES, ALL)) == FIRES else None
        followed = led(self.session, said.text, text)
        cancel = visit.study.begin()
        yield Swept(status("Answering …", going=True), gr.skip(), gr.skip())
        sweep = partial(
            alpha_sweep,
            self.session,
            view,
            chosen,
            np.linspace(low, high, count).tolist(),
            followed,
            said.prompt,
            patches=patches,
            max_new_tokens=settings.parse(how).max_new_tokens,
            batch=SHARE,
            cancel=cancel,
        )
        work = running(lambda hears: sweep(progress=hears), cancel)
        with closing(work):
            for one in work:
                if visit.study.left:
                    return
                if isinstance(one, Finished):
                    found, name = one.result, self.asking.looking.strips.title(chosen)
                    cut = "" if found.complete else "Stopped: what was found so far. "
                    title = status(
                        f"{cut}{visit.title}: {name} from {number(low)} to {number(high)}, {where}."
                    )
                    chart = figures.alpha_chart(found, name, followed)
                    yield Swept(title, gr.update(value=chart, visible=True), figures.alpha_captions(found))
                else:
                    yield Swept(status("Answering at each value", *one, going=True), gr.skip(), gr.skip())

    @plainly
    def sweep_noise(
        self, visit: Visit | None, said: Said | None, how: str
    ) -> Iterator[tuple[str, object, object, object]]:
        """The picture under more and more noise: what changes by class, what is said with and without CNS."""
        view = there(visit).view
        if said is None:
            raise ExplorerError("the answer is not complete yet; wait for its full stop")
        asked = replace(settings.parse(how), cns=True)
        if self.session.store is None:
            asked = replace(asked, suppress_always_on=False)
        contrast, length = asked.contrast(), min(asked.max_new_tokens, LONGEST_NOISY)
        seeds = tuple(asked.noise_seed + i for i in range(DRAWS))
        cancel, parts = visit.study.begin(), []
        more = {"captions": True, "contrast": contrast, "prompt": said.prompt, "max_new_tokens": length}
        for step in STEPS:
            going = status("Answering at each step of the noise", len(parts), len(STEPS), going=True)
            yield going, gr.skip(), gr.skip(), gr.skip()
            if cancel.is_set():
                break
            parts.append(noise_sweep(self.session, view, (step,), seeds, **more))
        if visit.study.left:
            return
        cut = "" if len(parts) == len(STEPS) else f"Stopped after {len(parts)} of {len(STEPS)} steps. "
        facts = f"{DRAWS} draws of noise from seed {seeds[0]}; CNS with strength {asked.strength:g}."
        yield (status(f"{cut}{visit.title}: {facts}"), *_noise_shown(parts, said.text))

    def halt(self, visit: Visit | None) -> None:
        """Enough: what is found so far stays."""
        self.asking.halt(visit)


def _noise_shown(parts: list[Sweep], before: str) -> tuple[object, object, object]:
    """Two charts and the captions; nothing new where nothing was found."""
    if not parts:
        return gr.skip(), gr.skip(), gr.skip()
    charts = [gr.update(value=figures.noise_chart(parts, kept), visible=True) for kept in (False, True)]
    return (*charts, figures.noise_captions(parts, before))


def led(session: Session, answer: str, text: str) -> str:
    """A word of the answer with the links that lead to it: whether it is said at all is decided there."""
    if not text:
        raise ExplorerError("choose a word to follow, or type one")
    at = answer.lower().find(text.lower())
    words = session.lvlm.answer_words(answer)
    first = next((i for i, word in enumerate(words) if word.start == at), None)
    if first is None:
        return text
    while first and words[first - 1].text.lower() in LINKS:
        if answer[words[first - 1].end : words[first].start].strip():
            break
        first -= 1
    return answer[words[first].start : at + len(text)]


def _whole(value: object) -> object:
    """A neuron's number that may have been typed."""
    digits = value.strip().removeprefix("#") if isinstance(value, str) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else value
